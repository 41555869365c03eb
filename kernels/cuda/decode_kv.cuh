#pragma once

#include "kernels/cuda/device_page_layout.h"
#include "kernels/cuda/ptx.cuh"

namespace kvgrid::kernels {

// How K and V lie in pages, and in which type the tensor cores multiply them.

// In the type of q.
template <class Element>
struct PlainKv {
    using Math = Element;
    static constexpr KvDtype kDtype = KvDtype::as_model;
    static constexpr bool kHasScales = false;
};

// In one byte, multiplied as f16, which holds every e4m3 number.
struct Fp8Kv {
    using Math = F16;
    static constexpr KvDtype kDtype = KvDtype::fp8_e4m3;
    static constexpr bool kHasScales = true;
};

// The address of a 16-byte chunk of a token's row in a slice. `chunk` is even and known to the compiler, `odd` is 0 or 1.
template <class Variant>
__device__ __forceinline__ std::uint32_t chunk_address(std::uint32_t slice, int token, int chunk, int odd) {
    const int panel = chunk / 8;
    const int width = Variant::panel_width(panel);
    const int swizzled = (chunk % 8 + odd) ^ DevicePageLayout::swizzle(token, width);
    return slice + Variant::panel_in_slice(panel) + token * width + swizzled * DevicePageLayout::kChunkBytes;
}

// K and V of a slice as left factors of the tensor cores, two tiles of 16 x 16 at a time: of K, 16 tokens and the dims of two steps; of V,
// the dims of two tiles and 16 tokens. Which dim a row or column of a tile stands for differs; q (decode_queries.cuh) and the outcomes
// (first_dim, second_dim) keep to it.
template <class Variant, class Kv = typename Variant::Kv>
struct Fragments;

// Two chunks to a step or tile; dims in their own order.
template <class Variant, class Element>
struct Fragments<Variant, PlainKv<Element>> {
    static __device__ __forceinline__ void load_keys(std::uint32_t (&keys)[2][4], std::uint32_t k_slice, int tokens,
                                                     int step) {
        const int lane = threadIdx.x % 32, token = tokens * 16 + lane % 16;
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            load_matrices(keys[half], chunk_address<Variant>(k_slice, token, 2 * (step + half), lane / 16));
        }
    }
    static __device__ __forceinline__ void load_values(std::uint32_t (&values)[2][4], std::uint32_t v_slice, int tokens,
                                                       int tile) {
        const int lane = threadIdx.x % 32, token = tokens * 16 + lane % 8 + lane / 16 * 8;
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const std::uint32_t at = chunk_address<Variant>(v_slice, token, 2 * (tile + half), lane / 8 % 2);
            load_matrices_transposed(values[half], at);
        }
    }

    // Within a tile of 16: the dims of the sums that a lane has.
    static __device__ __forceinline__ int first_dim(int lane) {
        return lane / 4;
    }
    static __device__ __forceinline__ int second_dim(int lane) {
        return lane / 4 + 8;
    }
};

// One chunk to a step or tile. The tensor cores' loads know elements of two bytes only, so that a lane gets
//
//   of K   four neighbouring dims 4 c ... of a token, c = lane mod 4: columns 2 c, 2 c + 1, 2 c + 8, 2 c + 9 of its tile; q is put in this order
//   of V   transposing, two neighbouring dims 2 r, 2 r + 1 of two tokens, r = lane / 4: after a swap of two bytes, rows r and r + 8
template <class Variant>
struct Fragments<Variant, Fp8Kv> {
    static __device__ __forceinline__ void load_keys(std::uint32_t (&keys)[2][4], std::uint32_t k_slice, int tokens,
                                                     int step) {
        const int lane = threadIdx.x % 32;
        std::uint32_t words[4];
        load_matrices(words, chunk_address<Variant>(k_slice, tokens * 16 + lane % 16, step, lane / 16));
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            widen_e4m3(words[2 * half], keys[half][0], keys[half][2]);
            widen_e4m3(words[2 * half + 1], keys[half][1], keys[half][3]);
        }
    }
    static __device__ __forceinline__ void load_values(std::uint32_t (&values)[2][4], std::uint32_t v_slice, int tokens,
                                                       int tile) {
        const int lane = threadIdx.x % 32;
        std::uint32_t words[4];
        load_matrices_transposed(words, chunk_address<Variant>(v_slice, tokens * 16 + lane % 16, tile, lane / 16));
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            widen_e4m3(by_dim(words[2 * half]), values[half][0], values[half][1]);
            widen_e4m3(by_dim(words[2 * half + 1]), values[half][2], values[half][3]);
        }
    }

    static __device__ __forceinline__ int first_dim(int lane) {
        return lane / 4 * 2;
    }
    static __device__ __forceinline__ int second_dim(int lane) {
        return lane / 4 * 2 + 1;
    }

  private:
    // {token, next token} of one dim and then of the next, instead of {dim, next dim} of each token.
    static __device__ __forceinline__ std::uint32_t by_dim(std::uint32_t by_token) {
        return __byte_perm(by_token, 0, 0x3120);
    }
};

}  // namespace kvgrid::kernels
