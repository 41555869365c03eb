// What only decodes over fp8 can get wrong: queries that f16 cannot hold, each row with a unit of its own, and pages whose scales differ by many
// powers of two. Everything else is decode_gpu_test.cpp's, over both kinds of pages.

#include <algorithm>
#include <cmath>
#include <random>
#include <stdexcept>

#include "tests/unit/kernels/cuda/decode_gpu_fixture.h"

namespace kvgrid::kernels {
namespace {

class DecodeFp8Gpu : public DecodeGpu {
  protected:
    DecodeFp8Gpu() { kv_dtype_ = KvDtype::fp8_e4m3; }

    std::vector<float> normal_row(int head_dim, double size) {
        std::normal_distribution<double> normal(0, size);
        std::vector<float> row(head_dim);
        for (float& element : row) element = static_cast<float>(normal(random_));
        return row;
    }

    std::mt19937_64 random_{seed_};
};

// Logits are of the usual size, or 0; the sizes of the rows of a unit differ.
TEST_F(DecodeFp8Gpu, TakesQueriesBeyondTheRangeOfF16) {
    constexpr double kSizes[] = {1e8, 1, 3e5, 1e-8, 1e7};
    for (int head_dim : {64, 96, 128, 256}) {
        for (int query_count : {1, 3, 8}) {
            AttentionCase batch({.dtype = Dtype::bf16,
                                 .head_dim = head_dim,
                                 .kv_heads = 2,
                                 .group = 4,
                                 .key_size = 1e-8,
                                 .items = {{.length = 700, .query_count = query_count}}},
                                seed_);
            for (int query = 0; query < query_count; ++query) {
                for (int head = 0; head < 8; ++head) {
                    batch.set_query(0, query, head, normal_row(head_dim, kSizes[(query + head) % 5]));
                }
            }
            const bool fits = head_dim < 256 || query_count <= 4;
            compare(batch, Dtype::bf16, fits ? DecodePath::one_pass : DecodePath::several_passes);
        }
    }
}

// Pages of values from 1e-6 to 1e6 in turn; all but the smallest have keys that weigh nothing, before and after those that count.
TEST_F(DecodeFp8Gpu, KeepsSmallValuesBesidePagesOfLargeOnes) {
    constexpr int kHeadDim = 128, kPages = 40;
    constexpr double kSmallest = 1e-6;
    for (Dtype dtype : kDtypes) {
        AttentionCase batch({.dtype = dtype,
                             .head_dim = kHeadDim,
                             .kv_heads = 1,
                             .group = 1,
                             .items = {{.length = kPages * kPageTokens}}},
                            seed_);
        batch.set_query(0, 0, 0, std::vector<float>(kHeadDim, 1.0f));
        for (int token = 0; token < kPages * kPageTokens; ++token) {
            const int size = token / kPageTokens * 5 % 7;
            const double value_max = dtype == Dtype::f16 ? 1e4 : 1e6;
            batch.set_value(0, 0, token, normal_row(kHeadDim, std::min(value_max, kSmallest * std::pow(100, size))));
            batch.set_key(0, 0, token, std::vector<float>(kHeadDim, size == 0 ? 0.0f : -30.0f));
        }
        batch.change_blocks(round_through_fp8);

        for (int block_count : {1, 5}) {
            batch.run_and_compare(
                [&](const Attention& work) {
                    DecodeOnGpu::run(work, kv_dtype_, {.block_count = block_count});
                    std::vector<double> partial(work.partial.size()), lse(work.lse.size());
                    attention_reference(work, partial, lse);
                    const std::size_t row = batch.output_row(0, 0, 0);
                    for (std::size_t at = row * kHeadDim; at < (row + 1) * kHeadDim; ++at) {
                        // Weights are rounded to f16; a value is at most some 5 times their size.
                        EXPECT_NEAR(work.partial[at], partial[at], 0x1p-11 * 5 * kSmallest);
                    }
                },
                unit_roundoff(Dtype::f16));
        }
    }
}

// Nothing is launched, so the memory need not be there.
TEST_F(DecodeFp8Gpu, RefusesChunksWithoutAScratchForOneStream) {
    alignas(128) static std::byte memory[64];
    const DecodeShape shape{.heads = {4, 2, 64}, .query_count_max = 1, .chunk_query_count_max = 20};
    Decode work{.shape = shape, .dtype = Dtype::bf16, .kv_dtype = KvDtype::fp8_e4m3, .scale = 0.125f, .row_count = 20};
    work.slab = {memory, 2 * 64 * 64 + 128};
    work.items.size = 1;
    work.lists.size = 2;
    work.chunk_count = 1;
    work.q = {memory, 20 * 4 * 64 * 2};
    work.workspace = {reinterpret_cast<float*>(memory), decode_workspace_floats(shape, 0)};
    work.list_pages_max = 3;
    work.scratch = {memory, decode_scratch_bytes(shape, 3, 1) - 1};
    EXPECT_THROW(decode(work, nullptr), std::invalid_argument);

    work.scratch.size += 1;
    work.list_pages_max = 0;
    EXPECT_THROW(decode(work, nullptr), std::invalid_argument);
}

}  // namespace
}  // namespace kvgrid::kernels
