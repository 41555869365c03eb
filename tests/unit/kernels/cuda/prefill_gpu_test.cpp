// Chunks of heads of 128 equal the fp64 reference within the rounding of f32 sums and of the weights, for every group, beside decodes, and with
// windows, sinks, caps and missing pages; slots that hold no token are NaN throughout and never reach a result.

#include "tests/unit/kernels/cuda/decode_gpu_fixture.h"

namespace kvgrid::kernels {
namespace {

class ChunksGpu : public DecodeGpu {
  protected:
    void compare_chunks(TestShape shape) {
        shape.head_dim = 128;
        compare(shape, DecodePath::chunks, {0});
    }
};

TEST_F(ChunksGpu, AgreeForEveryGroupAndLengthsAroundTheBordersOfPages) {
    for (Dtype dtype : kDtypes) {
        for (int group : {1, 3, 4, 7, 16}) {
            std::vector<TestItem> items;
            for (int length : {9, 63, 64, 65, 127, 128, 129, 300})
                items.push_back({.length = length, .query_count = 9});
            compare_chunks({.dtype = dtype, .kv_heads = 1, .group = group, .items = items});
        }
    }
}

TEST_F(ChunksGpu, AgreeFromNothingAndOnTop) {
    for (Dtype dtype : kDtypes) {
        for (int query_count : {9, 64, 130, 257}) {
            const TestItem from_nothing{.length = query_count, .query_count = query_count};
            const TestItem on_top{.length = 500 + query_count, .query_count = query_count};
            compare_chunks({.dtype = dtype, .kv_heads = 2, .group = 3, .items = {from_nothing, on_top}});
        }
    }
}

TEST_F(ChunksGpu, AgreeBesideDecodesAndSequencesWithoutNewTokens) {
    const std::vector<TestItem> items = {{.length = 1000},
                                         {.length = 0, .query_count = 0},
                                         {.length = 70, .query_count = 70},
                                         {.length = 64, .query_count = 0},
                                         {.length = 129, .query_count = 5},
                                         {.length = 1}};
    for (Dtype dtype : kDtypes) compare_chunks({.dtype = dtype, .items = items});
}

TEST_F(ChunksGpu, AgreeForWindowsSinksPartsAndCaps) {
    for (int window : {1, 64, 100}) {
        for (int sinks : {0, 4, 70}) {
            compare_chunks(
                {.dtype = Dtype::bf16,
                 .group = 2,
                 .items = {{.length = 400, .query_count = 40, .window = window, .sinks = sinks},
                           {.length = 130, .query_count = 130, .window = window, .sinks = sinks},
                           {.length = 333, .query_count = 66, .window = window, .sinks = sinks, .part_count = 2}}});
        }
    }
    for (Dtype dtype : kDtypes) {
        compare_chunks({.dtype = dtype, .soft_cap = 30, .key_size = 10, .items = {{.length = 200, .query_count = 60}}});
        compare_chunks({.dtype = dtype, .strictly_earlier = true, .items = {{.length = 90, .query_count = 90}}});
        compare_chunks({.dtype = dtype, .key_size = 1e4, .items = {{.length = 90, .query_count = 20}}});
        for (int part = 0; part < 3; ++part) {
            compare_chunks({.dtype = dtype,
                            .items = {{.length = 70, .query_count = 70, .part_count = 3, .part = part},
                                      {.length = 300, .query_count = 130, .part_count = 3, .part = part}}});
        }
    }
}

}  // namespace
}  // namespace kvgrid::kernels
