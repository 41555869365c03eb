// A model spec out of a Hugging Face config.json. What a missing field means, and which layers slide, follows the
// configuration classes of transformers (configuration_llama.py and its siblings), where a window also counts the
// query's own token.

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>

#include "core/model_spec.h"
#include "core/strict_json.h"

namespace kvgrid {

namespace {

using nlohmann::json;

// Which layers look through the window, where no `layer_types` says so.
enum class Sliding {
    never,        // llama: the class knows no window
    every,        // mistral: all layers, where there is a window
    upper,        // qwen: layers from max_window_layers up, where use_sliding_window is true
    alternating,  // gemma2: layers 0, 2, 4, ...
    patterned,    // gemma3: all but every sliding_window_pattern-th
};

// The values of fields that are not there. 0: the file must say it (kv_heads: as many as query heads; head_dim:
// hidden_size / query heads; query_pre_attn_scalar: the class has no such field; window, logit_soft_cap: none).
struct Family {
    const char* model_type;
    Sliding sliding;
    int layers, query_heads, kv_heads, head_dim;
    std::int64_t window;
    double query_pre_attn_scalar;
    double logit_soft_cap;
};

constexpr Family kFamilies[] = {
    {"llama", Sliding::never, 0, 0, 0, 0, 0, 0, 0},
    {"mistral", Sliding::every, 0, 0, 8, 0, 4096, 0, 0},
    {"qwen2", Sliding::upper, 0, 0, 32, 0, 4096, 0, 0},
    {"qwen3", Sliding::upper, 0, 0, 32, 128, 4096, 0, 0},
    {"gemma2", Sliding::alternating, 26, 8, 4, 256, 4096, 256, 50},
    {"gemma3_text", Sliding::patterned, 26, 8, 4, 256, 4096, 256, 0},
};
constexpr const char* kSupported = "must be one of llama, mistral, qwen2, qwen3, gemma2, gemma3, gemma3_text";

// Fields of other classes that change which keys a query sees, or what it makes of them.
constexpr const char* kForeignFields[] = {
    "add_cross_attention",
    "alibi",
    "alibi_bias_max",
    "attention_chunk_size",
    "attention_multiplier",
    "attention_sinks",
    "attention_window",
    "attn_config",
    "attn_scale",
    "cla_share_factor",
    "index_topk",
    "is_encoder_decoder",
    "kv_lora_rank",
    "num_kv_shared_layers",
    "num_memory_tokens",
    "pruned_heads",
    "scale_attn_by_inverse_layer_idx",
    "use_alibi",
    "use_bidirectional_attention",
    "use_cla",
    "v_head_dim",
};

constexpr IntegerRange kPositive{1, std::numeric_limits<int>::max()};

bool is_text(const json& value, std::string_view text) {
    return value.is_string() && value.get_ref<const std::string&>() == text;
}

bool is_bool(const json& value, bool expected) {
    return value.is_boolean() && value.get<bool>() == expected;
}

struct Otherwise {
    std::int64_t if_absent, if_null;
};

// In these files null is a value: "none", or "work it out", and not the same as a field that is not there.
std::int64_t integer(JsonFields& fields, std::string_view field, IntegerRange range, Otherwise otherwise) {
    const json* value = fields.find(field);
    return value != nullptr && value->is_null() ? otherwise.if_null : fields.integer(field, range, otherwise.if_absent);
}

double number(JsonFields& fields, std::string_view field, double if_absent) {
    const json* value = fields.find(field);
    return value != nullptr && value->is_null() ? 0 : fields.number(field, if_absent);
}

// nullptr where the field is not there or null.
const json* find_said(const JsonFields& fields, std::string_view field) {
    const json* value = fields.find(field);
    return value == nullptr || value->is_null() ? nullptr : value;
}

bool flag(JsonFields& fields, std::string_view field) {
    const json* value = find_said(fields, field);
    if (value == nullptr) return false;
    if (!value->is_boolean()) fields.refuse(field, *value, "must be true or false");
    return is_bool(*value, true);
}

bool is_off(const json& value) {
    return value.is_null() || is_bool(value, false) || (value.is_number() && value.get<double>() == 0) ||
           ((value.is_structured() || value.is_string()) && value.empty());
}

void refuse_unsupported(JsonFields& fields, std::string_view field, const json& value, std::string_view rule) {
    fields.refuse({Errc::unsupported, fmt::format("{} is {}: {}", field, shown(value), rule)});
}

void refuse_unless_off(JsonFields& fields, std::string_view field) {
    const json* value = fields.find(field);
    if (value == nullptr || is_off(*value)) return;
    refuse_unsupported(fields, field, *value,
                       "must be off or absent, for kvgrid does not know what it does to attention");
}

void refuse_foreign(JsonFields& fields) {
    for (const char* field : kForeignFields) refuse_unless_off(fields, field);
    const json* embedding = find_said(fields, "position_embedding_type");
    if (embedding != nullptr && !is_text(*embedding, "rope")) {
        refuse_unsupported(fields, "position_embedding_type", *embedding, "must be \"rope\"");
    }
    const json* causal = find_said(fields, "is_causal");
    if (causal != nullptr && !is_bool(*causal, true)) refuse_unsupported(fields, "is_causal", *causal, "must be true");
}

// Fields that some of our families read and this one does not: transformers would ignore them, but who wrote them did
// not.
void refuse_of_other_families(JsonFields& fields, const Family& family) {
    if (family.query_pre_attn_scalar == 0) {
        refuse_unless_off(fields, "query_pre_attn_scalar");
        refuse_unless_off(fields, "attn_logit_softcapping");
    }
    if (family.sliding != Sliding::patterned) {
        refuse_unless_off(fields, "sliding_window_pattern");
        refuse_unless_off(fields, "_sliding_window_pattern");
    }
    if (family.sliding == Sliding::never || family.sliding == Sliding::every) refuse_unless_off(fields, "layer_types");
    const json* use_window = fields.find("use_sliding_window");
    const bool switched_off = use_window != nullptr && is_off(*use_window);
    if (family.sliding == Sliding::never && !switched_off) refuse_unless_off(fields, "sliding_window");
}

// 0: no layer slides.
std::int64_t read_window(JsonFields& fields, const Family& family) {
    if (family.sliding == Sliding::never) return 0;
    if (family.sliding == Sliding::upper && !flag(fields, "use_sliding_window")) return 0;
    return integer(fields, "sliding_window", {1, kWindowMax}, {family.window, 0});
}

std::vector<bool> listed_sliding_layers(JsonFields& fields, const json& layer_types, std::size_t count) {
    std::vector<bool> sliding(count, false);
    if (!layer_types.is_array() || layer_types.size() != count) {
        fields.refuse("layer_types", layer_types,
                      fmt::format("must be an array of {} names, one for each layer", count));
        return sliding;
    }
    for (std::size_t layer = 0; layer < count; ++layer) {
        sliding[layer] = is_text(layer_types[layer], "sliding_attention");
        if (sliding[layer] || is_text(layer_types[layer], "full_attention")) continue;
        refuse_unsupported(fields, fmt::format("layer_types[{}]", layer), layer_types[layer],
                           "must be full_attention or sliding_attention");
    }
    return sliding;
}

std::vector<bool> read_sliding_layers(JsonFields& fields, const Family& family, std::int64_t window,
                                      std::size_t count) {
    if (family.sliding == Sliding::never) return std::vector<bool>(count, false);
    if (family.sliding == Sliding::every) return std::vector<bool>(count, window > 0);
    if (const json* listed = find_said(fields, "layer_types")) return listed_sliding_layers(fields, *listed, count);

    std::vector<bool> sliding(count, false);
    std::size_t first = count, period = 2;
    if (family.sliding == Sliding::upper && window > 0)
        first = fields.integer("max_window_layers", {0, kPositive.high}, 28);
    if (family.sliding == Sliding::patterned) {
        const char* field =
            fields.find("sliding_window_pattern") != nullptr ? "sliding_window_pattern" : "_sliding_window_pattern";
        period = fields.integer(field, kPositive, 6);
    }
    for (std::size_t layer = 0; layer < count; ++layer) {
        sliding[layer] = family.sliding == Sliding::upper ? layer >= first : (layer + 1) % period != 0;
    }
    return sliding;
}

std::vector<LayerSpec> read_layers(JsonFields& fields, const Family& family) {
    const IntegerRange range{1, kLayersMax};
    const std::int64_t count = family.layers == 0 ? fields.integer("num_hidden_layers", range)
                                                  : fields.integer("num_hidden_layers", range, family.layers);
    if (fields.refusal()) return {};
    const std::int64_t window = read_window(fields, family);
    const std::vector<bool> sliding = read_sliding_layers(fields, family, window, count);
    std::vector<LayerSpec> layers;
    for (int layer = 0; layer < count; ++layer) {
        layers.push_back({layer, sliding[layer] ? window : 0, 0});
        if (!sliding[layer] || window > 0) continue;
        fields.refuse({Errc::invalid_argument,
                       fmt::format("sliding_window is off: must be at least 1, because layer {} is sliding", layer)});
    }
    return layers;
}

void read_heads(JsonFields& fields, const Family& family, ModelSpec& spec) {
    const IntegerRange range{1, kHeadsMax};
    const std::int64_t query_heads = family.query_heads == 0
                                         ? fields.integer("num_attention_heads", range)
                                         : fields.integer("num_attention_heads", range, family.query_heads);
    const std::int64_t kv_heads_absent = family.kv_heads == 0 ? query_heads : family.kv_heads;
    spec.query_heads = static_cast<int>(query_heads);
    spec.kv_heads = static_cast<int>(integer(fields, "num_key_value_heads", range, {kv_heads_absent, query_heads}));
    std::int64_t head_dim = integer(fields, "head_dim", kPositive, {family.head_dim, 0});
    if (head_dim == 0) {
        const std::int64_t hidden_size = fields.integer("hidden_size", kPositive);
        if (hidden_size % query_heads != 0) {
            fields.refuse(
                "hidden_size", hidden_size,
                fmt::format("must be a multiple of num_attention_heads, {}, where head_dim is not given", query_heads));
        }
        head_dim = hidden_size / query_heads;
    }
    spec.head_dim = static_cast<int>(head_dim);
}

// 1/sqrt(query_pre_attn_scalar) where the class has that field.
double read_scale(JsonFields& fields, const Family& family, int head_dim) {
    if (family.query_pre_attn_scalar == 0) return 1 / std::sqrt(head_dim);
    const double scalar = fields.number("query_pre_attn_scalar", family.query_pre_attn_scalar);
    if (!(scalar > 0)) fields.refuse("query_pre_attn_scalar", scalar, "must be above 0");
    return 1 / std::sqrt(scalar);
}

// The first that is said: transformers gives the outer file's dtype to its parts.
Dtype read_dtype(const json& config, JsonFields& text_fields) {
    const JsonFields outer(config);
    const json* said[] = {find_said(outer, "dtype"), find_said(outer, "torch_dtype"), find_said(text_fields, "dtype"),
                          find_said(text_fields, "torch_dtype")};
    const auto first =
        std::find_if(std::begin(said), std::end(said), [](const json* value) { return value != nullptr; });
    if (first == std::end(said)) return Dtype::f32;
    const auto dtype = (*first)->is_string() ? parse_dtype((*first)->get_ref<const std::string&>()) : std::nullopt;
    if (!dtype) text_fields.refuse("dtype", **first, "must be float32, float16 or bfloat16");
    return dtype.value_or(Dtype::f32);
}

Result<const Family*> find_family(const json& config) {
    const auto model_type = config.find("model_type");
    if (model_type == config.end())
        return {Errc::invalid_argument, fmt::format("model_type is missing: {}", kSupported)};
    for (const Family& family : kFamilies) {
        if (is_text(*model_type, family.model_type)) return &family;
    }
    return {Errc::unsupported, fmt::format("model_type is {}: {}", shown(*model_type), kSupported)};
}

Result<ModelSpec> parse_text_config(const json& config, const json& text_config, std::string name) {
    const Result<const Family*> found = find_family(text_config);
    if (!found) return found.error();
    const Family& family = **found;
    JsonFields fields(text_config);
    refuse_foreign(fields);
    refuse_of_other_families(fields, family);
    ModelSpec spec;
    spec.name = std::move(name);
    spec.layers = read_layers(fields, family);
    read_heads(fields, family, spec);
    spec.dtype = read_dtype(config, fields);
    spec.scale = read_scale(fields, family, spec.head_dim);
    if (family.query_pre_attn_scalar != 0) {
        spec.logit_soft_cap = number(fields, "attn_logit_softcapping", family.logit_soft_cap);
    }
    if (fields.refusal()) return *fields.refusal();
    return validated(std::move(spec));
}

}  // namespace

Result<ModelSpec> parse_hugging_face_config(std::string_view text, std::string name) {
    const Result<json> config = parse_json_object(text);
    if (!config) return config.error();
    const auto model_type = config->find("model_type");
    if (model_type == config->end() || !is_text(*model_type, "gemma3"))
        return parse_text_config(*config, *config, std::move(name));

    // Gemma3 with pictures: the attention that we serve is described one level down.
    JsonFields outer(*config);
    refuse_foreign(outer);
    if (outer.refusal()) return *outer.refusal();
    const json* text_config = find_said(outer, "text_config");
    if (text_config == nullptr || !text_config->is_object()) {
        return {Errc::invalid_argument, "text_config is missing: must be an object where model_type is gemma3"};
    }
    json inner = *text_config;
    inner.emplace("model_type", "gemma3_text");  // some files leave it out
    if (!is_text(inner["model_type"], "gemma3_text")) {
        return {Errc::unsupported,
                fmt::format("text_config.model_type is {}: must be gemma3_text where model_type is gemma3",
                            shown(inner["model_type"]))};
    }
    return parse_text_config(*config, inner, std::move(name));
}

}  // namespace kvgrid
