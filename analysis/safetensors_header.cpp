#include "analysis/safetensors_header.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <tuple>
#include <unordered_set>

namespace kvgrid::analysis {
namespace {

// A name from the file, fit for a log line: clipped, and printable ASCII only.
std::string shown_name(std::string_view name) {
    constexpr std::size_t kShown = 80;
    std::string out = "'";
    for (char c : name.substr(0, kShown)) out += c >= 0x20 && c < 0x7f ? c : '?';
    return out + (name.size() > kShown ? "...'" : "'");
}

// Follows the parser's events through the only shape that a header may have:
//
//   { "__metadata__": { key: string ... }, tensor: { "dtype": string, "shape": [n ...], "data_offsets": [n, n] } ... }
//
// `at_` is where in that shape we are; each event is legal in one or two places and an error everywhere else.
class HeaderReader final : public nlohmann::json_sax<nlohmann::json> {
  public:
    SafetensorsHeader take() { return std::move(header_); }
    const std::optional<Error>& error() const { return error_; }

    bool null() override { return refuse("null"); }
    bool boolean(bool) override { return refuse("true or false"); }
    bool number_integer(number_integer_t) override { return refuse("a negative number"); }
    bool number_float(number_float_t, const string_t&) override { return refuse("a number that is no 64-bit integer"); }
    bool binary(binary_t&) override { return refuse("binary data"); }

    bool number_unsigned(number_unsigned_t value) override {
        if (at_ == At::shape_item) return tensor_.shape.push_back(value), true;
        if (at_ == At::offset_item) return offsets_.push_back(value), true;
        return refuse("a number");
    }

    bool string(string_t& value) override {
        if (at_ == At::metadata_value) {
            at_ = At::metadata;
            header_.metadata.emplace(key_, value);
            return true;
        }
        if (at_ != At::dtype) return refuse("a string");
        auto type = parse_tensor_type(value);
        if (!type)
            return fail(Errc::unsupported,
                        fmt::format("element type {}; supported are {}", shown_name(value), tensor_type_names()));
        tensor_.type = *type;
        at_ = At::tensor;
        return true;
    }

    bool start_object(std::size_t) override {
        switch (at_) {
            case At::start:
                return enter(At::top);
            case At::metadata_object:
                return enter(At::metadata);
            case At::tensor_object:
                return enter(At::tensor);
            default:
                return refuse("an object");
        }
    }

    bool key(string_t& name) override {
        if (at_ == At::top) return top_key(name);
        if (at_ == At::metadata) return metadata_key(name);
        return tensor_field(name);
    }

    bool end_object() override {
        if (at_ == At::tensor && !finish_tensor()) return false;
        at_ = at_ == At::top ? At::done : At::top;
        return true;
    }

    bool start_array(std::size_t) override {
        switch (at_) {
            case At::shape:
                return enter(At::shape_item);
            case At::offsets:
                return enter(At::offset_item);
            default:
                return refuse("an array");
        }
    }

    bool end_array() override { return enter(At::tensor); }

    bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception&) override {
        key_.clear();
        return fail(Errc::corrupt, fmt::format("the header is not JSON at its byte {}", position));
    }

  private:
    enum class At {
        start,
        top,
        metadata_object,
        metadata,
        metadata_value,
        tensor_object,
        tensor,
        dtype,
        shape,
        shape_item,
        offsets,
        offset_item,
        done,
    };

    bool enter(At next) {
        at_ = next;
        return true;
    }

    bool top_key(const std::string& name) {
        key_ = name;
        if (!names_.insert(name).second) return fail(Errc::corrupt, "the name stands in the header twice");
        if (name == "__metadata__") return enter(At::metadata_object);
        tensor_ = TensorInfo{.name = name};
        offsets_.clear();
        seen_ = {};
        return enter(At::tensor_object);
    }

    bool metadata_key(const std::string& name) {
        key_ = name;
        if (header_.metadata.contains(name)) return fail(Errc::corrupt, "the key stands in __metadata__ twice");
        return enter(At::metadata_value);
    }

    bool tensor_field(const std::string& name) {
        if (name == "dtype") return once(0, At::dtype);
        if (name == "shape") return once(1, At::shape);
        if (name == "data_offsets") return once(2, At::offsets);
        return fail(Errc::corrupt,
                    fmt::format("unknown field {}; a tensor has dtype, shape and data_offsets", shown_name(name)));
    }

    bool once(std::size_t field, At next) {
        if (seen_[field]) return fail(Errc::corrupt, "a field stands there twice");
        seen_[field] = true;
        return enter(next);
    }

    bool finish_tensor() {
        if (!std::ranges::all_of(seen_, [](bool seen) { return seen; }))
            return fail(Errc::corrupt, "a tensor needs dtype, shape and data_offsets");
        if (offsets_.size() != 2 || offsets_[0] > offsets_[1])
            return fail(Errc::corrupt, "data_offsets must be two numbers, the second not below the first");
        tensor_.begin = offsets_[0];
        tensor_.end = offsets_[1];
        auto bytes = byte_count_of(tensor_.type, tensor_.shape);
        if (!bytes) return fail(Errc::corrupt, "the shape's size does not fit 64 bits");
        if (*bytes != tensor_.byte_count())
            return fail(Errc::corrupt, fmt::format("shape and dtype need {} bytes, data_offsets hold {}", *bytes,
                                                   tensor_.byte_count()));
        header_.tensors.push_back(std::move(tensor_));
        return true;
    }

    bool refuse(const char* what) {
        return fail(Errc::corrupt, fmt::format("{} stands where the format has none", what));
    }

    bool fail(Errc code, std::string what) {
        error_ = Error{code, key_.empty() ? std::move(what) : fmt::format("{}: {}", shown_name(key_), what)};
        return false;
    }

    SafetensorsHeader header_;
    std::optional<Error> error_;
    At at_ = At::start;
    std::string key_;  // of the tensor or the metadata entry that we are in
    std::unordered_set<std::string> names_;
    TensorInfo tensor_;
    std::vector<std::uint64_t> offsets_;
    std::array<bool, 3> seen_{};  // dtype, shape, data_offsets
};

// Every byte of the data belongs to exactly one tensor. This also refuses files with something appended.
Status check_layout(const std::vector<TensorInfo>& tensors, std::uint64_t data_bytes) {
    std::uint64_t next = 0;
    for (const TensorInfo& tensor : tensors) {
        if (tensor.begin != next)
            return {Errc::corrupt, fmt::format("{}: its data begins at {}, the tensor before it ends at {}",
                                               shown_name(tensor.name), tensor.begin, next)};
        next = tensor.end;
    }
    if (next == data_bytes) return {};
    return {Errc::corrupt, fmt::format("the tensors end at byte {} of the data, the file at {}", next, data_bytes)};
}

}  // namespace

const TensorInfo* SafetensorsHeader::find(std::string_view name) const {
    auto found = std::ranges::find(tensors, name, &TensorInfo::name);
    return found == tensors.end() ? nullptr : &*found;
}

Result<SafetensorsHeader> parse_safetensors_header(std::string_view text, std::uint64_t data_bytes) {
    if (text.empty() || text.front() != '{') return {Errc::corrupt, "the header does not start with '{'"};
    text = text.substr(0, text.find_last_not_of(' ') + 1);
    if (text.back() != '}') return {Errc::corrupt, "the header does not end with '}' and spaces"};

    HeaderReader reader;
    bool parsed = nlohmann::json::sax_parse(text.begin(), text.end(), &reader);
    if (reader.error()) return *reader.error();
    if (!parsed) return {Errc::corrupt, "the header is not JSON"};

    SafetensorsHeader header = reader.take();
    std::ranges::sort(header.tensors, {}, [](const TensorInfo& t) { return std::tie(t.begin, t.end); });
    if (Status layout = check_layout(header.tensors, data_bytes); !layout) return layout.error();
    return header;
}

}  // namespace kvgrid::analysis
