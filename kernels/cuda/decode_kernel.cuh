#pragma once

#include "kernels/cuda/cuda_error.h"
#include "kernels/cuda/decode_finish.cuh"
#include "kernels/cuda/decode_own_block.cuh"
#include "kernels/cuda/decode_slots.cuh"
#include "kernels/cuda/decode_walk.cuh"

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
// Where a unit lies in many blocks, every so many of them (group_parts of the schedule) merge into the last of theirs first:
//
//   block of the unit   0 ... 4  5  6 ... 10  11  12  13  14 (its last)
//                       `----->--'  `----->---'
//                                `------->------->--->----'

// Which blocks' partials a block merges into its own, for a unit whose first page is in block `first_block`: the results of whole groups,
// then the blocks of this one's group that come before it.
struct PartRange {
    int first_block;
    int group_parts;
    int group_count;  // whole groups before this block's
    int begin, end;   // of what is to be merged

    __device__ static PartRange of(int first_block, int group_parts, bool ends_unit) {
        const int before = static_cast<int>(blockIdx.x) - first_block;
        const int group_count = before / group_parts, members = before % group_parts;
        if (ends_unit) return {first_block, group_parts, group_count, 0, group_count + members};
        const bool ends_group = members == group_parts - 1;
        return {first_block, group_parts, group_count, group_count, group_count + (ends_group ? members : 0)};
    }
    __device__ int block_at(int part) const {
        return first_block +
               (part < group_count ? (part + 1) * group_parts - 1 : group_count * group_parts + part - group_count);
    }
};

template <class Variant>
class DecodeTail {
  public:
    __device__ DecodeTail(const DecodeArguments& arguments, const JoinState& join_state)
        : arguments_(arguments), finish_{arguments.outputs, join_state} {}

    __device__ __forceinline__ void finish(const DecodeUnit& unit, int row, int dim, const RowPiece& piece) const {
        finish_.take(row_of_unit(arguments_, unit, row), dim, piece);
    }
    // Or in two goes, where that spares waiting: the second one by the same block, after a barrier, and by any of its threads.
    __device__ __forceinline__ bool finishes_later() const { return finish_.keeps(); }
    __device__ __forceinline__ void keep(const DecodeUnit& unit, int row, int dim, const RowPiece& piece) const {
        finish_.keep(row_of_unit(arguments_, unit, row), dim, piece);
    }
    __device__ __forceinline__ PeerPlace kept_place(const DecodeUnit& unit, int row, int dim) const {
        return {row_of_unit(arguments_, unit, row), dim};
    }
    template <int kCount>
    __device__ __forceinline__ void finish_kept(const PeerPlace (&places)[kCount]) const {
        finish_.take_kept(places);
    }

    __device__ __forceinline__ Slot<Variant> slot_of(int block) const { return {arguments_.slots, block}; }
    __device__ __forceinline__ Slot<Variant> own_slot() const {
        return {arguments_.slots, arguments_.block_count + static_cast<int>(blockIdx.x)};
    }

    // This block's piece, as own() has it, and what others hand over, in the range's order. Asks for several at once, and again for all
    // that are missing, so that waiting costs one way to memory and not one for each; own() is computed on that way.
    template <class Own>
    __device__ __forceinline__ RowPiece merge_parts(const PartRange& parts, int row, int dim, const Own& own) const {
        constexpr int kAtOnce = 8;
        if (parts.begin == parts.end) return own();
        RowPiece merged = no_piece();
        for (int part = parts.begin; part < parts.end; part += kAtOnce) {
            RowPiece pieces[kAtOnce + 1];
#pragma unroll
            for (int index = 0; index < kAtOnce; ++index) {
                pieces[index] = no_piece();
                if (part + index < parts.end) pieces[index] = slot_of(parts.block_at(part + index)).look(row, dim);
            }
            pieces[kAtOnce] = part == parts.begin ? own() : merged;
            while (true) {
                bool is_whole = true;
#pragma unroll
                for (int index = 0; index < kAtOnce; ++index) is_whole &= Slot<Variant>::is_whole(pieces[index]);
                if (is_whole) break;
#pragma unroll
                for (int index = 0; index < kAtOnce; ++index) {
                    if (Slot<Variant>::is_whole(pieces[index])) continue;
                    pieces[index] = slot_of(parts.block_at(part + index)).look(row, dim);
                }
            }
            merged = merge(pieces);
        }
        return merged;
    }

    __device__ __forceinline__ void empty_parts(const PartRange& parts, int row, int dim) const {
        for (int part = parts.begin; part < parts.end; ++part) slot_of(parts.block_at(part)).empty(row, dim);
    }

  private:
    const DecodeArguments& arguments_;
    const FinishRows<Variant> finish_;
};

template <class Variant>
struct DecodeShared {
    typename SliceRing<Variant>::Shared rings[Variant::kWarps];
    typename WarpOutcomes<Variant>::Sums warp_sums;
    JoinState join_state;
};

// All units that end in this block, but for the first, if it began in another one, and the last: which were finished at once. Their pieces go round
// the threads, and each thread waits for several at a time.
template <class Variant>
__device__ __forceinline__ void finish_kept_units(const DecodeArguments& arguments, const DecodeTail<Variant>& tail) {
    __syncthreads();
    constexpr int kAtOnce = FinishRows<Variant>::kPiecesAtOnce, kRowPieces = Variant::kHeadDim / 4;
    PeerPlace places[kAtOnce];
    int held = 0;
    const auto finish_held = [&] {
#pragma unroll
        for (int i = 0; i < kAtOnce; ++i) places[i].is_used = i < held;
        tail.finish_kept(places);
        held = 0;
    };
    const DecodeBlock& block = arguments.blocks[blockIdx.x];
    Segments segments(block, arguments.units);
    int piece = static_cast<int>(threadIdx.x);  // the next of this thread, of the unit
    for (bool is_first = true; !segments.at_end() && !segments.is_last(); segments.next(), is_first = false) {
        const DecodeUnit& unit = segments.unit();
        if (unit.row_count == 0 || !segments.ends_unit() || (is_first && block.page > 0)) continue;
        const int piece_count = unit.row_count * kRowPieces;
        for (; piece < piece_count; piece += Variant::kThreads) {
            const PeerPlace place = tail.kept_place(unit, piece / kRowPieces, piece % kRowPieces * 4);
#pragma unroll
            for (int i = 0; i < kAtOnce; ++i) {
                if (i == held) places[i] = place;
            }
            if (++held == kAtOnce) finish_held();
        }
        piece -= piece_count;
    }
    if (held > 0) finish_held();
}

template <class Variant>
__device__ __forceinline__ void decode_units_of_block(const DecodeArguments& arguments, std::byte* memory,
                                                      DecodeShared<Variant>& shared) {
    auto& [rings, warp_sums, join_state] = shared;
    const int warp = threadIdx.x / 32;
    const WarpOutcomes<Variant> outcomes{reinterpret_cast<float*>(memory + Variant::kOutcomesOffset), warp_sums};

    const DecodeBlock& block = arguments.blocks[blockIdx.x];
    const int first_part = block.first_part, group_parts = block.group_parts;
    const bool begins_inside = block.page > 0;
    Segments segments(block, arguments.units);
    if (segments.at_end()) {
        if (threadIdx.x == 0) FinishRows<Variant>::begin(arguments, join_state);
        return;
    }
    SliceRing<Variant> ring(arguments, segments, memory + warp * Variant::kStages * Variant::kStageBytes, rings[warp]);
    for (int stage = 0; stage < Variant::kStages; ++stage) ring.fill(stage);
    if (threadIdx.x == 0) FinishRows<Variant>::begin(arguments, join_state);

    const DecodeTail<Variant> tail(arguments, join_state);
    bool must_merge = false;  // the first unit, with other blocks' partials, after all else
    bool keeps = tail.finishes_later();
    SliceWalk walk;
    for (bool is_first = true; !segments.at_end(); segments.next(), is_first = false) {
        const DecodeUnit& unit = segments.unit();
        if (unit.row_count == 0) continue;
        UnitSums<Variant> sums;
        sums.begin(arguments, unit, ring.queries(segments), memory + Variant::kQueriesOffset);
        walk.add_slices(arguments, segments, ring, sums);
        sums.finish_sums();
        sums.store(outcomes.of_warp(warp), warp_sums.origin[warp], warp_sums.sum[warp]);
        __syncthreads();

        const bool ends = segments.ends_unit(), inside = is_first && begins_inside, is_last = segments.is_last();
        const PartRange parts = PartRange::of(inside ? first_part : static_cast<int>(blockIdx.x), group_parts, ends);
        must_merge = must_merge || (ends && inside && !is_last);
        if (is_last && ends && keeps) {  // while what this unit waits for is on its way
            finish_kept_units(arguments, tail);
            keeps = false;
        }
        for_each_piece<Variant>(unit, [&](int row, int dim) {
            const auto own = [&] { return outcomes.merged(row, dim); };
            if (ends && inside && !is_last) {
                tail.own_slot().keep(row, dim, own());
                return;
            }
            const RowPiece piece = tail.merge_parts(parts, row, dim, own);
            if (ends && keeps && !is_last) {
                tail.keep(unit, row, dim, piece);
            } else if (ends) {
                tail.finish(unit, row, dim, piece);
            } else {
                tail.slot_of(blockIdx.x).hand_over(row, dim, piece);
            }
            tail.empty_parts(parts, row, dim);
        });
        if (is_last) break;
        __syncthreads();  // before the next unit's outcomes
    }
    if (must_merge) {
        const DecodeUnit first_unit = block.first;  // read again: registers are short in the loop
        const PartRange parts = PartRange::of(first_part, group_parts, true);
        for_each_piece<Variant>(first_unit, [&](int row, int dim) {
            const auto own = [&] { return tail.own_slot().kept(row, dim); };
            tail.finish(first_unit, row, dim, tail.merge_parts(parts, row, dim, own));
            tail.empty_parts(parts, row, dim);
        });
    }
    if (keeps) finish_kept_units(arguments, tail);
}

template <class Variant>
__global__ __launch_bounds__(Variant::kThreads,
                             1) void decode_block(const __grid_constant__ DecodeArguments arguments) {
    extern __shared__ __align__(1024) std::byte memory[];
    __shared__ DecodeShared<Variant> shared;
    allow_next_kernel();
    wait_for_previous_kernel();
    decode_units_of_block(arguments, memory, shared);
    FinishRows<Variant>::end(arguments);
}

// Blocks may start as those of the kernel before leave their SMs; they wait for all of it before they read anything.
template <class Variant>
void launch_blocks(void (*kernel)(DecodeArguments), const DecodeArguments& arguments, Stream stream) {
    check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, Variant::kSharedBytes),
               "cudaFuncSetAttribute of a decode kernel");
    cudaLaunchAttribute attributes[2] = {};
    attributes[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[0].val.programmaticStreamSerializationAllowed = 1;
    attributes[1].id = cudaLaunchAttributeClusterDimension;
    attributes[1].val.clusterDim = {static_cast<unsigned>(arguments.cut.parts), 1, 1};
    cudaLaunchConfig_t config{};
    config.gridDim = arguments.block_count;
    config.blockDim = Variant::kThreads;
    config.dynamicSmemBytes = Variant::kSharedBytes;
    config.stream = stream;
    config.attrs = attributes;
    config.numAttrs = arguments.cut.kind == UnitCut::Kind::clusters ? 2 : 1;
    check_cuda(cudaLaunchKernelEx(&config, kernel, arguments), "launch of a decode kernel");
}

template <int kHeadDim, class Element, int kUnitRows, class Kv>
void launch_decode(const DecodeArguments& arguments, Stream stream) {
    if constexpr (kUnitRows <= kRowsMaxOfOwnBlocks) {
        using InCluster = ClusterVariant<kHeadDim, Element, kUnitRows, Kv>;
        using Small = SmallBlockVariant<kHeadDim, Element, kUnitRows, Kv>;
        switch (arguments.cut.kind) {
            case UnitCut::Kind::clusters:
                return launch_blocks<InCluster>(decode_own_block<InCluster>, arguments, stream);
            case UnitCut::Kind::small_blocks:
                return launch_blocks<Small>(decode_own_block<Small>, arguments, stream);
            case UnitCut::Kind::ranges:
                break;
        }
    }
    using Variant = DecodeVariant<kHeadDim, Element, kUnitRows, Kv>;
    launch_blocks<Variant>(decode_block<Variant>, arguments, stream);
}

}  // namespace kvgrid::kernels
