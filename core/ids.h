#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>

namespace kvgrid {

// A number that cannot be mistaken for another kind of number. 0 means "none".
template <class Tag>
struct Id {
    std::uint64_t value = 0;

    explicit operator bool() const { return value != 0; }
    friend auto operator<=>(Id, Id) = default;
};

using ModelId = Id<struct ModelTag>;          // given by the coordinator, never used again
using SequenceId = Id<struct SequenceTag>;    // given by the coordinator, never used again
using StepId = Id<struct StepTag>;            // given by the lead, unique within a generation
using WorkerId = Id<struct WorkerTag>;        // given by the coordinator at registration
using Generation = Id<struct GenerationTag>;  // the number of a membership; grows

}  // namespace kvgrid

template <class Tag>
struct std::hash<kvgrid::Id<Tag>> {
    std::size_t operator()(kvgrid::Id<Tag> id) const noexcept { return std::hash<std::uint64_t>{}(id.value); }
};
