// What a program that embeds a shard may rely on, whatever its device is: tensors may be said to lie in the device's memory, steps are prepared
// and refused as their layers are, and whatever is refused changes nothing. GPUs have more to show: gpu_embedded_test.cpp.

#include <gtest/gtest.h>

#include "tests/grid/driver.h"
#include "tests/grid/test_device.h"
#include "worker/shard.h"

namespace kvgrid::tests {
namespace {

using namespace worker;

constexpr ModelId kModel{1};
constexpr SequenceId kSequence{1};
constexpr int kTokens = 70;

class EmbeddedRules : public testing::Test {
  protected:
    EmbeddedRules() {
        shard_.add_model(kModel, spec_, {1, 1}, 0).value();
        for (std::uint64_t id = 1; id <= 3; ++id) shard_.open(SequenceId{id}, kModel, {}).value();
    }

    StepId begin(std::uint64_t sequence, StepKind kind = StepKind::attend) {
        const StepId step{++last_step_};
        shard_.begin({.step = step, .model = kModel, .kind = kind, .parts = {{SequenceId{sequence}, kTokens}}}).value();
        return step;
    }
    Status layer(StepId step, int layer, TensorMemory memory, std::span<std::byte> whole) {
        const std::size_t row = spec_.row_bytes() * kTokens, q = row * spec_.query_heads, kv = row * spec_.kv_heads;
        const std::span<const std::byte> all(tensors_.bytes);
        return shard_.layer({.steps = {&step, 1},
                             .layer = layer,
                             .q = all.first(q),
                             .k = all.subspan(q, kv),
                             .v = all.subspan(q + kv, kv),
                             .whole = whole,
                             .partial = {},
                             .lse = {},
                             .inputs_in = memory,
                             .outputs_in = memory});
    }

    const ModelSpec spec_ = make_spec(2, 4, 2, 64, Dtype::bf16);
    std::mt19937 random_{5};
    const LayerTensors tensors_ = random_layer(random_, spec_, 0, kTokens, StepKind::attend);
    std::unique_ptr<Device> device_ = make_test_device(1, 0, 1);
    Shard shard_{0, 64 << 20, *device_};
    std::uint64_t last_step_ = 0;
};

TEST_F(EmbeddedRules, ACpusMemoryIsTheHosts) {
    std::vector<std::byte> from_host(spec_.row_bytes() * spec_.query_heads * kTokens), from_device(from_host.size());
    const StepId first = begin(1), second = begin(2);
    for (int l = 0; l < 2; ++l) {
        ASSERT_TRUE(layer(first, l, TensorMemory::host, from_host).ok());
        ASSERT_TRUE(layer(second, l, TensorMemory::device, from_device).ok());
        EXPECT_EQ(from_device, from_host) << "layer " << l;
    }
    EXPECT_TRUE(shard_.commit(first).ok());
    EXPECT_TRUE(shard_.commit(second).ok());
}

TEST_F(EmbeddedRules, PrepareRefusesWhatALayerCallWould) {
    const StepId attending = begin(1), writing = begin(2, StepKind::write), unknown{99};
    const StepId mixed[] = {attending, writing}, ended[] = {attending, unknown};
    EXPECT_EQ(shard_.prepare({}).error(), Errc::invalid_argument);
    EXPECT_EQ(shard_.prepare(mixed).error(), Errc::invalid_argument);
    EXPECT_EQ(shard_.prepare(ended).error(), Errc::not_found);
    EXPECT_EQ(shard_.prepare({&attending, 1}).value(), 0u);
    EXPECT_EQ(shard_.prepare({&writing, 1}).value(), 0u);
}

TEST_F(EmbeddedRules, NothingIsReplayedOnACpu) {
    const StepId step = begin(1);
    const std::uint64_t epoch = shard_.prepare({&step, 1}).value();
    EXPECT_EQ(shard_.replay({&step, 1}, epoch).error(), Errc::unsupported);
    EXPECT_EQ(shard_.commit(step).error(), Errc::wrong_state);  // its layers are still to come

    std::vector<std::byte> whole(spec_.row_bytes() * spec_.query_heads * kTokens);
    for (int l = 0; l < 2; ++l) ASSERT_TRUE(layer(step, l, TensorMemory::device, whole).ok());
    EXPECT_EQ(shard_.replay({&step, 1}, epoch).error(), Errc::wrong_state);  // all layers are done
    EXPECT_TRUE(shard_.commit(step).ok());
    EXPECT_EQ(shard_.length_of(kSequence), kTokens);
}

TEST_F(EmbeddedRules, StepsAreReplayedTogetherFromTheSameLayerOn) {
    const StepId ahead = begin(1), behind = begin(2);
    std::vector<std::byte> whole(spec_.row_bytes() * spec_.query_heads * kTokens);
    ASSERT_TRUE(layer(ahead, 0, TensorMemory::device, whole).ok());
    const StepId both[] = {ahead, behind};
    EXPECT_EQ(shard_.replay(both, 0).error(), Errc::wrong_state);
    EXPECT_TRUE(shard_.abort(ahead).ok());
    EXPECT_TRUE(shard_.abort(behind).ok());
}

}  // namespace
}  // namespace kvgrid::tests
