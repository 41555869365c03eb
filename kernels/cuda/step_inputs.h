#pragma once

#include <cstddef>
#include <cstdint>

#include "core/dtype.h"
#include "core/kv_dtype.h"
#include "kernels/cuda/decode_schedule.h"
#include "kernels/cuda/device_pages.h"
#include "kernels/cuda/device_span.h"

namespace kvgrid::kernels {

// Consecutive new tokens of one item that go to consecutive slots of one page of each KV head's list. The same for every layer whose
// lists have the same lengths.
struct ListRun {
    std::int32_t item;   // whose lists
    std::int32_t entry;  // of each list
    std::int32_t slot;   // first slot, 0..63
    std::int32_t token_count;
    std::int32_t row;  // of the first token in k and v
};

// What a layer call brings, taken from where it lies: k and v into the pages of one KV layer, q to where the decode kernels read it.
//
//   Shapes  k, v    [row_count, heads of a row, head_dim] in `dtype`, token-major, of which kv_heads from `first_kv_head` on are taken; empty where
//                   the layer owns no KV
//           lists   [items][kv_heads]
//           q       [row_count, bytes of a row], of which what q_copy has from `q_offset_bytes` on is copied to
//           q_copy  [row_count, bytes of a row]; both empty where that is not wanted
//   Memory  k, v and q may lie in device memory or in mapped host memory, all aligned to 16 bytes.
//   Rule    runs stay within their pages and lists, and no two of them name the same slot. In fp8 they are as of an append in fp8_pages.h.
//   Async   queued on `stream`; buffers outlive the work queued there. May be captured in a graph.
//   Errors  std::invalid_argument where sizes disagree, head_dim is not a multiple of 8 from 8 to 256, or the dtype is not bf16 or f16 and
//           kv_dtype fp8; CudaError where the launch is refused. What lies in device memory cannot be checked.
//   Cost    one launch; one read and one write of every byte / the bandwidth of where it lies.
struct StepInputs {
    int kv_heads;
    int head_dim;
    Dtype dtype;
    KvDtype kv_dtype = KvDtype::as_model;
    int row_count;
    PageSlab slab;
    DeviceSpan<const PageEntry> entries;
    DeviceSpan<const PageList> lists;
    int kv_layer;
    int first_kv_head = 0;
    int q_offset_bytes = 0;  // in each row
    DeviceSpan<const ListRun> runs;
    DeviceSpan<const std::byte> k;
    DeviceSpan<const std::byte> v;
    DeviceSpan<const std::byte> q;
    DeviceSpan<std::byte> q_copy;
};
void take_step_inputs(const StepInputs& work, Stream stream);

}  // namespace kvgrid::kernels
