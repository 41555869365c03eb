// Ranks that have all opened a client's memory take their own heads from it, and the lead writes o there: what a step gives is what the same step
// gives with tensors in its requests, to the bit, split by heads, by sequence, and by both. Where one rank does not reach the memory, none has it
// open. On CPUs, for which the memory of a GPU is the host's.

#include <gtest/gtest.h>

#include <cstring>
#include <optional>
#include <random>

#include "tests/grid/thread_grid.h"
#include "tests/unit/worker/host_memory.h"
#include "worker/cpu_device.h"

namespace kvgrid::tests {
namespace {

using worker::DeviceOffsets;
using worker::DeviceRegion;
using worker::OperationResult;
using worker::StepKind;

constexpr ModelId kModel{1};
constexpr SequenceId kFirst{1};
constexpr std::uint64_t kNumber = 5;

// Layer 1 reads the KV of layer 0.
ModelSpec small_spec() {
    return validated({.name = "m",
                      .layers = {{0}, {0}, {2}},
                      .query_heads = 8,
                      .kv_heads = 4,
                      .head_dim = 32,
                      .dtype = Dtype::f32,
                      .scale = 0.2,
                      .deterministic = true})
        .value();
}

class ClientMemoryGrid : public testing::TestWithParam<GridShape> {
  protected:
    // A device that opens the memory of this test.
    class Opener final : public worker::Device {
      public:
        Opener(ClientMemoryGrid& test, int rank) : test_(test), rank_(rank) {}
        worker::DeviceStatus status() const override { return cpu_.status(); }
        Result<std::unique_ptr<worker::DeviceModel>> make_model(const worker::DeviceModelShape& shape,
                                                                std::uint32_t page_count) override {
            return cpu_.make_model(shape, page_count);
        }
        Result<std::shared_ptr<worker::DeviceMemory>> open_memory(std::span<const std::byte>,
                                                                  std::uint64_t) const override {
            if (rank_ == test_.cut_off_rank_) return {Errc::invalid_argument, "opens nothing"};
            auto memory = std::make_shared<worker::HostMemory>(test_.bytes_);
            test_.opened_[rank_] = memory;
            return std::shared_ptr<worker::DeviceMemory>(std::move(memory));
        }

      private:
        worker::CpuDevice cpu_{1};
        ClientMemoryGrid& test_;
        const int rank_;
    };

    ClientMemoryGrid()
        : opened_(GetParam().workers()), grid_(GetParam().workers(), 8 << 20, 1, [this](int, int rank, int) {
              return std::make_unique<Opener>(*this, rank);
          }) {
        grid_.submit(worker::AddModel{kModel, spec_, GetParam(), 0}).status.value();
        while (spread_of(second_, GetParam()) != spread_of(kFirst, GetParam())) ++second_.value;  // pages lie alike
        for (SequenceId id : {kFirst, second_}) grid_.submit(worker::OpenSequence{id, kModel, {}}).status.value();
    }

    StepId begin(SequenceId sequence, int tokens, StepKind kind) {
        auto [step, result] = grid_.begin({.step = {}, .model = kModel, .kind = kind, .parts = {{sequence, tokens}}});
        result.status.value();
        return step;
    }
    OperationResult layer_in_place(StepId step, int layer, const DeviceOffsets& at) {
        std::optional<OperationResult> result;
        grid_.lead().layer_in_place(step, layer, region_, at, [&](OperationResult done) { result = std::move(done); });
        grid_.wait_for([&] { return result.has_value(); });
        return *std::move(result);
    }
    void compare_layer(StepId with_payload, StepId in_memory, int layer, int tokens, bool attends) {
        const std::size_t row = spec_.row_bytes() * tokens, q = attends ? row * spec_.query_heads : 0;
        const std::size_t kv = spec_.owns_kv(layer) ? row * spec_.kv_heads : 0;
        const DeviceOffsets at{.q = 80 << 10, .k = 0, .v = 40 << 10, .o = 160 << 10};
        std::vector<std::byte> tensors(q + 2 * kv);
        std::uniform_real_distribution<float> any(-1, 1);
        for (std::size_t byte = 0; byte < tensors.size(); byte += sizeof(float)) {
            const float value = any(random_);
            std::memcpy(tensors.data() + byte, &value, sizeof(value));
        }
        std::copy_n(tensors.begin(), q, bytes_.begin() + at.q);
        std::copy_n(tensors.begin() + q, kv, bytes_.begin() + at.k);
        std::copy_n(tensors.begin() + q + kv, kv, bytes_.begin() + at.v);
        std::vector<std::byte> expected = bytes_;
        const OperationResult result = grid_.layer(with_payload, layer, tensors);
        result.status.value();
        ASSERT_EQ(result.tensors.size(), q);
        std::ranges::copy(result.tensors.bytes(), expected.begin() + at.o);

        const OperationResult in_place = layer_in_place(in_memory, layer, at);
        ASSERT_TRUE(in_place.status) << in_place.status.error().to_string();
        EXPECT_EQ(in_place.tensors.size(), 0u);
        EXPECT_TRUE(bytes_ == expected) << "layer " << layer << " of " << tokens << " tokens";
    }

    SequenceId second_{2};
    const ModelSpec spec_ = small_spec();
    std::mt19937 random_{11};
    std::vector<std::byte> bytes_ = std::vector<std::byte>(256 << 10);
    std::vector<std::weak_ptr<worker::DeviceMemory>> opened_;  // by rank
    int cut_off_rank_ = -1;
    DeviceRegion region_{.memory = std::make_shared<worker::HostMemory>(bytes_), .number = kNumber};
    ThreadGrid grid_;
};

TEST_P(ClientMemoryGrid, TensorsInItGiveWhatTheSameTensorsGiveInRequests) {
    ASSERT_TRUE(grid_.submit(worker::OpenClientMemory{.memory = kNumber, .bytes = bytes_.size()}).status);
    region_.is_open_everywhere = true;
    for (const auto& [tokens, kind] : {std::pair{70, StepKind::attend}, {7, StepKind::write}, {1, StepKind::attend}}) {
        const StepId a = begin(kFirst, tokens, kind), b = begin(second_, tokens, kind);
        for (int layer = 0; layer < spec_.layer_count(); ++layer) {
            if (kind == StepKind::attend || spec_.owns_kv(layer)) {
                compare_layer(a, b, layer, tokens, kind == StepKind::attend);
            }
        }
        ASSERT_TRUE(grid_.commit(a).status);
        ASSERT_TRUE(grid_.commit(b).status);
    }
    const auto closed = grid_.submit(worker::CloseClientMemory{kNumber});
    ASSERT_TRUE(closed.status);
    for (const auto& memory : opened_) EXPECT_TRUE(memory.expired());
    EXPECT_EQ(grid_.violation(), "");
}

TEST_P(ClientMemoryGrid, WhatOneRankDoesNotReachNoneHasOpen) {
    cut_off_rank_ = grid_.rank_count() - 1;
    const auto result = grid_.submit(worker::OpenClientMemory{.memory = kNumber, .bytes = bytes_.size()});
    EXPECT_EQ(result.status.error(), Errc::unsupported);
    grid_.violation();  // waits for all ranks
    for (const auto& memory : opened_) EXPECT_TRUE(memory.expired());
    const StepId a = begin(kFirst, 3, StepKind::attend), b = begin(second_, 3, StepKind::attend);
    compare_layer(a, b, 0, 3, true);  // through the host's memory
}

INSTANTIATE_TEST_SUITE_P(Grids, ClientMemoryGrid,
                         testing::Values(GridShape{1, 2}, GridShape{2, 1}, GridShape{2, 2}, GridShape{3, 1}),
                         [](const auto& shape) {
                             return std::to_string(shape.param.head_parts) + "x" +
                                    std::to_string(shape.param.sequence_parts);
                         });

}  // namespace
}  // namespace kvgrid::tests
