// A layer's tensors travel as q, k, v without gaps, and only if each has the size that the model, the step and the
// layer give it.

#include "client/layer_payload.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "tests/unit/client/fake_cluster.h"

namespace kvgrid {
namespace {

constexpr int kTokens = 3;

struct LayerPayload : testing::Test {
    Result<comm::Payload> make(StepKind kind, int layer, const LayerInput& input) {
        if (Status valid = check_layer_input({spec, kind, kTokens, layer}, input); !valid) return valid.error();
        return layer_payload(input);
    }
    void expect_refused(StepKind kind, int layer, const LayerInput& input, const std::string& why) {
        auto payload = make(kind, layer, input);
        ASSERT_FALSE(payload) << why;
        EXPECT_EQ(payload.error(), Errc::invalid_argument);
        EXPECT_NE(payload.error().message.find(why), std::string::npos) << payload.error().message;
    }

    ModelSpec spec = test_spec();
    std::vector<std::byte> q = filled(kTokens * kQueryRowBytes, 1);
    std::vector<std::byte> k = filled(kTokens * kKvRowBytes, 2);
    std::vector<std::byte> v = filled(kTokens * kKvRowBytes, 3);
    std::vector<std::byte> shorter = filled(kTokens * kKvRowBytes - 1, 4);
};

TEST_F(LayerPayload, IsQThenKThenV) {
    auto payload = make(StepKind::attend, 0, {q, k, v});

    ASSERT_TRUE(payload) << payload.error().to_string();
    ASSERT_EQ(payload->size(), q.size() + k.size() + v.size());
    EXPECT_EQ(payload->bytes()[q.size() - 1], std::byte{1});
    EXPECT_EQ(payload->bytes()[q.size()], std::byte{2});
    EXPECT_EQ(payload->bytes()[q.size() + k.size()], std::byte{3});
    std::vector<std::byte> copy(layer_input_bytes({spec, StepKind::attend, kTokens, 0}));
    copy_layer_input({q, k, v}, copy);
    EXPECT_TRUE(std::ranges::equal(copy, payload->bytes()));
}

TEST_F(LayerPayload, IsQAloneWhereTheLayerOwnsNoKvAndKvAloneInAWriteStep) {
    EXPECT_EQ(make(StepKind::attend, 2, {q, {}, {}})->size(), q.size());
    EXPECT_EQ(make(StepKind::write, 1, {{}, k, v})->size(), k.size() + v.size());
}

TEST_F(LayerPayload, IsWhatAnIterateStepGives) {
    const auto bytes = [&](int layer, const LayerInput& input) -> Result<std::size_t> {
        const LayerCall call = layer_call(spec, StepKind::iterate, kTokens, layer, input);
        if (Status valid = check_layer_input(call, input); !valid) return valid.error();
        return layer_input_bytes(call);
    };
    EXPECT_EQ(*bytes(0, {q, k, v}), q.size() + k.size() + v.size());
    EXPECT_EQ(*bytes(0, {q, {}, {}}), q.size());
    EXPECT_EQ(*bytes(0, {{}, k, v}), k.size() + v.size());
    EXPECT_EQ(*bytes(2, {q, {}, {}}), q.size());
    EXPECT_EQ(bytes(0, {q, k, {}}).error(), Errc::invalid_argument);
    EXPECT_EQ(bytes(0, {}).error().message, "layer 0 is called with nothing to do: give it q, or k and v, or all");
    EXPECT_EQ(bytes(2, {}).error().message, "layer 2 is called with nothing to do: give it q; it owns no KV");
    EXPECT_EQ(bytes(3, {}).error(), Errc::invalid_argument);
}

TEST_F(LayerPayload, NamesTheTensorThatHasAnotherSize) {
    expect_refused(StepKind::attend, 0, {shorter, k, v},
                   "q of layer 0 has 767 bytes; 3 tokens of model 'test' make 1536");
    expect_refused(StepKind::attend, 0, {q, shorter, v},
                   "k of layer 0 has 767 bytes; 3 tokens of model 'test' make 768");
    expect_refused(StepKind::attend, 0, {q, k, shorter}, "v of layer 0 has 767 bytes");
    expect_refused(StepKind::attend, 0, {{}, k, v}, "q of layer 0 has 0 bytes");
    expect_refused(StepKind::attend, 0, {q, {}, {}}, "k of layer 0 has 0 bytes");
    expect_refused(StepKind::attend, 2, {q, k, v}, "k of layer 2 has 768 bytes");
    expect_refused(StepKind::write, 0, {q, k, v}, "q of layer 0 has 1536 bytes");
}

TEST_F(LayerPayload, RefusesALayerThatMayNotBeCalled) {
    expect_refused(StepKind::attend, -1, {q, k, v}, "has layers 0 to 2");
    expect_refused(StepKind::attend, 3, {q, k, v}, "has layers 0 to 2");
    expect_refused(StepKind::write, 2, {{}, k, v}, "layer 2 reads the KV of layer 1");
}

TEST_F(LayerPayload, OutputOfAnotherSizeIsCorrupt) {
    EXPECT_TRUE(check_layer_output({spec, StepKind::attend, kTokens, 0}, q));
    EXPECT_EQ(check_layer_output({spec, StepKind::attend, kTokens, 0}, k).error(), Errc::corrupt);
    EXPECT_TRUE(check_layer_output({spec, StepKind::write, kTokens, 0}, {}));
    EXPECT_EQ(check_layer_output({spec, StepKind::write, kTokens, 0}, k).error(), Errc::corrupt);
}

}  // namespace
}  // namespace kvgrid
