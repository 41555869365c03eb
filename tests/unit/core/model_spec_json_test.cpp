// Our JSON form of a model spec: what is written is read back as an equal spec, and what could be misread is refused
// with the field, its value and the rule.

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "core/model_spec.h"
#include "tests/unit/core/model_spec_fixture.h"

namespace kvgrid {
namespace {

// The fields that must be there, and then `more`.
std::string json_with(const std::string& more, int layers = 4) {
    return R"({"name":"m","query_heads":8,"kv_heads":2,"head_dim":64,"dtype":"f16","layers":)" +
           std::to_string(layers) + (more.empty() ? "" : "," + more) + "}";
}

ModelSpec parsed(const std::string& json) {
    auto spec = parse_model_spec(json);
    EXPECT_TRUE(spec.ok()) << spec.error().to_string() << " in " << json;
    return spec.ok() ? *spec : ModelSpec{};
}

std::string refusal_of(const std::string& json, Errc code = Errc::invalid_argument) {
    const auto spec = parse_model_spec(json);
    EXPECT_FALSE(spec.ok()) << json;
    if (spec.ok()) return "";
    EXPECT_EQ(spec.error(), code) << spec.error().to_string();
    return spec.error().message;
}

std::vector<std::int64_t> windows_of(const ModelSpec& spec) {
    std::vector<std::int64_t> windows;
    for (const LayerSpec& layer : spec.layers) windows.push_back(layer.window);
    return windows;
}

std::vector<std::int64_t> sinks_of(const ModelSpec& spec) {
    std::vector<std::int64_t> sinks;
    for (const LayerSpec& layer : spec.layers) sinks.push_back(layer.sinks);
    return sinks;
}

std::vector<int> kv_layer_of(const ModelSpec& spec) {
    std::vector<int> targets;
    for (const LayerSpec& layer : spec.layers) targets.push_back(layer.kv_layer);
    return targets;
}

TEST(ModelSpecJson, FieldsThatAreNotThereHaveTheirDefaults) {
    const ModelSpec spec = parsed(json_with(""));

    EXPECT_EQ(spec.name, "m");
    EXPECT_EQ(spec.query_heads, 8);
    EXPECT_EQ(spec.kv_heads, 2);
    EXPECT_EQ(spec.head_dim, 64);
    EXPECT_EQ(spec.dtype, Dtype::f16);
    EXPECT_EQ(spec.scale, 0.125);
    EXPECT_EQ(spec.logit_soft_cap, 0);
    EXPECT_FALSE(spec.allows_non_finite);
    EXPECT_FALSE(parsed(json_with(R"("non_finite":"refuse")")).allows_non_finite);
    EXPECT_TRUE(parsed(json_with(R"("non_finite":"allow")")).allows_non_finite);
    EXPECT_FALSE(spec.deterministic);
    EXPECT_TRUE(parsed(json_with(R"("deterministic":true)")).deterministic);
    EXPECT_EQ(spec.kv_dtype, KvDtype::as_model);
    EXPECT_EQ(parsed(json_with(R"("kv_dtype":"as_model")")).kv_dtype, KvDtype::as_model);
    EXPECT_EQ(parsed(json_with(R"("kv_dtype":"fp8_e4m3")")).kv_dtype, KvDtype::fp8_e4m3);
    EXPECT_EQ(kv_layer_of(spec), (std::vector<int>{0, 1, 2, 3}));
    EXPECT_EQ(windows_of(spec), (std::vector<std::int64_t>{0, 0, 0, 0}));
    EXPECT_EQ(sinks_of(spec), (std::vector<std::int64_t>{0, 0, 0, 0}));
}

TEST(ModelSpecJson, SharedLayersAreAnArrayOrNotation) {
    EXPECT_EQ(kv_layer_of(parsed(json_with(R"("kv_layer_of":[0,2,2,0])"))), (std::vector<int>{0, 2, 2, 0}));
    EXPECT_EQ(kv_layer_of(parsed(json_with(R"("kv_layer_of":"0_2_2_0")"))), (std::vector<int>{0, 2, 2, 0}));
}

TEST(ModelSpecJson, WindowsAndSinksAreANumberForAllOrAnArray) {
    const ModelSpec one = parsed(json_with(R"("window":64,"sinks":4)"));
    EXPECT_EQ(windows_of(one), (std::vector<std::int64_t>{64, 64, 64, 64}));
    EXPECT_EQ(sinks_of(one), (std::vector<std::int64_t>{4, 4, 4, 4}));

    const ModelSpec each = parsed(json_with(R"("window":[0,64,0,128],"sinks":[0,4,0,0])"));
    EXPECT_EQ(windows_of(each), (std::vector<std::int64_t>{0, 64, 0, 128}));
    EXPECT_EQ(sinks_of(each), (std::vector<std::int64_t>{0, 4, 0, 0}));
}

TEST(ModelSpecJson, OneNumberOfSinksGoesToTheLayersThatHaveAWindow) {
    EXPECT_EQ(sinks_of(parsed(json_with(R"("window":[0,64,0,64],"sinks":4)"))),
              (std::vector<std::int64_t>{0, 4, 0, 4}));
    EXPECT_EQ(sinks_of(parsed(json_with(R"("kv_layer_of":"0s_1_1_1","sinks":4)"))),
              (std::vector<std::int64_t>{4, 0, 0, 0}));
}

TEST(ModelSpecJson, SlidingLayersOfTheNotationTakeTheWindowAndOthersDoNot) {
    EXPECT_EQ(windows_of(parsed(json_with(R"("kv_layer_of":"0s_1_1s_1","window":1024)"))),
              (std::vector<std::int64_t>{1024, 0, 1024, 0}));
    EXPECT_EQ(windows_of(parsed(json_with(R"("kv_layer_of":"0s_1_1_1")"))), (std::vector<std::int64_t>{4096, 0, 0, 0}));
}

TEST(ModelSpecJson, UnknownAndRepeatedFieldsAreRefusedByName) {
    EXPECT_NE(refusal_of(json_with(R"("heads":8)")).find("\"heads\" is not a field: must be one of name, layers"),
              std::string::npos);
    EXPECT_EQ(refusal_of(json_with(R"("scale":1,"scale":2)")), "the JSON has the field \"scale\" twice");
    EXPECT_EQ(refusal_of(json_with(R"("scale":1,"sc\u0061le":2)")), "the JSON has the field \"scale\" twice");
}

TEST(ModelSpecJson, MissingFieldsAreRefusedByName) {
    EXPECT_EQ(refusal_of("{}"), "name is missing: must be a string");
    EXPECT_EQ(refusal_of(R"({"name":"m"})"), "layers is missing: must be an integer from 1 to 1024");
    EXPECT_EQ(refusal_of(R"({"name":"m","layers":1,"query_heads":1,"kv_heads":1,"head_dim":32})"),
              "dtype is missing: must be a string");
}

TEST(ModelSpecJson, WrongValuesAreRefusedWithFieldValueAndRule) {
    const std::pair<const char*, const char*> cases[] = {
        {R"("window":"64")", "window is \"64\": must be an integer or an array of 4, one for each layer"},
        {R"("window":64.5)", "window is 64.5: must be an integer from 0 to 1099511627776"},
        {R"("window":-1)", "window is -1: must be an integer from 0 to 1099511627776"},
        {R"("window":18446744073709551615)",
         "window is 18446744073709551615: must be an integer from 0 to 1099511627776"},
        {R"("window":[1,2,3])", "window is [1,2,3]: must be an integer or an array of 4, one for each layer"},
        {R"("window":[1,2,3,true])", "window[3] is true: must be an integer from 0 to 1099511627776"},
        {R"("window":8,"sinks":[1,2,3,null])", "sinks[3] is null: must be an integer from 0 to 1099511627776"},
        {R"("sinks":4)", "sinks is 4: must be 0 where no layer has a window"},
        {R"("sinks":[0,4,0,0])", "sinks of layer 1 is 4: must be 0 where the layer has no window"},
        {R"("kv_layer_of":"0_1_2")", "kv_layer_of: layer_types has 3 items: must have one for each of the 4 layers"},
        {R"("kv_layer_of":[0,1,2])",
         "kv_layer_of is [0,1,2]: must be an array of 4 integers, one for each layer, or LCKV notation"},
        {R"("kv_layer_of":[0,1,2,4])", "kv_layer_of[3] is 4: must be an integer from 0 to 3"},
        {R"("kv_layer_of":[0,1,2,3.0])", "kv_layer_of[3] is 3.0: must be an integer from 0 to 3"},
        {R"("kv_layer_of":"0s_1_2_3","window":[1,0,0,0])",
         "window is [1,0,0,0]: must be an integer where kv_layer_of marks sliding layers by `s`"},
        {R"("kv_layer_of":"0s_1_2_3","window":0)", "window is 0: must be an integer from 1 to 1099511627776"},
        {R"("scale":"1")", "scale is \"1\": must be a number"},
        {R"("scale":0)", "scale is 0: must be finite and above 0"},
        {R"("logit_soft_cap":null)", "logit_soft_cap is null: must be a number"},
        {R"("non_finite":"ignore")", "non_finite is \"ignore\": must be \"refuse\" or \"allow\""},
        {R"("non_finite":true)", "non_finite is true: must be a string"},
        {R"("deterministic":1)", "deterministic is 1: must be true or false"},
        {R"("kv_dtype":"fp4")", "kv_dtype is \"fp4\": must be \"as_model\" or \"fp8_e4m3\""},
    };
    for (const auto& [more, message] : cases) EXPECT_EQ(refusal_of(json_with(more)), message);
    EXPECT_EQ(refusal_of(R"({"name":7})"), "name is 7: must be a string");
    EXPECT_EQ(refusal_of(json_with("", 1025)), "layers is 1025: must be an integer from 1 to 1024");
    EXPECT_EQ(refusal_of(R"({"name":"m","layers":1,"query_heads":1,"kv_heads":1,"head_dim":20,"dtype":"f16"})"),
              "head_dim is 20: must be a multiple of 8 from 32 to 256");
    EXPECT_EQ(refusal_of(R"({"name":"m","layers":1,"query_heads":1,"kv_heads":1,"head_dim":32,"dtype":"fp8"})"),
              "dtype is \"fp8\": must be f32, f16 or bf16");
}

TEST(ModelSpecJson, AChainIsUnsupportedInBothForms) {
    refusal_of(json_with(R"("kv_layer_of":[1,2,2,3])"), Errc::unsupported);
    refusal_of(json_with(R"("kv_layer_of":"1_2_2_3")"), Errc::unsupported);
}

TEST(ModelSpecJson, TextThatIsNotOneObjectIsRefused) {
    const std::string good = json_with("");
    for (const std::string& text : {std::string(), std::string("null"), std::string("[]"), std::string("{"), good + "x",
                                    good + good, good + std::string(1, '\0') + "x", std::string("{\"name\":\"\xff\"}"),
                                    json_with(R"("scale":NaN)"), json_with(R"("scale":1e999)"), "/**/" + good}) {
        EXPECT_EQ(refusal_of(text).substr(0, 9), "the JSON ") << text;
    }
}

TEST(ModelSpecJson, SizeAndDepthAreLimited) {
    EXPECT_EQ(refusal_of(json_with("") + std::string(1 << 20, ' ')).find("the JSON is 10"), 0u);
    const std::string deep = R"({"name":)" + std::string(100000, '[');
    refusal_of(deep);  // unbalanced, and refused without using up the stack
    EXPECT_EQ(refusal_of(R"({"name":)" + std::string(40, '[') + std::string(40, ']') + "}"),
              "the JSON is nested deeper than 32");
}

TEST(ModelSpecJson, RefusalsShowOnlyTheBeginningOfALongValue) {
    const std::string message = refusal_of(R"({"name":[")" + std::string(10000, 'a') + R"("]})");
    EXPECT_LT(message.size(), 200u);
    EXPECT_EQ(message.substr(message.size() - 21), "...: must be a string");
}

// A random spec that obeys the rules.
ModelSpec random_spec(std::mt19937_64& random) {
    const auto below = [&](std::uint64_t end) { return random() % end; };
    ModelSpec spec = small_spec();
    spec.name = std::string("quote \" and backslash \\ ") + static_cast<char>(' ' + below(95));
    const int layer_count = 1 + static_cast<int>(below(12));
    spec.layers.assign(layer_count, {});
    std::vector<int> owners = {static_cast<int>(below(layer_count))};
    for (int layer = 0; layer < layer_count; ++layer) {
        if (below(2) == 0) owners.push_back(layer);
    }
    for (LayerSpec& layer : spec.layers) {
        layer.kv_layer = owners[below(owners.size())];
        layer.window = below(2) * below(1 << 20);
        layer.sinks = layer.window == 0 ? 0 : below(3);
    }
    for (const int owner : owners) spec.layers[owner].kv_layer = owner;
    spec.kv_heads = 1 + static_cast<int>(below(16));
    spec.query_heads = spec.kv_heads * (1 + static_cast<int>(below(8)));
    spec.head_dim = 32 + 8 * static_cast<int>(below(29));
    spec.dtype = static_cast<Dtype>(1 + below(3));
    // Any positive finite double, subnormals included: all bits matter.
    do {
        spec.scale = std::bit_cast<double>(random() >> 1);
    } while (!std::isfinite(spec.scale) || spec.scale == 0);
    spec.logit_soft_cap = std::uniform_real_distribution(0., 100.)(random) * static_cast<double>(below(2));
    spec.allows_non_finite = below(2) == 0;
    spec.deterministic = below(2) == 0;
    if (spec.dtype != Dtype::f32 && below(2) == 0) spec.kv_dtype = KvDtype::fp8_e4m3;
    return spec;
}

TEST(ModelSpecJson, WhatIsWrittenIsReadBackAsAnEqualSpec) {
    const std::uint64_t seed = std::random_device{}();
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937_64 random(seed);
    for (int round = 0; round < 2000; ++round) {
        const ModelSpec spec = random_spec(random);
        const auto again = parse_model_spec(to_json(spec));
        ASSERT_TRUE(again.ok()) << again.error().to_string() << " in " << to_json(spec);
        ASSERT_EQ(*again, spec) << to_json(spec);
    }
}

TEST(ModelSpecJson, TheLargestSpecFitsTheSizeLimit) {
    ModelSpec spec = small_spec();
    spec.layers.clear();
    for (int layer = 0; layer < kLayersMax; ++layer)
        spec.layers.push_back({layer, kWindowMax - layer, kWindowMax - layer});
    spec.layers[0].kv_layer = 1023;

    const auto again = parse_model_spec(to_json(spec));

    ASSERT_TRUE(again.ok()) << again.error().to_string();
    EXPECT_EQ(*again, spec);
}

}  // namespace
}  // namespace kvgrid
