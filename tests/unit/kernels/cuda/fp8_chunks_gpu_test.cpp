// Chunks over pages of fp8 elements equal the fp64 reference over the numbers that the pages hold, for every head size: whole items and single
// heads at a time, as the scratch has room for three streams; beside decodes; with windows, sinks, parts and caps. In f16 they go the general way.

#include "tests/unit/kernels/cuda/decode_gpu_fixture.h"

namespace kvgrid::kernels {
namespace {

class Fp8ChunksGpu : public DecodeGpu {
  protected:
    Fp8ChunksGpu() { kv_dtype_ = KvDtype::fp8_e4m3; }
};

TEST_F(Fp8ChunksGpu, AgreeForEveryHeadSizeAndNumberOfHeads) {
    for (int head_dim : {64, 96, 128, 256}) {
        for (int kv_heads : {1, 2, 4}) {
            std::vector<TestItem> items;
            for (int length : {9, 64, 65, 130, 300, 700}) items.push_back({.length = length, .query_count = 9});
            compare({.dtype = Dtype::bf16, .head_dim = head_dim, .kv_heads = kv_heads, .group = 3, .items = items},
                    DecodePath::chunks, {0});
        }
    }
}

TEST_F(Fp8ChunksGpu, AgreeBesideDecodes) {
    compare({.dtype = Dtype::bf16,
             .head_dim = 128,
             .items = {{.length = 1000},
                       {.length = 0, .query_count = 0},
                       {.length = 70, .query_count = 70},
                       {.length = 2000, .query_count = 130}}},
            DecodePath::one_pass, {0});
}

TEST_F(Fp8ChunksGpu, AgreeForWindowsSinksPartsAndCaps) {
    for (int window : {1, 64, 100}) {
        for (int sinks : {0, 4, 70}) {
            compare({.dtype = Dtype::bf16,
                     .head_dim = 128,
                     .group = 2,
                     .items = {{.length = 400, .query_count = 40, .window = window, .sinks = sinks},
                               {.length = 130, .query_count = 130, .window = window, .sinks = sinks},
                               {.length = 333, .query_count = 66, .window = window, .sinks = sinks, .part_count = 2}}},
                    DecodePath::chunks, {0});
        }
    }
    compare({.dtype = Dtype::bf16, .soft_cap = 30, .key_size = 10, .items = {{.length = 200, .query_count = 60}}},
            DecodePath::chunks, {0});
    compare({.dtype = Dtype::bf16, .strictly_earlier = true, .items = {{.length = 90, .query_count = 90}}},
            DecodePath::chunks, {0});
}

TEST_F(Fp8ChunksGpu, GoTheGeneralWayInF16) {
    compare({.dtype = Dtype::f16, .head_dim = 128, .items = {{.length = 200, .query_count = 60}}}, DecodePath::general,
            {0});
}

}  // namespace
}  // namespace kvgrid::kernels
