// A model spec in our own JSON form.

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/model_spec.h"
#include "core/strict_json.h"

namespace kvgrid {

namespace {

using nlohmann::json;

constexpr IntegerRange kAnyInt{std::numeric_limits<int>::min(), std::numeric_limits<int>::max()};
constexpr std::int64_t kSlidingWindow = 4096;  // of LCKV's sliding layers, where `window` is not given

bool is_array_of(const json& value, int count) {
    return value.is_array() && value.size() == static_cast<std::size_t>(count);
}

// Fills in every kv_layer. Answers which layers the notation marks as sliding: none where it is an array.
std::vector<bool> read_kv_layers(JsonFields& fields, std::vector<LayerSpec>& layers) {
    const int count = static_cast<int>(layers.size());
    std::vector<bool> sliding(layers.size(), false);
    for (int layer = 0; layer < count; ++layer) layers[layer].kv_layer = layer;
    const json* value = fields.find("kv_layer_of");
    if (value == nullptr) return sliding;
    if (value->is_string()) {
        const auto shared = parse_layer_types(value->get_ref<const std::string&>(), count);
        if (!shared) return fields.refuse({shared.error().code, "kv_layer_of: " + shared.error().message}), sliding;
        for (int layer = 0; layer < count; ++layer) {
            layers[layer].kv_layer = (*shared)[layer].kv_layer;
            sliding[layer] = (*shared)[layer].sliding;
        }
        return sliding;
    }
    if (!is_array_of(*value, count)) {
        const auto rule = fmt::format("must be an array of {} integers, one for each layer, or LCKV notation", count);
        return fields.refuse("kv_layer_of", *value, rule), sliding;
    }
    for (int layer = 0; layer < count; ++layer) {
        const auto label = fmt::format("kv_layer_of[{}]", layer);
        layers[layer].kv_layer = static_cast<int>(fields.checked_integer(label, (*value)[layer], {0, count - 1}));
    }
    return sliding;
}

// A number for the layers in `takers`, or an array for all layers.
std::vector<std::int64_t> read_per_layer(JsonFields& fields, std::string_view field, const std::vector<bool>& takers) {
    std::vector<std::int64_t> values(takers.size(), 0);
    const json* value = fields.find(field);
    if (value == nullptr) return values;
    if (value->is_number()) {
        const std::int64_t number = fields.checked_integer(field, *value, {0, kWindowMax});
        std::transform(takers.begin(), takers.end(), values.begin(), [&](bool taker) { return taker ? number : 0; });
    } else if (is_array_of(*value, static_cast<int>(takers.size()))) {
        for (std::size_t layer = 0; layer < values.size(); ++layer) {
            values[layer] =
                fields.checked_integer(fmt::format("{}[{}]", field, layer), (*value)[layer], {0, kWindowMax});
        }
    } else {
        fields.refuse(field, *value,
                      fmt::format("must be an integer or an array of {}, one for each layer", takers.size()));
    }
    return values;
}

void read_windows(JsonFields& fields, const std::vector<bool>& sliding, std::vector<LayerSpec>& layers) {
    std::vector<std::int64_t> windows;
    if (std::find(sliding.begin(), sliding.end(), true) == sliding.end()) {
        windows = read_per_layer(fields, "window", std::vector<bool>(layers.size(), true));
    } else {
        const json* value = fields.find("window");
        if (value != nullptr && value->is_array()) {
            fields.refuse("window", *value, "must be an integer where kv_layer_of marks sliding layers by `s`");
            return;
        }
        const std::int64_t window = fields.integer("window", {1, kWindowMax}, kSlidingWindow);
        for (const bool slides : sliding) windows.push_back(slides ? window : 0);
    }
    for (std::size_t layer = 0; layer < layers.size(); ++layer) layers[layer].window = windows[layer];
}

void read_sinks(JsonFields& fields, std::vector<LayerSpec>& layers) {
    std::vector<bool> windowed;
    for (const LayerSpec& layer : layers) windowed.push_back(layer.window > 0);
    const bool any_window = std::find(windowed.begin(), windowed.end(), true) != windowed.end();
    const auto sinks = read_per_layer(fields, "sinks", windowed);
    for (std::size_t layer = 0; layer < layers.size(); ++layer) layers[layer].sinks = sinks[layer];
    const json* value = fields.find("sinks");
    if (value != nullptr && value->is_number() && value->get<double>() > 0 && !any_window) {
        fields.refuse("sinks", *value, "must be 0 where no layer has a window");
    }
}

std::vector<LayerSpec> read_layers(JsonFields& fields) {
    std::vector<LayerSpec> layers(fields.integer("layers", {1, kLayersMax}));
    if (fields.refusal()) return layers;  // the arrays' lengths could only be compared with a placeholder
    const std::vector<bool> sliding = read_kv_layers(fields, layers);
    read_windows(fields, sliding, layers);
    read_sinks(fields, layers);
    return layers;
}

Dtype read_dtype(JsonFields& fields) {
    const std::string name = fields.text("dtype");
    const std::optional<Dtype> dtype = parse_dtype(name);
    if (!dtype) fields.refuse("dtype", name, "must be f32, f16 or bf16");
    return dtype.value_or(Dtype::f32);
}

KvDtype read_kv_dtype(JsonFields& fields) {
    if (fields.find("kv_dtype") == nullptr) return KvDtype::as_model;
    const std::string name = fields.text("kv_dtype");
    const std::optional<KvDtype> kv_dtype = parse_kv_dtype(name);
    if (!kv_dtype) fields.refuse("kv_dtype", name, "must be \"as_model\" or \"fp8_e4m3\"");
    return kv_dtype.value_or(KvDtype::as_model);
}

bool read_deterministic(JsonFields& fields) {
    const json* value = fields.find("deterministic");
    if (value == nullptr) return false;
    if (!value->is_boolean()) fields.refuse("deterministic", *value, "must be true or false");
    return value->is_boolean() && value->get<bool>();
}

bool read_non_finite(JsonFields& fields) {
    if (fields.find("non_finite") == nullptr) return false;
    const std::string policy = fields.text("non_finite");
    if (policy != "refuse" && policy != "allow") fields.refuse("non_finite", policy, "must be \"refuse\" or \"allow\"");
    return policy == "allow";
}

// Nothing where every layer has 0, a number where all agree, else an array.
void write_per_layer(nlohmann::ordered_json& object, const char* field, const std::vector<std::int64_t>& values) {
    if (std::all_of(values.begin(), values.end(), [](std::int64_t value) { return value == 0; })) return;
    if (std::all_of(values.begin(), values.end(), [&](std::int64_t value) { return value == values.front(); })) {
        object[field] = values.front();
    } else {
        object[field] = values;
    }
}

}  // namespace

Result<ModelSpec> parse_model_spec(std::string_view text) {
    const Result<json> object = parse_json_object(text);
    if (!object) return object.error();
    JsonFields fields(*object);
    fields.allow_only({"name", "layers", "kv_layer_of", "query_heads", "kv_heads", "head_dim", "dtype", "scale",
                       "window", "sinks", "logit_soft_cap", "kv_dtype", "deterministic", "non_finite"});
    ModelSpec spec;
    spec.name = fields.text("name");
    spec.layers = read_layers(fields);
    spec.query_heads = static_cast<int>(fields.integer("query_heads", {1, kHeadsMax}));
    spec.kv_heads = static_cast<int>(fields.integer("kv_heads", {1, kHeadsMax}));
    spec.head_dim = static_cast<int>(fields.integer("head_dim", kAnyInt));
    spec.dtype = read_dtype(fields);
    spec.kv_dtype = read_kv_dtype(fields);
    spec.scale = fields.number("scale", 1 / std::sqrt(spec.head_dim));
    spec.logit_soft_cap = fields.number("logit_soft_cap", 0);
    spec.deterministic = read_deterministic(fields);
    spec.allows_non_finite = read_non_finite(fields);
    if (fields.refusal()) return *fields.refusal();
    return validated(std::move(spec));
}

std::string to_json(const ModelSpec& spec) {
    std::vector<int> kv_layer_of;
    std::vector<std::int64_t> windows, sinks;
    bool all_own = true;
    for (int layer = 0; layer < spec.layer_count(); ++layer) {
        kv_layer_of.push_back(spec.layers[layer].kv_layer);
        windows.push_back(spec.layers[layer].window);
        sinks.push_back(spec.layers[layer].sinks);
        all_own = all_own && spec.owns_kv(layer);
    }
    nlohmann::ordered_json object;
    object["name"] = spec.name;
    object["layers"] = spec.layer_count();
    if (!all_own) object["kv_layer_of"] = kv_layer_of;
    object["query_heads"] = spec.query_heads;
    object["kv_heads"] = spec.kv_heads;
    object["head_dim"] = spec.head_dim;
    object["dtype"] = name_of(spec.dtype);
    object["scale"] = spec.scale;
    write_per_layer(object, "window", windows);
    write_per_layer(object, "sinks", sinks);
    if (spec.logit_soft_cap != 0) object["logit_soft_cap"] = spec.logit_soft_cap;
    if (spec.kv_dtype != KvDtype::as_model) object["kv_dtype"] = name_of(spec.kv_dtype);
    if (spec.deterministic) object["deterministic"] = true;
    if (spec.allows_non_finite) object["non_finite"] = "allow";
    return object.dump(-1, ' ', /*ensure_ascii=*/true, nlohmann::ordered_json::error_handler_t::replace);
}

}  // namespace kvgrid
