#include "worker/inventory.h"

namespace kvgrid::worker {

// FNV-1a, 8 bytes at a time.
std::int64_t digest(const Inventory& inventory) {
    std::uint64_t hash = 0xcbf29ce484222325;
    const auto add = [&hash](std::uint64_t value) {
        hash = (hash ^ value) * 0x100000001b3;
        hash ^= hash >> 32;
    };
    for (const auto& model : inventory.models) add(model.id.value);
    add(0);
    for (const auto& sequence : inventory.sequences) {
        add(sequence.id.value);
        add(sequence.model.value);
        add(static_cast<std::uint64_t>(sequence.length) << 1 | (sequence.step_open ? 1 : 0));
    }
    return static_cast<std::int64_t>(hash >> 2);
}

}  // namespace kvgrid::worker
