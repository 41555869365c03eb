#include "analysis/trace.h"

#include <fmt/core.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>

#include "analysis/safetensors.h"

namespace kvgrid::analysis {
namespace {

constexpr int kTokensMax = 1 << 24;  // keeps products of a shape within 64 bits, and is far above any trace

template <class Number>
std::optional<Number> parse_number(std::string_view text) {
    Number value{};
    auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
    return value;
}

// Reads one file's metadata and tensors into a Trace. Each step returns the first thing that is wrong.
class TraceReader {
  public:
    explicit TraceReader(const SafetensorsFile& file) : file_(file) {}

    Result<Trace> read() {
        for (auto step : {&TraceReader::read_kind, &TraceReader::read_spec, &TraceReader::read_layer_numbers,
                          &TraceReader::read_tensors})
            if (Status status = (this->*step)(); !status) return status.error();
        return std::move(trace_);
    }

  private:
    Status read_kind() {
        const std::string* version = key("kvgrid.trace");
        if (!version) return corrupt("is no kvgrid trace: its metadata has no \"kvgrid.trace\"");
        if (*version != "1")
            return file_.error(Errc::unsupported, "is a trace of another version; this reader knows version 1");
        const std::string* dtype = key("dtype");
        if (!dtype) return missing("dtype");
        if (*dtype != "f32") return file_.error(Errc::unsupported, "has a dtype other than f32");
        return {};
    }

    Status read_spec() {
        for (auto [name, target] : {std::pair{"model", &trace_.model}, {"license", &trace_.license}}) {
            if (!key(name)) return missing(name);
            *target = *key(name);
        }
        ModelSpec& spec = trace_.spec;
        for (auto [name, target] : {std::pair{"query_heads", &spec.query_heads},
                                    {"kv_heads", &spec.kv_heads},
                                    {"head_dim", &spec.head_dim},
                                    {"prefill_tokens", &trace_.prefill_tokens},
                                    {"decode_tokens", &trace_.decode_tokens}}) {
            auto value = number<int>(name);
            if (!value || *value < 0 || *value > kTokensMax)
                return corrupt(fmt::format("metadata '{}' is missing or no count", name));
            *target = *value;
        }
        auto scale = number<double>("scale");
        if (!scale) return corrupt("metadata 'scale' is missing or no number");
        spec.name = trace_.model + ".trace";
        spec.dtype = Dtype::f32;
        spec.scale = *scale;
        return {};
    }

    Status read_layer_numbers() {
        const std::string* list = key("layers");
        if (!list) return missing("layers");
        for (std::size_t at = 0; at <= list->size();) {
            std::size_t comma = std::min(list->find(',', at), list->size());
            auto layer = parse_number<int>(std::string_view(*list).substr(at, comma - at));
            int previous = trace_.layers.empty() ? -1 : trace_.layers.back().model_layer;
            if (!layer || *layer <= previous)
                return corrupt("metadata 'layers' is not a list of ascending layer numbers");
            trace_.spec.layers.push_back({.kv_layer = static_cast<int>(trace_.layers.size())});
            trace_.layers.push_back({.model_layer = *layer});
            at = comma + 1;
        }
        auto spec = validated(trace_.spec);
        if (!spec) return corrupt("the geometry in its metadata: " + spec.error().message);
        return {};
    }

    Status read_tensors() {
        std::uint64_t tokens = trace_.token_count();
        std::uint64_t query_heads = trace_.spec.query_heads, kv_heads = trace_.spec.kv_heads,
                      head_dim = trace_.spec.head_dim;
        if (Status status = read_tensor("tokens", TensorType::i32, {tokens}, trace_.tokens); !status) return status;
        for (TraceLayer& layer : trace_.layers) {
            for (auto [letter, heads, target] : {std::tuple{'q', query_heads, &layer.q},
                                                 {'k', kv_heads, &layer.k},
                                                 {'v', kv_heads, &layer.v},
                                                 {'o', query_heads, &layer.o}}) {
                std::string name = fmt::format("layer.{}.{}", layer.model_layer, letter);
                Status status = read_tensor(name, TensorType::f32, {tokens, heads, head_dim}, *target);
                if (!status) return status;
                if (!std::ranges::all_of(*target, [](float x) { return std::isfinite(x); }))
                    return corrupt(fmt::format("'{}' has values that are not finite", name));
            }
        }
        if (file_.header().tensors.size() != 1 + 4 * trace_.layers.size())
            return corrupt(fmt::format("has {} tensors; {} layers make {}", file_.header().tensors.size(),
                                       trace_.layers.size(), 1 + 4 * trace_.layers.size()));
        return {};
    }

    template <class Element>
    Status read_tensor(const std::string& name, TensorType type, const std::vector<std::uint64_t>& shape,
                       std::vector<Element>& target) {
        const TensorInfo* tensor = file_.header().find(name);
        if (!tensor) return corrupt(fmt::format("has no tensor '{}'", name));
        if (tensor->type != type || tensor->shape != shape)
            return corrupt(fmt::format("'{}' is {} {}, and should be {} {}", name, name_of(tensor->type), tensor->shape,
                                       name_of(type), shape));
        target.resize(tensor->byte_count() / sizeof(Element));
        return file_.read(*tensor, std::as_writable_bytes(std::span(target)));
    }

    const std::string* key(const std::string& name) const {
        auto found = file_.header().metadata.find(name);
        return found == file_.header().metadata.end() ? nullptr : &found->second;
    }

    template <class Number>
    std::optional<Number> number(const std::string& name) const {
        const std::string* text = key(name);
        return text ? parse_number<Number>(*text) : std::nullopt;
    }

    Error corrupt(const std::string& what) const { return file_.error(Errc::corrupt, what); }
    Error missing(const char* name) const { return corrupt(fmt::format("metadata '{}' is missing", name)); }

    const SafetensorsFile& file_;
    Trace trace_;
};

}  // namespace

Result<Trace> read_trace(const std::filesystem::path& path) {
    auto file = SafetensorsFile::open(path);
    if (!file) return file.error();
    return TraceReader(*file).read();
}

std::vector<std::byte> bytes_of(std::span<const float> values, Dtype dtype) {
    std::vector<std::byte> bytes(values.size() * byte_size(dtype));
    for (std::size_t i = 0; i < values.size(); ++i) store_element(bytes.data(), i, dtype, values[i]);
    return bytes;
}

std::vector<float> floats_of(std::span<const std::byte> bytes, Dtype dtype) {
    std::vector<float> values(bytes.size() / byte_size(dtype));
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = load_element(bytes.data(), i, dtype);
    return values;
}

}  // namespace kvgrid::analysis
