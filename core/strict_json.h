#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "core/result.h"

namespace kvgrid {

// Reading JSON that someone else wrote: whatever could be read in two ways is refused. For the .cpp files of core only.

inline constexpr std::size_t kJsonBytesMax = 1 << 20;
inline constexpr int kJsonDepthMax = 32;

// One object and nothing after it. Refused: more than kJsonBytesMax, deeper than kJsonDepthMax, a field that stands
// twice, numbers beyond a double.
Result<nlohmann::json> parse_json_object(std::string_view text);

// The value as it stands in messages: its JSON, cut short where it is long.
std::string shown(const nlohmann::json& value);

struct IntegerRange {
    std::int64_t low, high;
};

// The fields of one object, read one by one. The first refusal is kept and later ones are dropped, so a caller reads
// all that it wants and then asks once; after a refusal values are placeholders.
class JsonFields {
  public:
    // `object` outlives this.
    explicit JsonFields(const nlohmann::json& object) : object_(object) {}

    // Refuses fields whose name is not in `known`.
    void allow_only(std::initializer_list<std::string_view> known);

    // nullptr where the object has no such field.
    const nlohmann::json* find(std::string_view field) const;

    // Without `otherwise` the field must be there.
    std::int64_t integer(std::string_view field, IntegerRange range);
    std::int64_t integer(std::string_view field, IntegerRange range, std::int64_t otherwise);
    // Of a value in hand, an array's element for instance; `label` names it in the refusal.
    std::int64_t checked_integer(std::string_view label, const nlohmann::json& value, IntegerRange range);
    double number(std::string_view field, double otherwise);
    std::string text(std::string_view field);

    // "FIELD is VALUE: RULE"
    void refuse(std::string_view label, const nlohmann::json& value, std::string_view rule);
    void refuse(Error error);

    const std::optional<Error>& refusal() const { return refusal_; }

  private:
    const nlohmann::json& object_;
    std::optional<Error> refusal_;
};

}  // namespace kvgrid
