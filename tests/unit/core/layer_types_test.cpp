// The LCKV notation: every arrangement that its papers name is read as they mean it, and whatever does not fit the
// grammar, the layer count or the rule against chains is refused.

#include <gtest/gtest.h>

#include <algorithm>

#include "core/model_spec.h"

namespace kvgrid {
namespace {

std::string repeated(std::string_view item, int count) {
    std::string notation;
    for (int i = 0; i < count; ++i) notation += std::string(item) + "_";
    return notation;
}

// "from_..._to_", each followed by `suffix`.
std::string counted(int from, int to, std::string_view suffix = "") {
    std::string notation;
    for (int layer = from; layer <= to; ++layer) notation += std::to_string(layer) + std::string(suffix) + "_";
    return notation;
}

struct Arrangement {
    const char* name;
    std::string notation;  // with a last underscore too many
    std::vector<int> kv_layers;
    int sliding_count;
};

std::vector<Arrangement> named_arrangements() {
    const std::vector<int> even = {0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20};
    std::string pairs;
    for (const int layer : even) pairs += repeated(std::to_string(layer), 2);
    std::vector<int> all(22);
    for (int layer = 0; layer < 22; ++layer) all[layer] = layer;
    return {
        {"standard", counted(0, 21), all, 0},
        {"LCKV w=2", "0_" + repeated("20", 20) + "21_", {0, 20, 21}, 0},
        {"LCKV w=10", counted(0, 4) + repeated("16", 12) + counted(17, 21), {0, 1, 2, 3, 4, 16, 17, 18, 19, 20, 21}, 0},
        {"sandwich-middle", "0_" + repeated("10", 20) + "21_", {0, 10, 21}, 0},
        {"CLA-2", pairs, even, 0},
        {"YOCO", counted(0, 10, "s") + repeated("11", 11), {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}, 11},
        {"MixAttention pairs",
         "0_1s_1s_3s_3s_3s_0_7s_7s_9s_9s_9s_12_13s_13s_15s_15s_15s_12_19s_19s_19s_",
         {0, 1, 3, 7, 9, 12, 13, 15, 19},
         18},
    };
}

TEST(LayerTypes, EveryArrangementThatThePapersNameIsRead) {
    for (Arrangement& arrangement : named_arrangements()) {
        arrangement.notation.pop_back();

        const auto layers = parse_layer_types(arrangement.notation, 22);

        ASSERT_TRUE(layers.ok()) << arrangement.name << ": " << layers.error().to_string();
        std::vector<int> kv_layers;
        for (int layer = 0; layer < 22; ++layer) {
            if ((*layers)[layer].kv_layer == layer) kv_layers.push_back(layer);
        }
        EXPECT_EQ(kv_layers, arrangement.kv_layers) << arrangement.name;
        EXPECT_EQ(std::count_if(layers->begin(), layers->end(), [](SharedLayer layer) { return layer.sliding; }),
                  arrangement.sliding_count)
            << arrangement.name;
    }
}

TEST(LayerTypes, ItemsAreALayerAndPerhapsASlidingMark) {
    const auto layers = parse_layer_types("0_2s_2_0s", 4);

    ASSERT_TRUE(layers.ok()) << layers.error().to_string();
    EXPECT_EQ(*layers, (std::vector<SharedLayer>{{0, false}, {2, true}, {2, false}, {0, true}}));
}

TEST(LayerTypes, WhatTheGrammarDoesNotAllowIsRefused) {
    for (const char* notation : {"", "0_", "_0", "0__0", "s_1", "0_1ss", "0_S1", "0_-1", "0_+1", "0_ 1", "0_1 ",
                                 "0_0x1", "0_2", "0_99999999999999999999", "0", "0_1_2", "0 1"}) {
        const auto layers = parse_layer_types(notation, 2);

        ASSERT_FALSE(layers.ok()) << notation;
        EXPECT_EQ(layers.error(), Errc::invalid_argument) << notation;
    }
    EXPECT_EQ(parse_layer_types("0_1x", 2).error().message,
              "layer_types item 1 is \"1x\": must be a layer number, then `s` where the layer slides");
    EXPECT_EQ(parse_layer_types("0_2", 2).error().message,
              "layer_types item 1 is \"2\": must name one of the 2 layers, 0 to 1");
    EXPECT_EQ(parse_layer_types("0_1_2", 2).error().message,
              "layer_types has 3 items: must have one for each of the 2 layers");
}

TEST(LayerTypes, ALayerCountOutsideTheLimitsIsRefused) {
    for (const int count : {-1, 0, 1025}) EXPECT_EQ(parse_layer_types("0", count).error(), Errc::invalid_argument);
}

TEST(LayerTypes, AChainIsUnsupported) {
    const auto layers = parse_layer_types("1_2_2", 3);

    ASSERT_FALSE(layers.ok());
    EXPECT_EQ(layers.error(), Errc::unsupported);
    EXPECT_NE(layers.error().message.find("kv_layer of layer 0 is 1"), std::string::npos) << layers.error().message;
}

}  // namespace
}  // namespace kvgrid
