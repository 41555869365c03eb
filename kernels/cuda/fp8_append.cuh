#pragma once

#include "kernels/cuda/device_page_layout.h"
#include "kernels/cuda/fp8_rules.h"
#include "kernels/cuda/ptx.cuh"

namespace kvgrid::kernels {

// New tokens of one stream for the K, or the V, of one page.
struct Fp8BlockAppend {
    std::byte* block;       // in the page
    float* scale;           // in the page's trailer; not read if slot is 0
    const std::byte* rows;  // the first token's, in Element
    std::size_t row_stride_bytes;
    int head_dim;
    int slot;  // of the first token; tokens before it are there
    int token_count;
};

// Quantises them, and before that the tokens which are there, if the new ones need a larger scale. All threads of a block of kThreads call
// this; no others may touch the block or its scale meanwhile. Each source byte is read once, and waits in registers.
template <class Element, int kThreads, int kHeadDimMax>
class Fp8Appender {
    static constexpr int kDims = 8;  // of a piece: 16 bytes of a row, which become 8
    static constexpr int kPiecesMax = kPageTokens * (kHeadDimMax / kDims) / kThreads;

  public:
    __device__ explicit Fp8Appender(const Fp8BlockAppend& work)
        : work_(work),
          layout_(DevicePageLayout::of(work.head_dim, Dtype::bf16, KvDtype::fp8_e4m3)),
          pieces_per_row_(work.head_dim / kDims),
          piece_count_(work.token_count * pieces_per_row_),
          inverse_((1 << kInverseBits) / pieces_per_row_ + 1) {}

    __device__ void run() {
        const std::uint32_t largest = largest_of_block(load());
        const int needed = scale_exponent_of(largest);
        int exponent = needed;
        if (work_.slot > 0) {
            const int held = exponent_of_power_of_two(__float_as_uint(*work_.scale));
            exponent = max(held, needed);
            if (exponent > held) requantise(held - exponent);
        }
        store(__uint_as_float(bits_of_power_of_two(-exponent)));
        __syncthreads();  // all have read the old scale
        if (threadIdx.x == 0) *work_.scale = __uint_as_float(bits_of_power_of_two(exponent));
    }

  private:
    // A division by pieces_per_row_, right for all pieces of a page.
    static constexpr int kInverseBits = 16;
    struct Place {
        int token, dim;
    };
    __device__ Place place_of(int piece) const {
        const int token = piece * inverse_ >> kInverseBits;
        return {token, (piece - token * pieces_per_row_) * kDims};
    }

    // Brings this thread's pieces; returns the largest finite magnitude among them, as the bits of an f32.
    __device__ std::uint32_t load() {
#pragma unroll
        for (int index = 0; index < kPiecesMax; ++index) {
            const int piece = threadIdx.x + index * kThreads;
            const Place place = place_of(piece);
            const std::byte* const from = work_.rows + place.token * work_.row_stride_bytes + place.dim * 2;
            pieces_[index] = piece < piece_count_ ? *reinterpret_cast<const uint4*>(from) : uint4{0, 0, 0, 0};
        }
        std::uint32_t largest = 0;
#pragma unroll
        for (const uint4& piece : pieces_) {
            for_each_pair(piece, [&](float first, float second) {
                largest = max(largest, max(finite_bits(first), finite_bits(second)));
            });
        }
        return largest;
    }

    static __device__ std::uint32_t finite_bits(float value) {
        const std::uint32_t bits = __float_as_uint(value) & 0x7fffffff;
        return bits < 0x7f800000 ? bits : 0;
    }

    static __device__ std::uint32_t largest_of_block(std::uint32_t largest) {
        __shared__ std::uint32_t of_warps[kThreads / 32];
        largest = __reduce_max_sync(~0u, largest);
        if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = largest;
        __syncthreads();
        for (std::uint32_t of_warp : of_warps) largest = max(largest, of_warp);
        return largest;
    }

    // The tokens before `slot`: in each panel, the bytes up to theirs. By 2^shift, which is at most 1.
    __device__ void requantise(int shift) const {
        const float factor = __uint_as_float(bits_of_power_of_two(shift));
        for (int panel = 0; panel < layout_.panel_count(); ++panel) {
            auto* const words = reinterpret_cast<std::uint32_t*>(work_.block + DevicePageLayout::panel_offset(panel));
            const int word_count = work_.slot * layout_.panel_width(panel) / 4;
            for (int word = threadIdx.x; word < word_count; word += kThreads) {
                std::uint32_t pairs[2];
                widen_e4m3(words[word], pairs[0], pairs[1]);
                const std::uint32_t low = scaled(pairs[0], factor), high = scaled(pairs[1], factor);
                words[word] = low | high << 16;
            }
        }
    }
    static __device__ std::uint32_t scaled(std::uint32_t f16_pair, float factor) {
        return pack_e4m3(F16::widen(static_cast<std::uint16_t>(f16_pair)) * factor,
                         F16::widen(static_cast<std::uint16_t>(f16_pair >> 16)) * factor);
    }

    __device__ void store(float inverse_scale) const {
#pragma unroll
        for (int index = 0; index < kPiecesMax; ++index) {
            const int piece = threadIdx.x + index * kThreads;
            if (piece >= piece_count_) break;
            const Place place = place_of(piece);
            std::uint16_t packed[4];
            int pair = 0;
            for_each_pair(pieces_[index], [&](float first, float second) {
                packed[pair++] = pack_e4m3(holdable(first * inverse_scale), holdable(second * inverse_scale));
            });
            *reinterpret_cast<uint2*>(work_.block + layout_.offset(work_.slot + place.token, place.dim)) = {
                packed[0] | static_cast<std::uint32_t>(packed[1]) << 16,
                packed[2] | static_cast<std::uint32_t>(packed[3]) << 16};
        }
    }
    static __device__ float holdable(float value) {
        return fabsf(value) <= kE4m3Max ? value : __int_as_float(0x7fffffff);
    }

    // Calls act(first, second) for the four pairs of a piece, widened.
    template <class Act>
    static __device__ __forceinline__ void for_each_pair(const uint4& piece, const Act& act) {
        const std::uint32_t pairs[] = {piece.x, piece.y, piece.z, piece.w};
#pragma unroll
        for (std::uint32_t pair : pairs) {
            act(Element::widen(static_cast<std::uint16_t>(pair)),
                Element::widen(static_cast<std::uint16_t>(pair >> 16)));
        }
    }

    const Fp8BlockAppend& work_;
    DevicePageLayout layout_;
    int pieces_per_row_, piece_count_, inverse_;
    uint4 pieces_[kPiecesMax];
};

}  // namespace kvgrid::kernels
