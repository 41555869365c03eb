#pragma once

#include <cstddef>

#include "kernels/cuda/prefill_launch.h"

namespace kvgrid::kernels {

// Chunks over pages of fp8 elements: brings the visible pages of some streams into a scratch slab, in bf16, which is exact, makes a schedule
// for those and runs the kernel for chunks over them; again for the next streams, until all are through. Whole items where the scratch holds
// all their heads, otherwise some heads of one item.
struct Fp8Chunks {
    DecodeShape shape;
    DecodeArguments arguments;  // units and blocks are not read; slots are those of chunks
    const DecodeItem* items;
    const PageList* lists;
    int item_count;
    int list_pages_max;  // no list has more
    std::byte* scratch;
    std::size_t scratch_bytes;  // at least fp8_scratch_bytes of one stream
    bool deterministic;
    void (*launch_prefill)(const PrefillWork& work, Stream stream);  // in bf16
};
void launch_fp8_chunks(const Fp8Chunks& chunks, Stream stream);

std::size_t fp8_scratch_bytes(const DecodeShape& shape, int list_pages_max, int stream_count);

}  // namespace kvgrid::kernels
