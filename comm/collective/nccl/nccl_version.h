#pragma once

#include <string>

namespace kvgrid::comm {

// NCCL's versions as it counts them itself: 22809 is 2.28.9. For programs without NCCL too.

constexpr int kNcclBuiltFor = 22800;  // older ones are tested by nobody
// From here on several ranks may have one GPU.
constexpr int kNcclSharesGpus = 23000;

// "2.28.9". Before 2.9 there were fewer digits.
inline std::string nccl_version_text(int version) {
    const int major = version >= 10'000 ? version / 10'000 : version / 1'000;
    const int minor = version >= 10'000 ? version / 100 % 100 : version / 100 % 10;
    return std::to_string(major) + '.' + std::to_string(minor) + '.' + std::to_string(version % 100);
}

}  // namespace kvgrid::comm
