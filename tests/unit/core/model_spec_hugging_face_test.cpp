// Configurations as they are published become the attention geometry that transformers would run, fields left out
// included; what we would compute differently is refused by name. Expected numbers come from transformers'
// configuration classes.

#include <gtest/gtest.h>

#include <cmath>

#include "core/model_spec.h"

namespace kvgrid {
namespace {

ModelSpec parsed(const std::string& json) {
    auto spec = parse_hugging_face_config(json, "model");
    EXPECT_TRUE(spec.ok()) << spec.error().to_string() << " in " << json;
    return spec.ok() ? *spec : ModelSpec{};
}

std::string refusal_of(const std::string& json, Errc code) {
    const auto spec = parse_hugging_face_config(json, "model");
    EXPECT_FALSE(spec.ok()) << json;
    if (spec.ok()) return "";
    EXPECT_EQ(spec.error(), code) << spec.error().to_string();
    return spec.error().message;
}

// The layers' windows as a picture: `s` for the window given, `.` for none, `?` for another.
std::string sliding_layers(const ModelSpec& spec, std::int64_t window) {
    std::string picture;
    for (const LayerSpec& layer : spec.layers) picture += layer.window == window ? 's' : layer.window == 0 ? '.' : '?';
    return picture;
}

// `{"model_type": TYPE, ...}` of a small model with 4 layers, and then `more`.
std::string small(const std::string& model_type, const std::string& more = "") {
    return R"({"model_type":")" + model_type +
           R"(","hidden_size":512,"num_attention_heads":8,"num_key_value_heads":2,"num_hidden_layers":4)" +
           (more.empty() ? "" : "," + more) + "}";
}

TEST(HuggingFace, Llama31) {
    const ModelSpec spec =
        parsed(R"({"architectures":["LlamaForCausalLM"],"attention_bias":false,"attention_dropout":0.0,
        "bos_token_id":128000,"eos_token_id":[128001,128008,128009],"hidden_act":"silu","hidden_size":4096,
        "initializer_range":0.02,"intermediate_size":14336,"max_position_embeddings":131072,"mlp_bias":false,
        "model_type":"llama","num_attention_heads":32,"num_hidden_layers":32,"num_key_value_heads":8,"pretraining_tp":1,
        "rms_norm_eps":1e-05,"rope_scaling":{"factor":8.0,"rope_type":"llama3"},"rope_theta":500000.0,
        "tie_word_embeddings":false,"torch_dtype":"bfloat16","transformers_version":"4.42.3","vocab_size":128256})");

    EXPECT_EQ(spec.name, "model");
    EXPECT_EQ(spec.layer_count(), 32);
    EXPECT_EQ(spec.kv_layers().size(), 32u);
    EXPECT_EQ(spec.query_heads, 32);
    EXPECT_EQ(spec.kv_heads, 8);
    EXPECT_EQ(spec.head_dim, 128);
    EXPECT_EQ(spec.dtype, Dtype::bf16);
    EXPECT_EQ(spec.scale, 1 / std::sqrt(128.));
    EXPECT_EQ(spec.logit_soft_cap, 0);
    EXPECT_EQ(sliding_layers(spec, 1), std::string(32, '.'));
}

TEST(HuggingFace, SmolLm) {
    const ModelSpec spec =
        parsed(R"({"model_type":"llama","hidden_size":576,"num_attention_heads":9,"num_hidden_layers":30,
        "num_key_value_heads":3,"is_llama_config":true,"rope_interleaved":false,"torch_dtype":"bfloat16"})");

    EXPECT_EQ(spec.query_heads, 9);
    EXPECT_EQ(spec.kv_heads, 3);
    EXPECT_EQ(spec.head_dim, 64);
}

TEST(HuggingFace, LlamaWithoutKvHeadsHasAsManyAsQueryHeads) {
    const std::string before =
        R"({"model_type":"llama","hidden_size":512,"num_attention_heads":8,"num_hidden_layers":2)";
    EXPECT_EQ(parsed(before + "}").kv_heads, 8);
    EXPECT_EQ(parsed(before + R"(,"num_key_value_heads":null})").kv_heads, 8);
}

TEST(HuggingFace, MistralSlidesInAllLayersOrInNone) {
    EXPECT_EQ(sliding_layers(parsed(small("mistral", R"("sliding_window":1024)")), 1024), "ssss");
    EXPECT_EQ(sliding_layers(parsed(small("mistral", R"("sliding_window":null)")), 1024), "....");
    EXPECT_EQ(sliding_layers(parsed(small("mistral")), 4096), "ssss");
}

TEST(HuggingFace, MistralHasEightKvHeadsWhereTheFileDoesNotSay) {
    EXPECT_EQ(parsed(R"({"model_type":"mistral","hidden_size":4096,"num_attention_heads":32,"num_hidden_layers":1})")
                  .kv_heads,
              8);
}

TEST(HuggingFace, QwenSlidesFromMaxWindowLayersUpAndOnlyWhenToldTo) {
    for (const char* type : {"qwen2", "qwen3"}) {
        const std::string window = R"("sliding_window":1024,"max_window_layers":3,"use_sliding_window":)";
        EXPECT_EQ(sliding_layers(parsed(small(type, window + "true")), 1024), "...s");
        EXPECT_EQ(sliding_layers(parsed(small(type, window + "false")), 1024), "....");
        EXPECT_EQ(sliding_layers(parsed(small(type, R"("sliding_window":1024,"max_window_layers":0)")), 1024), "....");
        EXPECT_EQ(sliding_layers(parsed(small(type, R"("use_sliding_window":true)")), 4096), "....");  // from 28 up
        EXPECT_EQ(
            sliding_layers(
                parsed(small(type, R"("use_sliding_window":true,"sliding_window":null,"max_window_layers":0)")), 1),
            "....");
    }
}

TEST(HuggingFace, LayerTypesSayWhichLayersSlide) {
    const std::string types = R"("sliding_window":512,
        "layer_types":["full_attention","sliding_attention","sliding_attention","full_attention"])";
    EXPECT_EQ(
        sliding_layers(parsed(small("qwen3", types + R"(,"use_sliding_window":true,"max_window_layers":0)")), 512),
        ".ss.");
    EXPECT_EQ(sliding_layers(parsed(small("gemma2", types)), 512), ".ss.");
    EXPECT_EQ(sliding_layers(parsed(small("gemma3_text", types)), 512), ".ss.");
}

TEST(HuggingFace, Qwen3HasItsOwnHeadDim) {
    EXPECT_EQ(parsed(small("qwen3")).head_dim, 128);
    EXPECT_EQ(parsed(small("qwen3", R"("head_dim":64)")).head_dim, 64);
    EXPECT_EQ(parsed(small("qwen2")).head_dim, 64);
}

TEST(HuggingFace, Gemma2AlternatesCapsAndScalesByItsScalar) {
    const ModelSpec spec =
        parsed(R"({"model_type":"gemma2","attn_logit_softcapping":50.0,"cache_implementation":"hybrid",
        "final_logit_softcapping":30.0,"head_dim":128,"hidden_size":4608,"num_attention_heads":32,
        "num_hidden_layers":46,"num_key_value_heads":16,
        "query_pre_attn_scalar":144,"sliding_window":4096,"torch_dtype":"bfloat16"})");

    EXPECT_EQ(spec.head_dim, 128);
    EXPECT_EQ(spec.scale, 1. / 12);
    EXPECT_EQ(spec.logit_soft_cap, 50);
    EXPECT_EQ(sliding_layers(spec, 4096).substr(0, 6), "s.s.s.");
}

TEST(HuggingFace, Gemma2FieldsThatAreNotThereHaveTheDefaultsOfItsClass) {
    const ModelSpec spec = parsed(R"({"model_type":"gemma2"})");

    EXPECT_EQ(spec.layer_count(), 26);
    EXPECT_EQ(spec.query_heads, 8);
    EXPECT_EQ(spec.kv_heads, 4);
    EXPECT_EQ(spec.head_dim, 256);
    EXPECT_EQ(spec.scale, 1. / 16);
    EXPECT_EQ(spec.logit_soft_cap, 50);
    EXPECT_EQ(spec.dtype, Dtype::f32);
    EXPECT_EQ(sliding_layers(spec, 4096).substr(0, 4), "s.s.");
    EXPECT_EQ(parsed(R"({"model_type":"gemma2","attn_logit_softcapping":null})").logit_soft_cap, 0);
}

TEST(HuggingFace, Gemma3InsideAModelWithPictures) {
    const ModelSpec spec = parsed(R"({"architectures":["Gemma3ForConditionalGeneration"],"model_type":"gemma3",
        "mm_tokens_per_image":256,"text_config":{"hidden_size":2560,"intermediate_size":10240,
        "model_type":"gemma3_text","num_hidden_layers":34,
        "rope_scaling":{"factor":8.0,"rope_type":"linear"},"sliding_window":1024},
        "torch_dtype":"bfloat16",
        "vision_config":{"hidden_size":1152,"num_attention_heads":16,"num_hidden_layers":27}})");

    EXPECT_EQ(spec.layer_count(), 34);
    EXPECT_EQ(spec.query_heads, 8);
    EXPECT_EQ(spec.kv_heads, 4);
    EXPECT_EQ(spec.head_dim, 256);
    EXPECT_EQ(spec.scale, 1. / 16);
    EXPECT_EQ(spec.logit_soft_cap, 0);
    EXPECT_EQ(spec.dtype, Dtype::bf16);
    EXPECT_EQ(sliding_layers(spec, 1024), "sssss.sssss.sssss.sssss.sssss.ssss");
}

TEST(HuggingFace, Gemma3TextWithAnotherPattern) {
    EXPECT_EQ(sliding_layers(parsed(small("gemma3_text", R"("sliding_window":512,"sliding_window_pattern":2)")), 512),
              "s.s.");
    EXPECT_EQ(sliding_layers(parsed(small("gemma3_text", R"("sliding_window":512,"_sliding_window_pattern":3)")), 512),
              "ss.s");
}

TEST(HuggingFace, DtypeIsFoundUnderBothNames) {
    EXPECT_EQ(parsed(small("llama", R"("dtype":"float16")")).dtype, Dtype::f16);
    EXPECT_EQ(parsed(small("llama", R"("torch_dtype":"bfloat16")")).dtype, Dtype::bf16);
    EXPECT_EQ(parsed(small("llama", R"("torch_dtype":null)")).dtype, Dtype::f32);
    EXPECT_EQ(refusal_of(small("llama", R"("torch_dtype":"float64")"), Errc::invalid_argument),
              "dtype is \"float64\": must be float32, float16 or bfloat16");
}

TEST(HuggingFace, AnUnknownModelTypeIsUnsupportedAndTheSupportedOnesAreNamed) {
    EXPECT_EQ(
        refusal_of(small("deepseek_v3"), Errc::unsupported),
        "model_type is \"deepseek_v3\": must be one of llama, mistral, qwen2, qwen3, gemma2, gemma3, gemma3_text");
    refusal_of(R"({"hidden_size":64})", Errc::invalid_argument);
    refusal_of(R"({"model_type":"gemma3"})", Errc::invalid_argument);
    refusal_of(R"({"model_type":"gemma3","text_config":{"model_type":"llama"}})", Errc::unsupported);
}

TEST(HuggingFace, FieldsThatChangeAttentionAndAreNotUnderstoodAreRefusedByName) {
    const std::pair<const char*, const char*> cases[] = {
        {"attention_chunk_size", "8192"},
        {"alibi", "true"},
        {"use_alibi", "true"},
        {"position_embedding_type", "\"relative_key\""},
        {"is_causal", "false"},
        {"use_bidirectional_attention", "true"},
        {"is_encoder_decoder", "true"},
        {"kv_lora_rank", "512"},
        {"num_kv_shared_layers", "10"},
        {"pruned_heads", "{\"0\":[1]}"},
        {"attention_multiplier", "0.0078125"},
    };
    for (const auto& [field, value] : cases) {
        const std::string message =
            refusal_of(small("llama", std::string("\"") + field + "\":" + value), Errc::unsupported);
        EXPECT_EQ(message.find(std::string(field) + " is " + value + ": must be "), 0u) << message;
    }
}

TEST(HuggingFace, TheSameFieldsSwitchedOffAreNoReasonToRefuse) {
    parsed(
        small("llama", R"("attention_chunk_size":null,"alibi":false,"position_embedding_type":"rope","is_causal":true,
        "is_encoder_decoder":false,"add_cross_attention":false,"pruned_heads":{},"num_kv_shared_layers":0,
        "use_bidirectional_attention":null,"sliding_window":null)"));
}

TEST(HuggingFace, FieldsOfAnotherFamilyAreRefusedUnlessSwitchedOff) {
    refusal_of(small("llama", R"("sliding_window":4096)"), Errc::unsupported);
    parsed(small("llama", R"("sliding_window":4096,"use_sliding_window":false,"max_window_layers":28)"));
    refusal_of(small("qwen2", R"("attn_logit_softcapping":50.0)"), Errc::unsupported);
    refusal_of(small("mistral", R"("query_pre_attn_scalar":256)"), Errc::unsupported);
    refusal_of(
        small("mistral", R"("layer_types":["full_attention","full_attention","full_attention","full_attention"])"),
        Errc::unsupported);
    refusal_of(small("gemma2", R"("sliding_window_pattern":3)"), Errc::unsupported);
}

TEST(HuggingFace, WrongValuesAreRefusedWithFieldValueAndRule) {
    const auto refused = [](const std::string& type, const std::string& more) {
        return refusal_of(small(type, more), Errc::invalid_argument);
    };
    EXPECT_EQ(refused("llama", R"("head_dim":20)"), "head_dim is 20: must be a multiple of 8 from 32 to 256");
    EXPECT_EQ(refused("llama", R"("head_dim":"64")"), "head_dim is \"64\": must be an integer from 1 to 2147483647");
    EXPECT_EQ(refused("mistral", R"("sliding_window":0)"),
              "sliding_window is 0: must be an integer from 1 to 1099511627776");
    EXPECT_EQ(refused("qwen2", R"("use_sliding_window":"yes")"),
              "use_sliding_window is \"yes\": must be true or false");
    EXPECT_EQ(refused("gemma2", R"("query_pre_attn_scalar":0)"), "query_pre_attn_scalar is 0.0: must be above 0");
    EXPECT_EQ(refused("gemma2", R"("sliding_window":null)"),
              "sliding_window is off: must be at least 1, because layer 0 is sliding");
    EXPECT_EQ(refused("gemma3_text", R"("sliding_window_pattern":0)"),
              "sliding_window_pattern is 0: must be an integer from 1 to 2147483647");
    EXPECT_EQ(refused("qwen3", R"("layer_types":["full_attention"])"),
              "layer_types is [\"full_attention\"]: must be an array of 4 names, one for each layer");
    EXPECT_EQ(refusal_of(R"({"model_type":"llama","hidden_size":100,"num_attention_heads":3,"num_hidden_layers":1})",
                         Errc::invalid_argument),
              "hidden_size is 100: must be a multiple of num_attention_heads, 3, where head_dim is not given");
    EXPECT_EQ(refusal_of(R"({"model_type":"llama","hidden_size":64,"num_attention_heads":1})", Errc::invalid_argument),
              "num_hidden_layers is missing: must be an integer from 1 to 1024");
}

TEST(HuggingFace, LayerTypesThatAreNotSoftmaxOverAWindowAreUnsupported) {
    const std::string types =
        R"("layer_types":["full_attention","full_attention","linear_attention","full_attention"])";
    EXPECT_EQ(refusal_of(small("qwen3", types), Errc::unsupported),
              "layer_types[2] is \"linear_attention\": must be full_attention or sliding_attention");
}

TEST(HuggingFace, TheNameIsCheckedLikeAnyOther) {
    EXPECT_FALSE(parse_hugging_face_config(small("llama"), "").ok());
}

}  // namespace
}  // namespace kvgrid
