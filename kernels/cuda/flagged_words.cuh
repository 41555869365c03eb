#pragma once

#include <math_constants.h>

#include <cstdint>

namespace kvgrid::kernels {

// Words that carry their own flags from block to block, through memory that holds kEmptyWord throughout before: no arithmetic yields that
// pattern, so a reader takes each vector as soon as it is there, without a fence or a counter, and puts the pattern back.
inline constexpr std::uint32_t kEmptyWord = 0xffffffff;

__device__ __forceinline__ bool is_empty(float value) {
    return __float_as_uint(value) == kEmptyWord;
}
__device__ __forceinline__ bool is_whole(const float4& words) {
    return !(is_empty(words.x) || is_empty(words.y) || is_empty(words.z) || is_empty(words.w));
}
// A NaN that happens to look empty becomes another one.
__device__ __forceinline__ float filled(float value) {
    return is_empty(value) ? CUDART_NAN_F : value;
}

__device__ __forceinline__ void hand_over_words(float4* to, const float4& words) {
    asm volatile("st.relaxed.gpu.global.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(to), "f"(filled(words.x)),
                 "f"(filled(words.y)), "f"(filled(words.z)), "f"(filled(words.w))
                 : "memory");
}
// What is there now.
__device__ __forceinline__ float4 look_at_words(const float4* from) {
    float4 words;
    asm volatile("ld.relaxed.gpu.global.v4.f32 {%0, %1, %2, %3}, [%4];"
                 : "=f"(words.x), "=f"(words.y), "=f"(words.z), "=f"(words.w)
                 : "l"(from)
                 : "memory");
    return words;
}
__device__ __forceinline__ void empty_words(float4* words) {
    const float nothing = __uint_as_float(kEmptyWord);
    *words = {nothing, nothing, nothing, nothing};
}

}  // namespace kvgrid::kernels
