// Chunks equal the fp64 reference within the rounding of f32 sums and of the weights, for every head size and group, whole and cut into parts,
// beside decodes, and with windows, sinks, caps and missing pages; slots that hold no token are NaN throughout and never reach a result. The
// device's schedule is the host's, byte by byte.

#include "tests/unit/kernels/cuda/decode_gpu_fixture.h"

namespace kvgrid::kernels {
namespace {

constexpr int kHeadDims[] = {64, 96, 128, 256};

// Streams are cut as if the GPU had so many SMs; 0: as it is.
class ChunksGpu : public DecodeGpu {
  protected:
    void compare_chunks(TestShape shape, std::initializer_list<int> multiprocessor_counts = {0}) {
        bool has_decodes = false;
        for (const TestItem& item : shape.items) has_decodes |= item.query_count <= DecodeOnGpu::kQueriesMax;
        compare(shape, has_decodes ? DecodePath::one_pass : DecodePath::chunks, multiprocessor_counts);
    }
};

TEST_F(ChunksGpu, AgreeForEveryHeadSizeGroupAndLengthsAroundTheBordersOfPages) {
    for (Dtype dtype : kDtypes) {
        for (int head_dim : kHeadDims) {
            for (int group : {1, 3, 4, 7, 16}) {
                std::vector<TestItem> items;
                for (int length : {9, 63, 64, 65, 127, 128, 129, 300})
                    items.push_back({.length = length, .query_count = 9});
                compare_chunks({.dtype = dtype, .head_dim = head_dim, .kv_heads = 1, .group = group, .items = items});
            }
        }
    }
}

TEST_F(ChunksGpu, AgreeFromNothingAndOnTop) {
    for (Dtype dtype : kDtypes) {
        for (int head_dim : kHeadDims) {
            for (int query_count : {9, 64, 130, 257}) {
                const TestItem from_nothing{.length = query_count, .query_count = query_count};
                const TestItem on_top{.length = 500 + query_count, .query_count = query_count};
                compare_chunks(
                    {.dtype = dtype, .head_dim = head_dim, .kv_heads = 2, .group = 3, .items = {from_nothing, on_top}});
            }
        }
    }
}

TEST_F(ChunksGpu, AgreeInAsManyPartsAsSmsLeaveRoomFor) {
    for (Dtype dtype : kDtypes) {
        for (int head_dim : kHeadDims) {
            compare_chunks({.dtype = dtype,
                            .head_dim = head_dim,
                            .kv_heads = 1,
                            .group = 4,
                            .items = {{.length = 9000, .query_count = 40}, {.length = 1300, .query_count = 12}}},
                           {0, 1, 6, 40});
        }
    }
    compare_chunks({.dtype = Dtype::bf16,
                    .head_dim = 128,
                    .kv_heads = 1,
                    .group = 1,
                    .items = {{.length = 20000, .query_count = 150, .window = 9000, .sinks = 700}}});
}

TEST_F(ChunksGpu, AgreeBesideDecodesAndSequencesWithoutNewTokens) {
    const std::vector<TestItem> items = {{.length = 1000},
                                         {.length = 0, .query_count = 0},
                                         {.length = 70, .query_count = 70},
                                         {.length = 64, .query_count = 0},
                                         {.length = 3000, .query_count = 33},
                                         {.length = 129, .query_count = 5},
                                         {.length = 1}};
    for (Dtype dtype : kDtypes) {
        for (int head_dim : kHeadDims) compare_chunks({.dtype = dtype, .head_dim = head_dim, .items = items});
    }
}

TEST_F(ChunksGpu, AgreeForWindowsSinksPartsAndCaps) {
    for (int head_dim : kHeadDims) {
        for (int window : {1, 64, 100}) {
            for (int sinks : {0, 4, 70}) {
                compare_chunks(
                    {.dtype = Dtype::bf16,
                     .head_dim = head_dim,
                     .group = 2,
                     .items = {{.length = 400, .query_count = 40, .window = window, .sinks = sinks},
                               {.length = 130, .query_count = 130, .window = window, .sinks = sinks},
                               {.length = 333, .query_count = 66, .window = window, .sinks = sinks, .part_count = 2}}});
            }
        }
    }
    for (Dtype dtype : kDtypes) {
        for (int head_dim : kHeadDims) {
            const TestShape shape{.dtype = dtype, .head_dim = head_dim};
            TestShape capped = shape, earlier = shape, large = shape;
            capped.soft_cap = 30;
            capped.key_size = 10;
            capped.items = {{.length = 200, .query_count = 60}};
            compare_chunks(capped);
            earlier.strictly_earlier = true;
            earlier.items = {{.length = 90, .query_count = 90}};
            compare_chunks(earlier);
            large.key_size = 1e4;
            large.items = {{.length = 90, .query_count = 20}, {.length = 3000, .query_count = 20}};
            compare_chunks(large);
            for (int part = 0; part < 3; ++part) {
                TestShape parts = shape;
                parts.items = {{.length = 70, .query_count = 70, .part_count = 3, .part = part},
                               {.length = 300, .query_count = 130, .part_count = 3, .part = part}};
                compare_chunks(parts);
            }
        }
    }
}

TEST_F(ChunksGpu, AreTheSameToTheBitWhenRepeated) {
    AttentionCase batch({.dtype = Dtype::bf16,
                         .head_dim = 128,
                         .kv_heads = 1,
                         .items = {{.length = 9000, .query_count = 60}, {.length = 300, .query_count = 20}}},
                        seed_);
    compare(batch, Dtype::bf16, DecodePath::chunks);
    const std::vector<float> first = batch.partial();

    compare(batch, Dtype::bf16, DecodePath::chunks);

    EXPECT_EQ(std::memcmp(first.data(), batch.partial().data(), first.size() * sizeof(float)), 0);
}

}  // namespace
}  // namespace kvgrid::kernels
