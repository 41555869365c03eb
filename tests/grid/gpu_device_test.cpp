// What a GPU device promises beyond the right outputs, which the grid tests look at: its memory adds up, decodes of one shape are replayed
// as graphs, page lists outgrow their first place, and a call may hold decodes and chunks.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "tests/grid/driver.h"
#include "tests/grid/reference_cache.h"
#include "worker/gpu/gpu_device.h"
#include "worker/shard.h"

namespace kvgrid::tests {
namespace {

using namespace worker;

constexpr ModelId kModel{1};
constexpr std::uint64_t kMiB = 1 << 20;

// One shard on a GPU, driven as ThreadGrid is.
class GpuShard {
  public:
    explicit GpuShard(const ModelSpec& spec, std::uint64_t memory_bytes = 256 * kMiB) : spec_(spec) {
        device_ = GpuDevice::make(0).value();
        shard_ = std::make_unique<Shard>(0, memory_bytes, *device_);
        shard_->add_model(kModel, spec, {1, 1}, 0).value();
    }

    std::pair<StepId, OperationResult> begin(BeginStep begin) {
        begin.step = StepId{++last_step_};
        OperationResult result;
        result.status = shard_->begin(begin);
        for (const auto& part : begin.parts) result.lengths.push_back(shard_->length_of(part.sequence));
        return {begin.step, std::move(result)};
    }
    OperationResult layer(StepId step, int layer, const std::vector<std::byte>& tensors) {
        const std::size_t row = spec_.row_bytes() * shard_->size_of_step(step).tokens;
        const std::size_t q = row * spec_.query_heads, kv = row * spec_.kv_heads;
        std::vector<std::byte> whole(q);
        const std::span<const std::byte> all(tensors);
        OperationResult result;
        result.status = shard_->layer({.steps = {&step, 1},
                                       .layer = layer,
                                       .q = all.first(q),
                                       .k = all.subspan(q, kv),
                                       .v = all.subspan(q + kv, kv),
                                       .whole = whole,
                                       .partial = {},
                                       .lse = {}});
        result.tensors = comm::Payload::own(std::move(whole));
        return result;
    }
    OperationResult commit(StepId step) { return with(shard_->commit(step)); }
    OperationResult abort(StepId step) { return with(shard_->abort(step)); }

    Shard& shard() { return *shard_; }
    DeviceStatus status() const { return device_->status(); }
    void drop() { shard_.reset(); }

  private:
    static OperationResult with(Status status) {
        OperationResult result;
        result.status = std::move(status);
        return result;
    }

    const ModelSpec spec_;
    std::unique_ptr<GpuDevice> device_;
    std::unique_ptr<Shard> shard_;
    std::uint64_t last_step_ = 0;
};

class GpuDeviceTest : public testing::Test {
  protected:
    void open(GpuShard& grid, ReferenceCache& reference, std::uint64_t id, const Window& window = {}) {
        grid.shard().open(SequenceId{id}, kModel, window).value();
        reference.open(SequenceId{id}, window);
    }
    void step(GpuShard& grid, ReferenceCache& reference, const ModelSpec& spec,
              const std::vector<StreamTable::Part>& parts) {
        ASSERT_EQ(run_step(grid, reference, kModel, spec, parts, StepKind::attend, random_), "");
    }

    std::mt19937 random_{7};
};

std::uint64_t calls(const DeviceStatus& status, const std::string& path) {
    for (const auto& count : status.attention_calls) {
        if (count.label == path) return count.value;
    }
    ADD_FAILURE() << "no path " << path;
    return 0;
}

TEST_F(GpuDeviceTest, DecodesOfOneShapeAreReplayedAsGraphs) {
    const ModelSpec spec = make_spec(2, 8, 2, 128, Dtype::bf16);
    ReferenceCache reference(spec);
    GpuShard grid(spec);
    open(grid, reference, 1);
    open(grid, reference, 2);
    step(grid, reference, spec, {{SequenceId{1}, 100}, {SequenceId{2}, 30}});
    for (int i = 0; i < 40; ++i) step(grid, reference, spec, {{SequenceId{1}, 1}, {SequenceId{2}, 1}});

    const DeviceStatus status = grid.status();
    EXPECT_EQ(status.layer_calls, 82u);
    // Four batches are kept apart, and the first decode of each is not captured.
    EXPECT_GE(status.graph_launches, 2u * (40 - 4));
    EXPECT_LE(status.graph_captures, 2u * 4);
    EXPECT_EQ(calls(status, "general"), 0u);
    EXPECT_GT(status.kernel_ns, 0u);
}

TEST_F(GpuDeviceTest, DecodesAndChunksShareACall) {
    const ModelSpec spec = make_spec(1, 8, 2, 128, Dtype::bf16);
    ReferenceCache reference(spec);
    GpuShard grid(spec);
    for (std::uint64_t id = 1; id <= 4; ++id) open(grid, reference, id, id == 4 ? Window{100, 5} : Window{});
    step(grid, reference, spec, {{SequenceId{1}, 700}, {SequenceId{2}, 65}, {SequenceId{3}, 3}, {SequenceId{4}, 300}});
    step(grid, reference, spec, {{SequenceId{1}, 1}, {SequenceId{2}, 200}, {SequenceId{3}, 4}, {SequenceId{4}, 70}});

    EXPECT_EQ(calls(grid.status(), "chunks"), 2u);
    EXPECT_EQ(calls(grid.status(), "general"), 0u);
}

// The same tokens of a sequence, alone and among others, few and many.
TEST_F(GpuDeviceTest, DeterministicBitsDoNotDependOnTheBatch) {
    ModelSpec spec = make_spec(1, 8, 2, 128, Dtype::bf16);
    spec.deterministic = true;
    const LayerTensors prompt = random_layer(random_, spec, 0, 5000, StepKind::attend);
    const auto outputs = [&](int others) {
        std::mt19937 random(others);
        GpuShard grid(spec);
        std::vector<StreamTable::Part> parts{{SequenceId{1}, 5000}}, next{{SequenceId{1}, 1}}, last{{SequenceId{1}, 3}};
        for (int other = 1; other <= others; ++other) {
            const SequenceId id{static_cast<std::uint64_t>(other) + 1};
            parts.push_back({id, 1 + static_cast<int>(random() % 900)});
            next.push_back({id, 1 + static_cast<int>(random() % 8)});
            last.push_back({id, 1 + static_cast<int>(random() % 40)});
        }
        for (const auto& part : parts) grid.shard().open(part.sequence, kModel, {}).value();
        std::vector<std::byte> got;
        for (const auto& step_parts : {parts, next, last}) {
            int tokens = 0;
            for (const auto& part : step_parts) tokens += part.tokens;
            // The first sequence's tensors are always the same.
            LayerTensors tensors = random_layer(random, spec, 0, tokens, StepKind::attend);
            const std::size_t own = step_parts[0].tokens;
            const std::size_t row = spec.row_bytes(), q = row * spec.query_heads, kv = row * spec.kv_heads;
            const std::byte* const source = prompt.bytes.data();
            std::memcpy(tensors.bytes.data(), source, own * q);
            std::memcpy(tensors.bytes.data() + tokens * q, source + 5000 * q, own * kv);
            std::memcpy(tensors.bytes.data() + tokens * (q + kv), source + 5000 * (q + kv), own * kv);
            const auto [step, begun] =
                grid.begin({.step = {}, .model = kModel, .kind = StepKind::attend, .parts = step_parts});
            EXPECT_TRUE(begun.status.ok());
            const auto output = grid.layer(step, 0, tensors.bytes);
            EXPECT_TRUE(output.status.ok());
            got.insert(got.end(), output.tensors.bytes().begin(), output.tensors.bytes().begin() + own * q);
            EXPECT_TRUE(grid.commit(step).status.ok());
        }
        return got;
    };
    const auto alone = outputs(0);
    for (int others : {1, 7, 40}) EXPECT_EQ(outputs(others), alone) << others << " others";
}

// Attention over fp8 pages is exact attention over what reading them back gives. The pages are filled by chunks and by single tokens, are
// shared by a fork, and some are left by a truncation.
TEST_F(GpuDeviceTest, AttendsToFp8PagesAsTheyReadBack) {
    for (const Dtype dtype : {Dtype::bf16, Dtype::f16}) {
        ModelSpec spec = make_spec(2, 8, 2, 128, dtype);
        spec.kv_dtype = KvDtype::fp8_e4m3;
        GpuShard grid(spec);
        const SequenceId source{1}, fork{2};
        grid.shard().open(source, kModel, {}).value();
        const auto run = [&](SequenceId sequence, int tokens) {
            const auto [step, begun] =
                grid.begin({.step = {}, .model = kModel, .kind = StepKind::attend, .parts = {{sequence, tokens}}});
            std::vector<std::pair<LayerTensors, std::vector<std::byte>>> done;
            for (int layer = 0; layer < 2; ++layer) {
                LayerTensors tensors = random_layer(random_, spec, layer, tokens, StepKind::attend);
                const auto output = grid.layer(step, layer, tensors.bytes);
                EXPECT_TRUE(output.status.ok());
                done.emplace_back(std::move(tensors),
                                  std::vector(output.tensors.bytes().begin(), output.tensors.bytes().end()));
            }
            EXPECT_TRUE(grid.commit(step).status.ok());
            return done;
        };
        run(source, 500);
        for (int i = 0; i < 20; ++i) run(source, 1);
        grid.shard().fork(source, fork).value();
        grid.shard().truncate(fork, 470).value();
        run(source, 3);
        for (const int tokens : {1, 4, 30}) {
            const auto outputs = run(fork, tokens);
            const std::int64_t length = grid.shard().length_of(fork);
            for (int layer = 0; layer < 2; ++layer) {
                const std::size_t elements = length * spec.kv_heads * spec.head_dim;
                std::vector<std::byte> kv(2 * elements * byte_size(dtype));
                grid.shard().read_kv(fork, layer, 0, length, kv);
                const std::vector<float> values = to_floats(kv, dtype);
                ReferenceCache reference(spec);
                reference.open(fork, {});
                reference.append(fork, layer, std::span(values).first(elements), std::span(values).last(elements));
                reference.commit(fork, static_cast<int>(length) - tokens);
                const auto expected = reference.attend(fork, layer, outputs[layer].first.q, tokens);
                const std::vector<float> got = to_floats(outputs[layer].second, dtype);
                const double v_max =
                    std::abs(*std::ranges::max_element(values, {}, [](float v) { return std::abs(v); }));
                for (std::size_t i = 0; i < expected.size(); ++i) {
                    ASSERT_NEAR(got[i], expected[i], output_tolerance(spec, v_max))
                        << "layer " << layer << ", element " << i;
                }
            }
        }
        EXPECT_EQ(calls(grid.status(), "general"), dtype == Dtype::f16 ? 4u : 0u);  // its chunks, of both layers
    }
}

TEST_F(GpuDeviceTest, PageListsOutgrowTheirPlaces) {
    const ModelSpec spec = make_spec(3, 4, 2, 64, Dtype::f16);
    ReferenceCache reference(spec);
    GpuShard grid(spec, 32 * kMiB);  // 2048 pages: room for 16384 entries at first
    for (std::uint64_t id = 1; id <= 3; ++id) open(grid, reference, id);
    for (int i = 0; i < 6; ++i)
        step(grid, reference, spec, {{SequenceId{1}, 400}, {SequenceId{2}, 64}, {SequenceId{3}, 1}});
    // Forks name the same pages in lists of their own.
    std::uint64_t id = 3;
    for (int i = 0; i < 60; ++i) {
        grid.shard().fork(SequenceId{1}, SequenceId{++id}).value();
        reference.fork(SequenceId{1}, SequenceId{id});
        step(grid, reference, spec, {{SequenceId{id}, 1}, {SequenceId{2}, 1}});
    }
    for (std::uint64_t closed = 5; closed <= 20; ++closed) grid.shard().close(SequenceId{closed}).value();
    step(grid, reference, spec, {{SequenceId{1}, 1}, {SequenceId{id}, 9}, {SequenceId{3}, 100}});
}

TEST_F(GpuDeviceTest, MemoryAddsUpToWhatTheDriverSays) {
    const ModelSpec spec = make_spec(2, 8, 2, 128, Dtype::bf16);
    ReferenceCache reference(spec);
    GpuShard grid(spec, 2048 * kMiB);
    open(grid, reference, 1);
    step(grid, reference, spec, {{SequenceId{1}, 900}});
    const auto unexplained = [&] {
        const DeviceStatus status = grid.status();
        double bytes =
            static_cast<double>(status.memory_total - status.memory_free) - static_cast<double>(status.memory_before);
        for (const auto& taken : status.memory_taken) bytes -= static_cast<double>(taken.value);
        return bytes;
    };
    // cudaMalloc rounds up to 2 MiB; the driver loads kernels as they are first used.
    EXPECT_LT(std::abs(unexplained()), 256.0 * kMiB);
    EXPECT_GE(grid.status().memory_taken[0].value, 2040 * kMiB);

    grid.drop();
    for (const auto& taken : grid.status().memory_taken) EXPECT_EQ(taken.value, 0u) << taken.label;
    EXPECT_EQ(grid.status().pinned_bytes, 0u);
    EXPECT_LT(std::abs(unexplained()), 256.0 * kMiB);
}

TEST_F(GpuDeviceTest, RefusesAPoolThatDoesNotFitAndTakesNothing) {
    const ModelSpec spec = make_spec(2, 8, 2, 128, Dtype::bf16);
    auto device = GpuDevice::make(0).value();
    const std::uint64_t total = device->status().memory_total;
    Shard shard(0, 4 * total, *device);
    const auto refused = shard.add_model(kModel, spec, {1, 1}, 2 * total);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error(), Errc::no_room);
    EXPECT_NE(refused.error().message.find("bytes free"), std::string::npos) << refused.error().message;
    for (const auto& taken : device->status().memory_taken) EXPECT_EQ(taken.value, 0u) << taken.label;
    EXPECT_TRUE(shard.add_model(kModel, spec, {1, 1}, 64 * kMiB));
}

}  // namespace
}  // namespace kvgrid::tests
