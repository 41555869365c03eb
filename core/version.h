#pragma once

namespace kvgrid {

inline constexpr const char* kVersion = "0.1.0";

}  // namespace kvgrid
