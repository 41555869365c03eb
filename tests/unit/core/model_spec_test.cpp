// A spec that `validated` lets through obeys every rule; one that breaks a rule is refused with the field, its value
// and the rule. Shown rule by rule, just inside and just outside each bound.

#include "core/model_spec.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>

#include "tests/unit/core/model_spec_fixture.h"

namespace kvgrid {
namespace {

struct Refused {
    std::function<void(ModelSpec&)> spoil;
    const char* message;
};

TEST(ModelSpec, ASpecThatObeysTheRulesComesBackUnchanged) {
    const auto spec = validated(small_spec());

    ASSERT_TRUE(spec.ok()) << spec.error().to_string();
    EXPECT_EQ(*spec, small_spec());
}

TEST(ModelSpec, EveryBrokenRuleIsNamedWithItsFieldAndValue) {
    const Refused cases[] = {
        {[](ModelSpec& s) { s.name = ""; }, "name is 0 characters long: must be 1 to 128 printable ASCII characters"},
        {[](ModelSpec& s) { s.name = std::string(129, 'a'); },
         "name is 129 characters long: must be 1 to 128 printable ASCII characters"},
        {[](ModelSpec& s) { s.name = "a\nb"; },
         "name has byte 0x0a at position 1: must be 1 to 128 printable ASCII characters"},
        {[](ModelSpec& s) { s.name = "\xc3\xa9"; },
         "name has byte 0xc3 at position 0: must be 1 to 128 printable ASCII characters"},
        {[](ModelSpec& s) { s.layers.clear(); }, "layers is 0: must be from 1 to 1024"},
        {[](ModelSpec& s) { s.layers.resize(1025); }, "layers is 1025: must be from 1 to 1024"},
        {[](ModelSpec& s) { s.query_heads = 0; }, "query_heads is 0: must be from 1 to 1024"},
        {[](ModelSpec& s) { s.query_heads = 1026; }, "query_heads is 1026: must be from 1 to 1024"},
        {[](ModelSpec& s) { s.kv_heads = 0; }, "kv_heads is 0: must be from 1 to query_heads, 8"},
        {[](ModelSpec& s) { s.kv_heads = 16; }, "kv_heads is 16: must be from 1 to query_heads, 8"},
        {[](ModelSpec& s) { s.kv_heads = 3; }, "query_heads is 8: must be a multiple of kv_heads, 3"},
        {[](ModelSpec& s) { s.head_dim = 20; }, "head_dim is 20: must be a multiple of 8 from 32 to 256"},
        {[](ModelSpec& s) { s.head_dim = 36; }, "head_dim is 36: must be a multiple of 8 from 32 to 256"},
        {[](ModelSpec& s) { s.head_dim = 264; }, "head_dim is 264: must be a multiple of 8 from 32 to 256"},
        {[](ModelSpec& s) { s.dtype = Dtype{9}; }, "dtype is number 9: must be f32 (1), f16 (2) or bf16 (3)"},
        {[](ModelSpec& s) { s.scale = 0; }, "scale is 0: must be finite and above 0"},
        {[](ModelSpec& s) { s.scale = std::nan(""); }, "scale is nan: must be finite and above 0"},
        {[](ModelSpec& s) { s.logit_soft_cap = -1; },
         "logit_soft_cap is -1: must be finite, and above 0 or 0 for none"},
        {[](ModelSpec& s) { s.logit_soft_cap = std::numeric_limits<double>::infinity(); },
         "logit_soft_cap is inf: must be finite, and above 0 or 0 for none"},
        {[](ModelSpec& s) { s.layers[1].kv_layer = 4; }, "kv_layer of layer 1 is 4: must be from 0 to 3"},
        {[](ModelSpec& s) { s.layers[1].kv_layer = -1; }, "kv_layer of layer 1 is -1: must be from 0 to 3"},
        {[](ModelSpec& s) { s.layers[1].window = -1; }, "window of layer 1 is -1: must be from 0 to 1099511627776"},
        {[](ModelSpec& s) { s.layers[2].sinks = 4; }, "sinks of layer 2 is 4: must be 0 where the layer has no window"},
        {[](ModelSpec& s) {
             s.layers[2] = {2, 8, -1};
         },
         "sinks of layer 2 is -1: must be from 0 to 1099511627776"},
    };
    for (const Refused& refused : cases) {
        ModelSpec spec = small_spec();
        refused.spoil(spec);

        const auto result = validated(spec);

        ASSERT_FALSE(result.ok()) << refused.message;
        EXPECT_EQ(result.error(), Errc::invalid_argument);
        EXPECT_EQ(result.error().message, refused.message);
    }
}

TEST(ModelSpec, AChainOfKvLayersIsUnsupported) {
    ModelSpec spec = small_spec();
    spec.layers[2].kv_layer = 1;
    spec.layers[1].kv_layer = 0;

    const auto result = validated(spec);

    ASSERT_FALSE(result.ok());
    EXPECT_EQ(result.error(), Errc::unsupported);
    EXPECT_EQ(result.error().message,
              "kv_layer of layer 2 is 1: must be a layer that reads its own KV, but layer 1 reads layer 0's "
              "(chains are not supported)");
}

TEST(ModelSpec, TheBoundsThemselvesAreAllowed) {
    ModelSpec spec = small_spec();
    spec.name = std::string(126, 'a') + " ~";
    spec.layers.clear();
    for (int layer = 0; layer < 1024; ++layer) spec.layers.push_back({layer, kWindowMax, kWindowMax});
    spec.query_heads = spec.kv_heads = 1024;
    spec.head_dim = 256;
    spec.dtype = Dtype::f32;
    spec.logit_soft_cap = 50;

    const auto result = validated(spec);

    ASSERT_TRUE(result.ok()) << result.error().to_string();
    EXPECT_EQ(result->page_bytes(), 2u * 64 * 1024);
    EXPECT_EQ(result->token_bytes(), std::size_t{2} * 1024 * 1024 * 1024);  // the largest there is
}

TEST(ModelSpec, StorageCountsOnlyTheLayersThatOwnKv) {
    ModelSpec spec = small_spec();
    spec.layers[1].kv_layer = 2;
    spec.layers[3].kv_layer = 0;

    EXPECT_TRUE(validated(spec).ok());
    EXPECT_EQ(spec.kv_layers(), (std::vector<int>{0, 2}));
    EXPECT_TRUE(spec.reads_later_layer(1));
    EXPECT_FALSE(spec.reads_later_layer(2));
    EXPECT_FALSE(spec.reads_later_layer(3));
    EXPECT_EQ(spec.group(), 4);
    EXPECT_EQ(spec.row_bytes(), 128u);
    EXPECT_EQ(spec.page_bytes(), 2u * 64 * 128);
    EXPECT_EQ(spec.token_bytes(), 2u * 128 * 2 * 2);
}

}  // namespace
}  // namespace kvgrid
