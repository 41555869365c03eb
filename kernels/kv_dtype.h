#pragma once

#include <cstdint>

namespace kvgrid::kernels {

// How elements of K and V are stored in pages.
enum class KvDtype : std::uint8_t {
    as_model,  // in the dtype of q and o
    fp8_e4m3,  // one byte, times a power of two that a page has for its K and another for its V: docs/decisions/0015-fp8-pages.md
};

constexpr const char* name_of(KvDtype kv_dtype) {
    return kv_dtype == KvDtype::fp8_e4m3 ? "fp8_e4m3" : "as_model";
}

}  // namespace kvgrid::kernels
