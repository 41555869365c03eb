#pragma once

#include <memory>

#include "kernels/attention.h"
#include "kernels/cuda/decode.h"

namespace kvgrid::kernels {

// Attention as decode() computes it on the GPU, with the batch of a CPU call: its pages are rearranged (and quantised, where slots without a
// token become NaN, and so does what is not used of the trailers) and uploaded, items of more than 8 new tokens become chunks, the schedules
// are made there, and partial and lse come back. Outputs are uploaded first, so that what decode() does not write keeps its poison.
class DecodeOnGpu {
  public:
    struct Outcome {
        DecodePath path, chunk_path;
        std::vector<std::byte> rounded;  // [row_count, query_heads, head_dim] in the dtype; poison was NaN
        bool workspace_is_empty;         // as it must be left
        int block_count;                 // of decodes
        int multiprocessor_count;        // that chunks are cut for
        DecodeSchedule schedule;         // as the device made it; empty where there are no decodes
        std::vector<PrefillBlock> chunks;
        // What it is when the rows are joined in the tail with a rank's that has the same ones, of these heads and of as many others: empty where
        // that cannot be.
        std::vector<std::byte> joined, joined_heads;
    };

    // How decodes are cut over blocks.
    struct Cut {
        int block_count = 0;  // of ranges; 0: one block for each SM
        UnitCut units = {};
    };
    static Outcome run(const Attention& work, KvDtype kv_dtype, const Cut& cut);

    static constexpr int kQueriesMax = 8;  // of a decode
};

// The same batch in the form that the host's schedules are made of, decodes first, as the last of several KV layers.
struct DecodeHostBatch {
    static constexpr int kKvLayer = 2;

    explicit DecodeHostBatch(const Attention& work);
    DecodeBatch decodes() const;
    PrefillBatch chunks(int multiprocessor_count) const;

    DecodeShape shape;
    std::vector<DecodeItem> items;
    std::vector<PageList> lists;
    std::vector<PageEntry> entries;
    int chunk_count = 0;

  private:
    void add(const AttentionItem& item);
};

}  // namespace kvgrid::kernels
