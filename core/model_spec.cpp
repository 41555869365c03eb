#include "core/model_spec.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>

namespace kvgrid {

namespace {

using Refusal = std::optional<Error>;

Error invalid(std::string message) {
    return {Errc::invalid_argument, std::move(message)};
}

Refusal check_name(const std::string& name) {
    if (name.empty() || name.size() > 128) {
        return invalid(
            fmt::format("name is {} characters long: must be 1 to 128 printable ASCII characters", name.size()));
    }
    const auto odd =
        std::find_if(name.begin(), name.end(), [](char character) { return character < ' ' || character > '~'; });
    if (odd == name.end()) return std::nullopt;
    return invalid(fmt::format("name has byte 0x{:02x} at position {}: must be 1 to 128 printable ASCII characters",
                               static_cast<unsigned char>(*odd), odd - name.begin()));
}

Refusal check_heads(const ModelSpec& spec) {
    if (spec.query_heads < 1 || spec.query_heads > kHeadsMax) {
        return invalid(fmt::format("query_heads is {}: must be from 1 to {}", spec.query_heads, kHeadsMax));
    }
    if (spec.kv_heads < 1 || spec.kv_heads > spec.query_heads) {
        return invalid(
            fmt::format("kv_heads is {}: must be from 1 to query_heads, {}", spec.kv_heads, spec.query_heads));
    }
    if (spec.query_heads % spec.kv_heads != 0) {
        return invalid(
            fmt::format("query_heads is {}: must be a multiple of kv_heads, {}", spec.query_heads, spec.kv_heads));
    }
    if (spec.head_dim < kHeadDimMin || spec.head_dim > kHeadDimMax || spec.head_dim % 8 != 0) {
        return invalid(fmt::format("head_dim is {}: must be a multiple of 8 from {} to {}", spec.head_dim, kHeadDimMin,
                                   kHeadDimMax));
    }
    return std::nullopt;
}

Refusal check_numbers(const ModelSpec& spec) {
    if (spec.dtype != Dtype::f32 && spec.dtype != Dtype::f16 && spec.dtype != Dtype::bf16) {
        return invalid(
            fmt::format("dtype is number {}: must be f32 (1), f16 (2) or bf16 (3)", static_cast<int>(spec.dtype)));
    }
    if (spec.kv_dtype == KvDtype::fp8_e4m3 && spec.dtype == Dtype::f32) {
        return invalid("kv_dtype is fp8_e4m3 and dtype f32: dtype must be bf16 or f16 then");
    }
    if (!std::isfinite(spec.scale) || spec.scale <= 0) {
        return invalid(fmt::format("scale is {}: must be finite and above 0", spec.scale));
    }
    if (!std::isfinite(spec.logit_soft_cap) || spec.logit_soft_cap < 0) {
        return invalid(
            fmt::format("logit_soft_cap is {}: must be finite, and above 0 or 0 for none", spec.logit_soft_cap));
    }
    return std::nullopt;
}

Error chain(int layer, int target, int targets_target) {
    return {
        Errc::unsupported,
        fmt::format("kv_layer of layer {} is {}: must be a layer that reads its own KV, but layer {} reads layer {}'s "
                    "(chains are not supported)",
                    layer, target, target, targets_target)};
}

Refusal check_layer(const ModelSpec& spec, int layer) {
    const LayerSpec& checked = spec.layers[layer];
    if (!spec.owns_kv(checked.kv_layer)) return chain(layer, checked.kv_layer, spec.layers[checked.kv_layer].kv_layer);
    if (checked.window < 0 || checked.window > kWindowMax) {
        return invalid(
            fmt::format("window of layer {} is {}: must be from 0 to {}", layer, checked.window, kWindowMax));
    }
    if (checked.sinks < 0 || checked.sinks > kWindowMax) {
        return invalid(fmt::format("sinks of layer {} is {}: must be from 0 to {}", layer, checked.sinks, kWindowMax));
    }
    if (checked.sinks > 0 && checked.window == 0) {
        return invalid(
            fmt::format("sinks of layer {} is {}: must be 0 where the layer has no window", layer, checked.sinks));
    }
    return std::nullopt;
}

Refusal check_layers(const ModelSpec& spec) {
    if (spec.layers.empty() || spec.layers.size() > kLayersMax) {
        return invalid(fmt::format("layers is {}: must be from 1 to {}", spec.layers.size(), kLayersMax));
    }
    for (int layer = 0; layer < spec.layer_count(); ++layer) {
        const int target = spec.layers[layer].kv_layer;
        if (target >= 0 && target < spec.layer_count()) continue;
        return invalid(
            fmt::format("kv_layer of layer {} is {}: must be from 0 to {}", layer, target, spec.layer_count() - 1));
    }
    for (int layer = 0; layer < spec.layer_count(); ++layer) {
        if (Refusal refusal = check_layer(spec, layer)) return refusal;
    }
    return std::nullopt;
}

// One item: digits, then perhaps an `s`.
Result<SharedLayer> parse_item(std::string_view item, int layer, int layer_count) {
    const bool sliding = item.ends_with('s');
    const std::string_view digits = sliding ? item.substr(0, item.size() - 1) : item;
    const bool all_digits = std::all_of(digits.begin(), digits.end(), [](char c) { return c >= '0' && c <= '9'; });
    if (digits.empty() || !all_digits) {
        return invalid(
            fmt::format("layer_types item {} is \"{}\": must be a layer number, then `s` where the layer slides", layer,
                        item.substr(0, 32)));
    }
    int target = 0;
    const auto [end, failure] = std::from_chars(digits.data(), digits.data() + digits.size(), target);
    if (failure != std::errc{} || target >= layer_count) {
        return invalid(fmt::format("layer_types item {} is \"{}\": must name one of the {} layers, 0 to {}", layer,
                                   item.substr(0, 32), layer_count, layer_count - 1));
    }
    return SharedLayer{target, sliding};
}

}  // namespace

std::vector<int> ModelSpec::kv_layers() const {
    std::vector<int> owners;
    for (int layer = 0; layer < layer_count(); ++layer) {
        if (owns_kv(layer)) owners.push_back(layer);
    }
    return owners;
}

std::size_t ModelSpec::page_bytes() const {
    if (kv_dtype == KvDtype::as_model) return 2 * kPageTokens * row_bytes();
    // Rows of whole 16 bytes, and the scales of the page, which keep pages aligned to 128.
    constexpr std::size_t kRowAlignment = 16, kScalesBytes = 128;
    const std::size_t row = (head_dim + kRowAlignment - 1) / kRowAlignment * kRowAlignment;
    return 2 * kPageTokens * row + kScalesBytes;
}

Result<ModelSpec> validated(ModelSpec spec) {
    Refusal refusal = check_name(spec.name);
    if (!refusal) refusal = check_layers(spec);
    if (!refusal) refusal = check_heads(spec);
    if (!refusal) refusal = check_numbers(spec);
    if (refusal) return *refusal;
    return spec;
}

Result<std::vector<SharedLayer>> parse_layer_types(std::string_view notation, int layer_count) {
    if (layer_count < 1 || layer_count > kLayersMax) {
        return invalid(fmt::format("layers is {}: must be from 1 to {}", layer_count, kLayersMax));
    }
    const auto item_count = std::count(notation.begin(), notation.end(), '_') + 1;
    if (item_count != layer_count) {
        return invalid(
            fmt::format("layer_types has {} items: must have one for each of the {} layers", item_count, layer_count));
    }
    std::vector<SharedLayer> layers;
    for (int layer = 0; layer < layer_count; ++layer) {
        const std::size_t length = std::min(notation.find('_'), notation.size());
        Result<SharedLayer> item = parse_item(notation.substr(0, length), layer, layer_count);
        if (!item) return item.error();
        layers.push_back(*item);
        notation.remove_prefix(std::min(length + 1, notation.size()));
    }
    for (int layer = 0; layer < layer_count; ++layer) {
        const int target = layers[layer].kv_layer;
        if (layers[target].kv_layer != target) return chain(layer, target, layers[target].kv_layer);
    }
    return layers;
}

}  // namespace kvgrid
