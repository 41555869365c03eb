#include "kernels/attention_scores_bf16.h"

#if defined(KVGRID_SCORES_BF16)

#include <immintrin.h>

#include <cstring>
#include <utility>

#include "kernels/page_layout.h"

#define KVGRID_AVX512_BF16 __attribute__((target("avx512f,avx512bw,avx512bf16")))

namespace kvgrid::kernels {

namespace {

// Pairs of dims for 32 tokens out of two rows of a K block. Within each 128-bit lane tokens 0-3 go to `low`, 4-7 to
// `high`.
struct Pairs {
    __m512i low, high;
};

KVGRID_AVX512_BF16 inline Pairs load_pairs(const std::byte* row) {
    const __m512i even = _mm512_loadu_si512(row);
    const __m512i odd = _mm512_loadu_si512(row + kPageTokens * 2);
    return {_mm512_unpacklo_epi16(even, odd), _mm512_unpackhi_epi16(even, odd)};
}

// Back in the order of tokens.
KVGRID_AVX512_BF16 inline void store_scores(__m512 low, __m512 high, float* to) {
    const __m512i first = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11);
    const __m512i second = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
    const __m512d l = _mm512_castps_pd(low);
    const __m512d h = _mm512_castps_pd(high);
    _mm512_storeu_ps(to, _mm512_castpd_ps(_mm512_permutex2var_pd(l, first, h)));
    _mm512_storeu_ps(to + 16, _mm512_castpd_ps(_mm512_permutex2var_pd(l, second, h)));
}

// 64 tokens, two dims a step.
template <int kRows>
KVGRID_AVX512_BF16 void multiply_pairs(const Product& work) {
    constexpr std::size_t kStepBytes = 2 * kPageTokens * 2;
    __m512 sums[kRows][4];
    const float* a[kRows];
#pragma GCC unroll 8
    for (int row = 0; row < kRows; ++row) {
        a[row] = work.a + row * work.a_stride;
#pragma GCC unroll 8
        for (int vector = 0; vector < 4; ++vector) {
            sums[row][vector] = _mm512_setzero_ps();
        }
    }

    const std::byte* b = work.b;
    for (int step = 0; step < work.steps; ++step) {
        const Pairs first = load_pairs(b);
        const Pairs second = load_pairs(b + 64);
        b += kStepBytes;
#pragma GCC unroll 4
        for (std::size_t byte = 0; byte < kStepBytes; byte += kLineBytes) {
            __builtin_prefetch(work.prefetch + step * kStepBytes + byte, 0, 2);
        }
        const __m512bh columns[4] = {(__m512bh)first.low, (__m512bh)first.high, (__m512bh)second.low,
                                     (__m512bh)second.high};
#pragma GCC unroll 8
        for (int row = 0; row < kRows; ++row) {
            const __m512bh factor = (__m512bh)_mm512_set1_ps(a[row][step]);
#pragma GCC unroll 8
            for (int vector = 0; vector < 4; ++vector) {
                sums[row][vector] = _mm512_dpbf16_ps(sums[row][vector], factor, columns[vector]);
            }
        }
    }

#pragma GCC unroll 8
    for (int row = 0; row < kRows; ++row) {
        float* const c = work.c + row * work.c_stride;
        store_scores(sums[row][0], sums[row][1], c);
        store_scores(sums[row][2], sums[row][3], c + 32);
    }
}

// A word holds two elements, as they lie in q.
void copy_query(const std::byte* from, int count, float* to) {
    std::memcpy(to, from, static_cast<std::size_t>(count) * 2);
}

template <int... kRowsMinusOne>
constexpr ProductByRows pair_products(std::integer_sequence<int, kRowsMinusOne...>) {
    return {{multiply_pairs<kRowsMinusOne + 1>...}};
}

}  // namespace

bool bf16_scores_supported() {
    static const bool supported = __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512bf16");
    return supported;
}

ProductKernels with_bf16_scores(ProductKernels kernels) {
    kernels.elements_per_step = 2;
    kernels.scores = pair_products(std::make_integer_sequence<int, kProductRowsMax>());
    kernels.load_query = copy_query;
    return kernels;
}

}  // namespace kvgrid::kernels

#endif
