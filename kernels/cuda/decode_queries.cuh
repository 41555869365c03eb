#pragma once

#include "kernels/cuda/decode_unit.cuh"
#include "kernels/cuda/decode_variant.cuh"

namespace kvgrid::kernels {

// The queries of a unit as right factors of the tensor cores, beside K as decode_kv.cuh brings it. A few rows wait in registers, more in
// shared memory. ask() is called when the copies of K and V come to the unit, far ahead: it starts loads, or prefetches; begin() takes what it
// returned.
template <class Variant, class Kv = typename Variant::Kv>
class UnitQueries;

template <class Variant>
__device__ __forceinline__ const std::byte* query_of_row(const DecodeArguments& arguments, const DecodeUnit& unit,
                                                         int row) {
    return static_cast<const std::byte*>(arguments.q) + row_of_unit(arguments, unit, row) * (2 * Variant::kHeadDim);
}

// What both kinds have in common: where the factors are.
template <class Variant>
class QueryFactors {
  public:
    // Two steps of 16 dims of 8 rows: [step][half] in `queries`.
    __device__ __forceinline__ void load(std::uint32_t (&queries)[4], int step, int tile) const {
        if constexpr (Variant::kKeepsQueries) {
            queries[0] = q_[step][0];
            queries[1] = q_[step][1];
            queries[2] = q_[step + 1][0];
            queries[3] = q_[step + 1][1];
        } else {
            load_shared(queries, step, tile);
        }
    }

  protected:
    static __device__ __forceinline__ void prefetch_rows(const DecodeArguments& arguments, const DecodeUnit& unit) {
        const int lane = threadIdx.x % 32;
        if (lane >= unit.row_count) return;
        const std::byte* const query = query_of_row<Variant>(arguments, unit, lane);
#pragma unroll
        for (int byte = 0; byte < Variant::kHeadDim * 2; byte += 128) prefetch(query + byte);
    }

    __device__ __forceinline__ void load_shared(std::uint32_t (&queries)[4], int step, int tile) const {
        const int lane = threadIdx.x % 32;
        const int row = tile * 8 + lane % 8;
        load_matrices(queries, q_memory_ + row * Variant::kQueryStride + (2 * step + lane / 8) * 16);
    }

    std::uint32_t q_[Variant::kKeepsQueries ? Variant::kDimTiles : 1][2];
    std::uint32_t q_memory_ = 0;
};

template <class Variant, class Element>
class UnitQueries<Variant, PlainKv<Element>> : public QueryFactors<Variant> {
  public:
    static constexpr bool kAskedHasWords = false;
    struct Asked {};
    static __device__ __forceinline__ Asked ask(const DecodeArguments& arguments, const DecodeUnit& unit) {
        QueryFactors<Variant>::prefetch_rows(arguments, unit);
        return {};
    }

    // `memory`: kQueryBytes of shared memory; all threads of the block call this.
    __device__ __forceinline__ void begin(const DecodeArguments& arguments, const DecodeUnit& unit, const Asked&,
                                          std::byte* memory) {
        if constexpr (Variant::kKeepsQueries) {
            keep(arguments, unit);
        } else {
            share(arguments, unit, memory);
        }
    }

    // What the scores of a lane's row must be multiplied by.
    __device__ __forceinline__ float unit_of_row(int) const { return 1; }

  private:
    __device__ __forceinline__ void keep(const DecodeArguments& arguments, const DecodeUnit& unit) {
        const int lane = threadIdx.x % 32, row = lane / 4;
        const bool is_there = row < unit.row_count;
        const auto* const from =
            reinterpret_cast<const std::uint32_t*>(query_of_row<Variant>(arguments, unit, row)) + lane % 4;
#pragma unroll
        for (int step = 0; step < Variant::kDimTiles; ++step) {
            this->q_[step][0] = is_there ? from[step * 8] : 0;
            this->q_[step][1] = is_there ? from[step * 8 + 4] : 0;
        }
    }

    __device__ __forceinline__ void share(const DecodeArguments& arguments, const DecodeUnit& unit, std::byte* memory) {
        constexpr int kChunksPerRow = Variant::kHeadDim / 8;
        this->q_memory_ = shared_address(memory);
        for (int chunk = threadIdx.x; chunk < Variant::kUnitRows * kChunksPerRow; chunk += Variant::kThreads) {
            const int row = chunk / kChunksPerRow, byte = chunk % kChunksPerRow * 16;
            uint4 words = {0, 0, 0, 0};
            if (row < unit.row_count) {
                words = *reinterpret_cast<const uint4*>(query_of_row<Variant>(arguments, unit, row) + byte);
            }
            *reinterpret_cast<uint4*>(memory + row * Variant::kQueryStride + byte) = words;
        }
        __syncthreads();
    }
};

// In f16, whatever q is. A row of bf16 may leave f16's range, so each is divided by a power of two, its unit, that brings its largest
// element to 2^15: exact, save for elements below 2^-32 of the largest, which f16's subnormal numbers round. Words of two dims are put in
// the order 0 2 4 6 1 3 5 7 within a step of 16 dims.
template <class Variant>
class UnitQueries<Variant, Fp8Kv> : public QueryFactors<Variant> {
    static constexpr bool kHasUnits = !Variant::Element::kIsF16;
    static constexpr int kUnitsOffset = Variant::kUnitRows * Variant::kQueryStride;  // behind q in shared memory
    // A warp has every kWarps-th row, a lane every 32nd four dims of it.
    static constexpr int kRows = (Variant::kUnitRows + Variant::kWarps - 1) / Variant::kWarps;
    static constexpr int kQuads = Variant::kHeadDim / 4, kParts = (kQuads + 31) / 32;
    struct RowWords {
        uint2 parts[kParts];
    };

  public:
    static constexpr bool kAskedHasWords = Variant::kKeepsQueries;
    struct Asked {
        RowWords rows[kRows];
    };
    static __device__ __forceinline__ Asked ask(const DecodeArguments& arguments, const DecodeUnit& unit) {
        if constexpr (kAskedHasWords) {
            return load_rows(arguments, unit);
        } else {  // registers are short
            QueryFactors<Variant>::prefetch_rows(arguments, unit);
            return {};
        }
    }

    __device__ __forceinline__ void begin(const DecodeArguments& arguments, const DecodeUnit& unit, const Asked& asked,
                                          std::byte* memory) {
        this->q_memory_ = shared_address(memory);
        const Asked words = kAskedHasWords ? asked : load_rows(arguments, unit);
#pragma unroll
        for (int index = 0; index < kRows; ++index) {
            if (row_at(index) < Variant::kUnitRows) store_row(words.rows[index], row_at(index), memory);
        }
        __syncthreads();
        if constexpr (Variant::kKeepsQueries) {
#pragma unroll
            for (int step = 0; step < Variant::kDimTiles; step += 2) {
                std::uint32_t words[4];
                this->load_shared(words, step, 0);
                this->q_[step][0] = words[0];
                this->q_[step][1] = words[1];
                this->q_[step + 1][0] = words[2];
                this->q_[step + 1][1] = words[3];
            }
        }
    }

    __device__ __forceinline__ float unit_of_row(int index) const {
        if constexpr (kHasUnits) {
            const int row = index / 2 * 8 + 2 * (static_cast<int>(threadIdx.x) % 4) + index % 2;
            return shared_load(this->q_memory_ + kUnitsOffset + 4 * row);
        } else {
            return 1;
        }
    }

  private:
    // The larger magnitudes of two pairs of bf16, as bits.
    static __device__ __forceinline__ std::uint32_t larger(std::uint32_t pair, std::uint32_t other) {
        return __vmaxu2(pair, other & 0x7fff7fff);
    }
    // The unit's exponent. Not below -60, so that its product with a page's scale and the softmax's is no 0: what that loses, no logit shows.
    static __device__ __forceinline__ int exponent_of(std::uint32_t largest_pair) {
        const int largest = static_cast<int>(max(largest_pair & 0xffff, largest_pair >> 16));
        return min(max((largest >> 7) - 127 - 15, -60), 112);
    }
    static __device__ __forceinline__ float power_of_two(int exponent) {
        return __int_as_float((127 + exponent) << 23);
    }
    static __device__ __forceinline__ std::uint32_t to_f16(std::uint32_t bf16_pair, float factor) {
        return F16::pack(__uint_as_float(bf16_pair << 16) * factor, __uint_as_float(bf16_pair & 0xffff0000) * factor);
    }

    static __device__ __forceinline__ int row_at(int index) {
        return threadIdx.x / 32 + index * Variant::kWarps;
    }
    static __device__ __forceinline__ Asked load_rows(const DecodeArguments& arguments, const DecodeUnit& unit) {
        Asked asked;
#pragma unroll
        for (int index = 0; index < kRows; ++index) asked.rows[index] = load_row(arguments, unit, row_at(index));
        return asked;
    }
    static __device__ __forceinline__ RowWords load_row(const DecodeArguments& arguments, const DecodeUnit& unit,
                                                        int row) {
        const auto* const from = reinterpret_cast<const uint2*>(query_of_row<Variant>(arguments, unit, row));
        RowWords words;
#pragma unroll
        for (int part = 0; part < kParts; ++part) {
            const int quad = part * 32 + static_cast<int>(threadIdx.x) % 32;
            words.parts[part] = row < unit.row_count && quad < kQuads ? from[quad] : uint2{0, 0};
        }
        return words;
    }

    __device__ __forceinline__ void store_row(RowWords words, int row, std::byte* memory) const {
        const int lane = threadIdx.x % 32;
        if constexpr (kHasUnits) {
            std::uint32_t largest = 0;
#pragma unroll
            for (const uint2& pair : words.parts) largest = larger(larger(largest, pair.x), pair.y);
            for (int distance = 1; distance < 32; distance *= 2) {
                largest = larger(largest, __shfl_xor_sync(~0u, largest, distance));
            }
            const int exponent = exponent_of(largest);
            const float factor = power_of_two(-exponent);
#pragma unroll
            for (uint2& pair : words.parts) pair = {to_f16(pair.x, factor), to_f16(pair.y, factor)};
            if (lane == 0) reinterpret_cast<float*>(memory + kUnitsOffset)[row] = power_of_two(exponent);
        }
#pragma unroll
        for (int part = 0; part < kParts; ++part) {
            const int quad = part * 32 + lane;
            if (quad >= kQuads) continue;
            std::byte* const step = memory + row * Variant::kQueryStride + quad / 4 * 32;
            auto* const to = reinterpret_cast<std::uint32_t*>(step) + quad % 4;
            to[0] = words.parts[part].x;
            to[4] = words.parts[part].y;
        }
    }
};

}  // namespace kvgrid::kernels
