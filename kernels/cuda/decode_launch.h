#pragma once

#include <cstddef>
#include <cstdint>

#include "core/dtype.h"
#include "core/kv_dtype.h"
#include "kernels/cuda/decode_schedule.h"
#include "kernels/cuda/peer_exchange.h"
#include "kernels/page_entry.h"

namespace kvgrid::kernels {

// What whole rows end as: in the model's dtype, or normalised f32 with the log-sum-exp for the join. Null: not wanted. Or joined with other ranks', for
// which the root keeps some in partial and lse.
struct DecodeOutputs {
    void* rounded;
    float* partial;
    float* lse;
    PeerExchange join = {};  // rank_count 0: they are written
};

// Whether kernels of such units have registers left for a join in their tail.
constexpr bool has_registers_to_join(KvDtype kv_dtype, int head_dim, int unit_rows) {
    return kv_dtype == KvDtype::as_model || (unit_rows == 8 && (head_dim == 96 || head_dim == 128));
}

// What a decode kernel is started with; checked beforehand.
struct DecodeArguments {
    const std::byte* slab;
    std::size_t page_bytes;
    const PageEntry* entries;
    const DecodeUnit* units;
    const DecodeBlock* blocks;
    int block_count;
    UnitCut cut;
    int kv_layer;
    const void* q;
    DecodeOutputs outputs;
    float* slots;  // the workspace
    int query_heads;
    int group;
    bool strictly_earlier;
    float scale_log2;  // scale * log2(e)
    float cap_inner;   // scale / soft_cap; 0: there is no cap
    float cap_outer;   // soft_cap / scale
};

// What a block hands over of a unit, in floats: decode_slots.cuh.
inline constexpr int kDecodeSumsDims = 32;
constexpr int decode_slot_floats(int unit_rows, int head_dim) {
    return unit_rows * (head_dim + 2 * head_dim / kDecodeSumsDims);
}

// Elements as the tensor cores see them: ptx.cuh. How K and V are stored: decode_kv.cuh.
struct Bf16;
struct F16;
template <class Element>
struct PlainKv;
struct Fp8Kv;

// kUnitRows: 8, 16 or 32, as DecodeShape::unit_rows(). Kv: PlainKv<Element> or Fp8Kv. Instantiated in decode_64.cu and its sisters, one file
// per head size and storage, since each takes seconds to compile; decode.cpp lists what exists.
template <int kHeadDim, class Element, int kUnitRows, class Kv>
void launch_decode(const DecodeArguments& arguments, Stream stream);

// Any head size, any number of new tokens; a row at a time, without tensor cores or a schedule.
struct GeneralDecode {
    DecodeShape shape;
    Dtype dtype;
    KvDtype kv_dtype;
    DecodeArguments arguments;  // units, blocks and slots are not read
    const DecodeItem* items;
    const PageList* lists;
    int item_count;
};
void launch_decode_general(const GeneralDecode& work, Stream stream);

}  // namespace kvgrid::kernels
