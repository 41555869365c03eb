#include "core/strict_json.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <set>
#include <vector>

namespace kvgrid {

namespace {

using nlohmann::json;

std::string cut_short(std::string text, std::size_t length_max) {
    if (text.size() <= length_max) return text;
    text.resize(length_max);
    return text + "...";
}

// Watches the parser go by. Answers whether to keep what it just read: nothing more after a refusal.
class Watcher {
  public:
    bool operator()(int depth, json::parse_event_t event, const json& parsed) {
        if (depth > kJsonDepthMax) refuse(fmt::format("is nested deeper than {}", kJsonDepthMax));
        if (event == json::parse_event_t::object_start) names_.emplace_back();
        if (event == json::parse_event_t::object_end) names_.pop_back();
        if (event == json::parse_event_t::key && !names_.back().insert(parsed.get<std::string>()).second) {
            refuse(fmt::format("has the field {} twice", shown(parsed)));
        }
        return !refusal_;
    }

    const std::optional<std::string>& refusal() const { return refusal_; }

  private:
    void refuse(std::string why) {
        if (!refusal_) refusal_ = std::move(why);
    }

    std::vector<std::set<std::string>> names_;  // of the objects that are open
    std::optional<std::string> refusal_;
};

Error not_our_json(std::string_view why) {
    return {Errc::invalid_argument, fmt::format("the JSON {}", why)};
}

}  // namespace

Result<json> parse_json_object(std::string_view text) {
    if (text.size() > kJsonBytesMax) {
        return not_our_json(fmt::format("is {} bytes long: must be at most {}", text.size(), kJsonBytesMax));
    }
    // The parser takes a NUL for the end and would accept anything after it.
    if (text.find('\0') != std::string_view::npos) return not_our_json("holds a NUL byte");
    Watcher watcher;
    try {
        json value = json::parse(text.begin(), text.end(), std::ref(watcher));
        if (watcher.refusal()) return not_our_json(*watcher.refusal());
        if (!value.is_object()) return not_our_json("is not an object");
        return value;
    } catch (const json::exception& refused) {
        return not_our_json("cannot be read: " + cut_short(refused.what(), 200));
    }
}

std::string shown(const json& value) {
    return cut_short(value.dump(-1, ' ', /*ensure_ascii=*/true, json::error_handler_t::replace), 64);
}

void JsonFields::allow_only(std::initializer_list<std::string_view> known) {
    for (const auto& [field, value] : object_.items()) {
        if (std::find(known.begin(), known.end(), field) != known.end()) continue;
        refuse({Errc::invalid_argument,
                fmt::format("{} is not a field: must be one of {}", shown(json(field)), fmt::join(known, ", "))});
    }
}

const json* JsonFields::find(std::string_view field) const {
    const auto found = object_.find(field);
    return found == object_.end() ? nullptr : &*found;
}

std::int64_t JsonFields::integer(std::string_view field, IntegerRange range) {
    if (const json* value = find(field)) return checked_integer(field, *value, range);
    refuse({Errc::invalid_argument,
            fmt::format("{} is missing: must be an integer from {} to {}", field, range.low, range.high)});
    return range.low;
}

std::int64_t JsonFields::integer(std::string_view field, IntegerRange range, std::int64_t otherwise) {
    const json* value = find(field);
    return value == nullptr ? otherwise : checked_integer(field, *value, range);
}

std::int64_t JsonFields::checked_integer(std::string_view label, const json& value, IntegerRange range) {
    // A number beyond 63 bits is read as unsigned, beyond 64 as a double: neither may be narrowed before it is
    // compared.
    const bool fits =
        value.is_number_integer() && (!value.is_number_unsigned() || value.get<std::uint64_t>() <= INT64_MAX);
    if (fits && value.get<std::int64_t>() >= range.low && value.get<std::int64_t>() <= range.high) {
        return value.get<std::int64_t>();
    }
    refuse(label, value, fmt::format("must be an integer from {} to {}", range.low, range.high));
    return range.low;
}

double JsonFields::number(std::string_view field, double otherwise) {
    const json* value = find(field);
    if (value == nullptr) return otherwise;
    if (value->is_number()) return value->get<double>();
    refuse(field, *value, "must be a number");
    return otherwise;
}

std::string JsonFields::text(std::string_view field) {
    const json* value = find(field);
    if (value == nullptr) {
        refuse({Errc::invalid_argument, fmt::format("{} is missing: must be a string", field)});
    } else if (!value->is_string()) {
        refuse(field, *value, "must be a string");
    } else {
        return value->get<std::string>();
    }
    return {};
}

void JsonFields::refuse(std::string_view label, const json& value, std::string_view rule) {
    refuse({Errc::invalid_argument, fmt::format("{} is {}: {}", label, shown(value), rule)});
}

void JsonFields::refuse(Error error) {
    if (!refusal_) refusal_ = std::move(error);
}

}  // namespace kvgrid
