#pragma once

#include "kernels/cuda/decode_launch.h"
#include "kernels/cuda/prefill_schedule.h"

namespace kvgrid::kernels {

// Chunks: tensor cores, 128 rows at a time. V of visible tokens must be finite: a NaN there reaches all rows that share its tile. Slots that
// hold no token may hold anything. Instantiated in prefill_64.cu and its sisters; decode.cpp lists what exists.
struct PrefillWork {
    DecodeArguments arguments;  // units and blocks are not read; slots are those of chunks
    const PrefillBlock* blocks;
    int block_count;
};
template <int kHeadDim, class Element>
void launch_prefill(const PrefillWork& work, Stream stream);

}  // namespace kvgrid::kernels
