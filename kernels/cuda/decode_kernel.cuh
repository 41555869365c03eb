#pragma once

#include "kernels/cuda/cuda_error.h"
#include "kernels/cuda/decode_finish.cuh"
#include "kernels/cuda/decode_math.cuh"
#include "kernels/cuda/decode_ring.cuh"
#include "kernels/cuda/decode_slots.cuh"

namespace kvgrid::kernels {

// One block of the schedule. Warps read slices of a unit's pages, each at its own pace, and meet once at the end of the unit:
//
//   for each unit of the block:  all warps: slices -> sums in registers -> shared memory
//                                all threads: merge the warps' sums, and
//                                   the unit is whole         finish its rows
//                                   it goes on in the next    hand the partial over: this block is done
//                                   it began in another       keep the partial until the block's own work is done
//   then, if a unit began in another block: merge what that one and those between handed over, and finish its rows.
//
// Where a unit lies in very many blocks, every 24th of them merges those before it first and hands over the result:
//
//   block of the unit   0 ... 22  23  24 ... 46  47  48  49 (its last)
//                       `------->-'    `------->-'
//                                  `-------------->---->---'
constexpr int kPartsPerGroup = 24;

// Which blocks' partials a block merges into its own, for a unit whose first page is in block `first_block`: the results of whole groups,
// then the blocks of this one's group that come before it.
struct PartRange {
    int first_block;
    int group_count;  // whole groups before this block's
    int begin, end;   // of what is to be merged

    __device__ static PartRange of(int first_block, bool ends_unit) {
        const int before = static_cast<int>(blockIdx.x) - first_block;
        const int group_count = before / kPartsPerGroup, members = before % kPartsPerGroup;
        if (ends_unit) return {first_block, group_count, 0, group_count + members};
        const bool ends_group = members == kPartsPerGroup - 1;
        return {first_block, group_count, group_count, group_count + (ends_group ? members : 0)};
    }
    __device__ int block_at(int part) const {
        return first_block + (part < group_count ? part * kPartsPerGroup + kPartsPerGroup - 1
                                                 : group_count * kPartsPerGroup + part - group_count);
    }
    __device__ bool is_empty() const { return begin == end; }
};

template <class Variant>
class DecodeTail {
  public:
    struct WarpSums {
        float origin[Variant::kWarps][Variant::kUnitRows];
        float sum[Variant::kWarps][Variant::kUnitRows];
    };

    __device__ DecodeTail(const DecodeArguments& arguments, const float* outcomes, const WarpSums& sums)
        : arguments_(arguments), outcomes_(outcomes), sums_(sums), finish_{arguments.outputs} {}

    // Of the warps of this block.
    __device__ __forceinline__ RowPiece merge_warps(int row, int dim) const {
        RowPiece merged = warp_piece(0, row, dim);
#pragma unroll
        for (int warp = 1; warp < Variant::kWarps; ++warp) merged = merge(merged, warp_piece(warp, row, dim));
        return merged;
    }

    __device__ __forceinline__ void finish(const DecodeUnit& unit, int row, int dim, const RowPiece& piece) const {
        const int at = unit.first_head + row;
        const std::size_t query = static_cast<std::size_t>(unit.query_row + at / arguments_.group);
        const std::size_t head = unit.kv_head * arguments_.group + at % arguments_.group;
        finish_.take(query * arguments_.query_heads + head, dim, piece);
    }

    __device__ __forceinline__ Slot<Variant> slot_of(int block) const {
        return {arguments_.slots, block};
    }
    __device__ __forceinline__ Slot<Variant> own_slot() const {
        return {arguments_.slots, arguments_.block_count + static_cast<int>(blockIdx.x)};
    }

    // Adds what others hand over, in the range's order, as it comes in. Several are asked for at a time.
    __device__ __forceinline__ RowPiece merge_parts(const PartRange& parts, int row, int dim, RowPiece merged) const {
        constexpr int kAtOnce = 8;
        for (int part = parts.begin; part < parts.end; part += kAtOnce) {
            RowPiece pieces[kAtOnce];
#pragma unroll
            for (int index = 0; index < kAtOnce; ++index) {
                if (part + index < parts.end) pieces[index] = slot_of(parts.block_at(part + index)).look(row, dim);
            }
#pragma unroll
            for (int index = 0; index < kAtOnce; ++index) {
                if (part + index >= parts.end) break;
                const Slot<Variant> slot = slot_of(parts.block_at(part + index));
                while (!slot.is_whole(pieces[index])) pieces[index] = slot.look(row, dim);
                merged = merge(merged, pieces[index]);
            }
        }
        return merged;
    }

    // For the next launch, once all threads have read.
    __device__ __forceinline__ void empty_parts(const PartRange& parts, const DecodeUnit& unit) const {
        if (parts.is_empty()) return;
        __syncthreads();
        for_each_piece(unit, [&](int row, int dim) {
            for (int part = parts.begin; part < parts.end; ++part) slot_of(parts.block_at(part)).empty(row, dim);
        });
    }

    // Calls act(row, dim) for this thread's share of the unit's pieces; the share is the same for every call.
    template <class Act>
    static __device__ __forceinline__ void for_each_piece(const DecodeUnit& unit, const Act& act) {
        constexpr int kPiecesPerRow = Variant::kHeadDim / 4;
        for (int piece = threadIdx.x; piece < unit.row_count * kPiecesPerRow; piece += Variant::kThreads) {
            act(piece / kPiecesPerRow, piece % kPiecesPerRow * 4);
        }
    }

  private:
    __device__ __forceinline__ RowPiece warp_piece(int warp, int row, int dim) const {
        const float* const from = outcomes_ + (warp * Variant::kUnitRows + row) * Variant::kOutcomeStride + dim;
        return {*reinterpret_cast<const float4*>(from), sums_.origin[warp][row], sums_.sum[warp][row]};
    }

    const DecodeArguments& arguments_;
    const float* outcomes_;
    const WarpSums& sums_;
    WriteOutputs<Variant> finish_;
};

template <class Variant>
__global__ __launch_bounds__(Variant::kThreads,
                             1) void decode_block(const __grid_constant__ DecodeArguments arguments) {
    extern __shared__ __align__(1024) std::byte memory[];
    __shared__ typename SliceRing<Variant>::Shared rings[Variant::kWarps];
    __shared__ typename DecodeTail<Variant>::WarpSums warp_sums;
    const int warp = threadIdx.x / 32;
    float* const outcomes = reinterpret_cast<float*>(memory + Variant::kRingBytes);

    const DecodeBlock& block = arguments.blocks[blockIdx.x];
    const int first_part = block.first_part;
    const bool begins_inside = block.page > 0;
    Segments segments(block, arguments.units);
    if (segments.at_end()) return;
    SliceRing<Variant> ring(arguments, segments, memory + warp * Variant::kStages * Variant::kStageBytes, rings[warp]);
    for (int stage = 0; stage < Variant::kStages; ++stage) ring.fill(stage);

    const DecodeTail<Variant> tail(arguments, outcomes, warp_sums);
    bool must_merge = false;  // the first unit, with other blocks' partials, after all else
    int stage = 0;
    std::uint32_t parity = 0;
    int slice = warp;  // this warp's next one, counted as the ring does
    for (bool is_first = true; !segments.at_end(); segments.next(), is_first = false) {
        const DecodeUnit& unit = segments.unit();
        if (unit.row_count == 0) continue;
        UnitSums<Variant> sums;
        sums.load_queries(arguments, unit);
        const int slice_count = (segments.end_page() - segments.first_page()) * Variant::kSlicesPerPage;
        for (; slice < slice_count; slice += Variant::kWarps) {
            ring.wait(stage, parity);
            const SliceMask mask = mask_of(unit, ring.tokens(stage), arguments.group, arguments.strictly_earlier);
            sums.add_slice(arguments, unit, mask, ring.k_slice(stage), ring.v_slice(stage));
            __syncwarp();
            ring.fill(stage);
            if (++stage == Variant::kStages) {
                stage = 0;
                parity ^= 1;
            }
        }
        slice -= slice_count;
        sums.finish_sums();
        sums.store(outcomes + warp * Variant::kUnitRows * Variant::kOutcomeStride, warp_sums.origin[warp],
                   warp_sums.sum[warp]);
        __syncthreads();

        const bool ends = segments.ends_unit(), inside = is_first && begins_inside;
        must_merge |= ends && inside;
        if (!ends) {
            const PartRange parts = PartRange::of(inside ? first_part : static_cast<int>(blockIdx.x), false);
            DecodeTail<Variant>::for_each_piece(unit, [&](int row, int dim) {
                const RowPiece piece = tail.merge_parts(parts, row, dim, tail.merge_warps(row, dim));
                tail.slot_of(blockIdx.x).hand_over(row, dim, piece);
            });
            tail.empty_parts(parts, unit);
            break;
        }
        DecodeTail<Variant>::for_each_piece(unit, [&](int row, int dim) {
            const RowPiece piece = tail.merge_warps(row, dim);
            if (inside) {
                tail.own_slot().keep(row, dim, piece);
            } else {
                tail.finish(unit, row, dim, piece);
            }
        });
        __syncthreads();  // before the next unit's outcomes; and what was kept is there for all
    }
    if (!must_merge) return;
    const DecodeUnit first_unit = block.first;  // read again: registers are short in the loop
    const PartRange parts = PartRange::of(first_part, true);
    DecodeTail<Variant>::for_each_piece(first_unit, [&](int row, int dim) {
        const RowPiece piece = tail.merge_parts(parts, row, dim, tail.own_slot().kept(row, dim));
        tail.finish(first_unit, row, dim, piece);
    });
    tail.empty_parts(parts, first_unit);
}

template <int kHeadDim, class Element, int kUnitRows>
void launch_decode(const DecodeArguments& arguments, Stream stream) {
    using Variant = DecodeVariant<kHeadDim, Element, kUnitRows>;
    const auto kernel = decode_block<Variant>;
    check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, Variant::kSharedBytes),
               "cudaFuncSetAttribute of decode_block");
    kernel<<<arguments.block_count, Variant::kThreads, Variant::kSharedBytes, stream>>>(arguments);
    check_launch("decode_block");
}

}  // namespace kvgrid::kernels
