#pragma once

#include <math_constants.h>

#include "kernels/cuda/decode_join.cuh"
#include "kernels/cuda/decode_slots.cuh"

namespace kvgrid::kernels {

// What a decode kernel does with rows that are whole: writes them where the caller wants them, or joins them with other ranks' rows. Each row comes
// in pieces of four dims, each piece once, from any thread.
template <class Variant>
struct FinishRows {
    static constexpr bool kJoins = has_registers_to_join(Variant::Kv::kDtype, Variant::kHeadDim, Variant::kUnitRows);

    // That a thread waits for at a time. Kernels of more rows would spill.
    static constexpr int kPiecesAtOnce = Variant::kUnitRows <= 8 ? 4 : 1;

    const DecodeOutputs& outputs;
    const JoinState& join_state;

    // output_row counts query heads: row * query_heads + head.
    __device__ __forceinline__ void take(std::size_t output_row, int dim, const RowPiece& piece) const {
        if constexpr (kJoins) {
            if (outputs.join.rank_count > 0) {
                const float lse = lse_of(piece.origin, piece.sum);
                return join_piece(outputs.join, join_state, output_row, dim, {value_of(piece), lse});
            }
        }
        write(output_row, dim, piece);
    }

    // begin_join and end_join.
    __device__ __forceinline__ static void begin(const DecodeArguments& arguments, JoinState& state) {
        if constexpr (kJoins) begin_join(arguments.outputs.join, state);
    }
    __device__ __forceinline__ static void end(const DecodeArguments& arguments) {
        if constexpr (kJoins) end_join<kPiecesAtOnce>(arguments.outputs.join);
    }

    // The root of a join keeps rows until its block has read all of its pages, and waits for other ranks' only then.
    __device__ __forceinline__ bool keeps() const {
        return kJoins && outputs.join.rank_count > 0 && outputs.join.rank == outputs.join.root &&
               outputs.join.sequence_parts > 1;
    }
    __device__ __forceinline__ void keep(std::size_t output_row, int dim, const RowPiece& piece) const {
        write(output_row, dim, piece);
    }
    // After a barrier.
    template <int kCount>
    __device__ __forceinline__ void take_kept(const PeerPlace (&places)[kCount]) const {
        if constexpr (kJoins) {
            const PeerExchange& work = outputs.join;
            Patience patience(work);
            merge_pieces(work, join_state.epoch, work.rank / work.sequence_parts, places, patience, [&](int i) {
                const float* const value = outputs.partial + places[i].row * Variant::kHeadDim + places[i].dim;
                return PeerPiece{*reinterpret_cast<const float4*>(value), outputs.lse[places[i].row]};
            });
        }
    }

    static __device__ __forceinline__ float lse_of(float origin, float sum) {
        return sum == 0 ? -CUDART_INF_F : CUDART_LN2_F * (origin + log2f(sum));
    }

  private:
    static __device__ __forceinline__ float4 value_of(const RowPiece& piece) {
        const float inverse = piece.sum == 0 ? 0 : 1 / piece.sum;
        return {piece.outcome.x * inverse, piece.outcome.y * inverse, piece.outcome.z * inverse,
                piece.outcome.w * inverse};
    }
    __device__ __forceinline__ void write(std::size_t output_row, int dim, const RowPiece& piece) const {
        const float4 value = value_of(piece);
        const std::size_t at = output_row * Variant::kHeadDim + dim;
        if (outputs.rounded != nullptr) {
            const uint2 packed = {Variant::Element::pack(value.x, value.y), Variant::Element::pack(value.z, value.w)};
            *reinterpret_cast<uint2*>(static_cast<std::uint16_t*>(outputs.rounded) + at) = packed;
        }
        if (outputs.partial != nullptr) *reinterpret_cast<float4*>(outputs.partial + at) = value;
        if (outputs.lse != nullptr && dim == 0) outputs.lse[output_row] = lse_of(piece.origin, piece.sum);
    }
};

}  // namespace kvgrid::kernels
