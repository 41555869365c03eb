// decode() equals the fp64 reference within the rounding of f32 sums and of the weights (AttentionCase::tolerance), over the same grid as
// attention_cpu and whatever the number of blocks; rows that see nothing are exactly 0; nothing else is written; slots that hold no token
// are NaN throughout and never reach a result; the workspace is left empty. The device's schedule is the host's, byte by byte. All of it
// holds for pages in the dtype of q and for pages of fp8 elements, where the reference works with the numbers that the pages hold.

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <stdexcept>

#include "tests/unit/kernels/cuda/decode_gpu_fixture.h"

namespace kvgrid::kernels {
namespace {

constexpr int kHeadDims[] = {64, 96, 128, 256};

class DecodeOverKv : public DecodeGpu, public testing::WithParamInterface<KvDtype> {
  protected:
    DecodeOverKv() { kv_dtype_ = GetParam(); }
};

INSTANTIATE_TEST_SUITE_P(Kv, DecodeOverKv, testing::Values(KvDtype::as_model, KvDtype::fp8_e4m3),
                         [](const auto& kv) { return std::string(name_of(kv.param)); });

std::vector<TestItem> border_items() {
    std::vector<TestItem> items;
    for (int length : {1, 15, 16, 17, 31, 33, 63, 64, 65, 127, 128, 129}) items.push_back({.length = length});
    return items;
}

TEST_P(DecodeOverKv, AgreesForEveryDtypeAndHeadSize) {
    for (Dtype dtype : kDtypes) {
        for (int head_dim : kHeadDims) {
            for (int group : {1, 8, 9, 16}) {
                compare({.dtype = dtype, .head_dim = head_dim, .group = group, .items = border_items()},
                        DecodePath::one_pass);
            }
        }
    }
}

TEST_P(DecodeOverKv, AgreesForEveryGroup) {
    for (Dtype dtype : kDtypes) {
        for (int group = 1; group <= 16; ++group) {
            compare({.dtype = dtype,
                     .head_dim = 128,
                     .kv_heads = 1,
                     .group = group,
                     .items = {{.length = 300}, {.length = 64}, {.length = 1000}}},
                    DecodePath::one_pass);
        }
    }
}

TEST_P(DecodeOverKv, AgreesForLongStreams) {
    for (Dtype dtype : kDtypes) {
        for (int head_dim : kHeadDims) {
            compare(
                {.dtype = dtype, .head_dim = head_dim, .kv_heads = 1, .items = {{.length = 1000}, {.length = 14500}}},
                DecodePath::one_pass, {0, 1, 3});
        }
    }
}

TEST_P(DecodeOverKv, AgreesForOneToEightNewTokens) {
    for (Dtype dtype : kDtypes) {
        for (int query_count = 1; query_count <= 8; ++query_count) {
            for (int group : {1, 2, 5}) {
                const TestItem from_nothing{.length = query_count, .query_count = query_count};
                const TestItem on_top{.length = 450 + query_count, .query_count = query_count};
                const TestItem across{.length = 127 + query_count / 2, .query_count = query_count};
                const int rows = query_count * group;
                compare({.dtype = dtype,
                         .head_dim = query_count % 2 == 0 ? 128 : 64,
                         .kv_heads = 2,
                         .group = group,
                         .items = {from_nothing, on_top, across}},
                        rows <= 32 ? DecodePath::one_pass : DecodePath::several_passes);
            }
        }
    }
}

TEST_P(DecodeOverKv, AgreesForManyRowsOfAGroup) {
    compare({.dtype = Dtype::bf16,
             .head_dim = 128,
             .kv_heads = 1,
             .group = 16,
             .items = {{.length = 700, .query_count = 8}, {.length = 90, .query_count = 3}, {.length = 65}}},
            DecodePath::several_passes);
}

TEST_P(DecodeOverKv, AgreesForThirtyTwoRowsOfAGroup) {
    for (Dtype dtype : kDtypes) {
        for (int head_dim : kHeadDims) {
            compare({.dtype = dtype,
                     .head_dim = head_dim,
                     .kv_heads = 2,
                     .group = 4,
                     .items = {{.length = 2700, .query_count = 8}, {.length = 90, .query_count = 7}, {.length = 65}}},
                    head_dim == 256 ? DecodePath::several_passes : DecodePath::one_pass);
        }
    }
}

TEST_P(DecodeOverKv, AgreesForRaggedBatches) {
    const std::vector<TestItem> items = {{.length = 3000},
                                         {.length = 0, .query_count = 0},
                                         {.length = 7, .query_count = 4},
                                         {.length = 64, .query_count = 0},
                                         {.length = 129, .query_count = 3},
                                         {.length = 1}};
    for (Dtype dtype : kDtypes) {
        for (int head_dim : kHeadDims) {
            compare({.dtype = dtype, .head_dim = head_dim, .items = items}, DecodePath::one_pass, {0, 1, 2, 5, 64});
        }
    }
}

TEST_P(DecodeOverKv, SeesOnlyThePagesOfItsSequencePart) {
    for (Dtype dtype : kDtypes) {
        for (int part = 0; part < 3; ++part) {
            compare({.dtype = dtype,
                     .head_dim = 128,
                     .items = {{.length = 1000, .part_count = 3, .part = part},
                               {.length = 70, .query_count = 5, .part_count = 3, .part = part},
                               {.length = 300, .query_count = 2, .part_count = 3, .part = part}}},
                    DecodePath::one_pass);
        }
    }
}

TEST_P(DecodeOverKv, AgreesForWindowsAndSinks) {
    for (int window : {1, 5, 64, 100}) {
        for (int sinks : {0, 1, 4, 70}) {
            compare({.dtype = Dtype::bf16,
                     .head_dim = window % 2 == 0 ? 96 : 128,
                     .group = 2,
                     .items = {{.length = 400, .window = window, .sinks = sinks},
                               {.length = 130, .query_count = 8, .window = window, .sinks = sinks},
                               {.length = 1000, .query_count = 5, .window = window, .sinks = sinks},
                               {.length = 333, .query_count = 6, .window = window, .sinks = sinks, .part_count = 2}}},
                    DecodePath::one_pass);
        }
    }
}

TEST_P(DecodeOverKv, AgreesWithASoftCap) {
    for (Dtype dtype : kDtypes) {
        for (float soft_cap : {1.0f, 30.0f}) {
            compare({.dtype = dtype,
                     .head_dim = 128,
                     .soft_cap = soft_cap,
                     .key_size = 10,
                     .items = {{.length = 200}, {.length = 70, .query_count = 5}}},
                    DecodePath::one_pass);
        }
    }
}

TEST_P(DecodeOverKv, SeesNothingBeforeTheFirstTokenWhenStrictlyEarlier) {
    for (Dtype dtype : kDtypes) {
        const TestShape shape{.dtype = dtype,
                              .head_dim = 128,
                              .strictly_earlier = true,
                              .items = {{.length = 1}, {.length = 5, .query_count = 5}, {.length = 129}}};
        AttentionCase batch(shape, seed_);

        compare(batch, dtype, DecodePath::one_pass);

        const std::size_t row = batch.output_row(0, 0, 0);
        EXPECT_EQ(batch.lse()[row], -std::numeric_limits<float>::infinity());
        EXPECT_EQ(batch.partial()[row * shape.head_dim], 0);
    }
}

TEST_P(DecodeOverKv, ReturnsTheValueOfADominantKey) {
    for (Dtype dtype : kDtypes) {
        AttentionCase batch({.dtype = dtype, .head_dim = 128, .kv_heads = 1, .group = 1, .items = {{.length = 5000}}},
                            seed_);
        batch.set_query(0, 0, 0, std::vector<float>(128, 4.0f));
        batch.set_key(0, 0, 777, std::vector<float>(128, 32.0f));
        batch.set_value(0, 0, 777, std::vector<float>(128, 3.0f));

        compare(batch, dtype, DecodePath::one_pass);

        EXPECT_EQ(batch.partial()[batch.output_row(0, 0, 0) * 128], 3.0f);
    }
}

// One key weighs as much as all others together, which are equal and small: their weights must not be lost in the dtype.
TEST_P(DecodeOverKv, AddsUpManySmallWeightsBesideALargeOne) {
    for (Dtype dtype : kDtypes) {
        constexpr int kLength = 16384;
        AttentionCase batch({.dtype = dtype, .head_dim = 64, .kv_heads = 1, .group = 1, .items = {{.length = kLength}}},
                            seed_);
        const float step = 0.125f;  // |q|^2 = 1; a key of k q has the logit k / 8
        batch.set_query(0, 0, 0, std::vector<float>(64, step));
        for (int token = 0; token < kLength; ++token) batch.set_key(0, 0, token, std::vector<float>(64, 0.0f));
        batch.set_key(0, 0, 5, std::vector<float>(64, 77.5f * step));  // logit 9.6875, e^9.6875 = 16115

        compare(batch, dtype, DecodePath::one_pass);
    }
}

TEST_P(DecodeOverKv, AveragesTheValuesOfEqualKeys) {
    for (Dtype dtype : kDtypes) {
        AttentionCase batch({.dtype = dtype, .head_dim = 128, .kv_heads = 1, .group = 4, .items = {{.length = 1000}}},
                            seed_);
        for (int token = 0; token < 1000; ++token) batch.set_key(0, 0, token, std::vector<float>(128, 0.5f));

        compare(batch, dtype, DecodePath::one_pass);
    }
}

TEST_P(DecodeOverKv, StaysFiniteForLargeLogits) {
    for (Dtype dtype : kDtypes) {
        compare({.dtype = dtype,
                 .head_dim = 128,
                 .key_size = 1e4,
                 .items = {{.length = 600}, {.length = 90, .query_count = 5}}},
                DecodePath::one_pass);
    }
}

TEST_P(DecodeOverKv, ShowsANaNOfAVisibleKey) {
    for (Dtype dtype : kDtypes) {
        AttentionCase batch({.dtype = dtype, .head_dim = 128, .kv_heads = 1, .group = 1, .items = {{.length = 900}}},
                            seed_);
        compare(batch, dtype, DecodePath::one_pass);
        batch.set_key(0, 0, 50, std::vector<float>(128, std::numeric_limits<float>::quiet_NaN()));

        DecodeOnGpu::run(batch.work(), kv_dtype_, {});

        EXPECT_TRUE(std::isnan(batch.partial()[batch.output_row(0, 0, 0) * 128]));
        EXPECT_TRUE(std::isnan(batch.lse()[batch.output_row(0, 0, 0)]));
    }
}

// Token 98 is newer than most queries, token 33 has left the window of the newest ones; all are in pages that other rows see.
TEST_P(DecodeOverKv, ShowsANaNOfAValueOnlyToTheRowsThatSeeIt) {
    for (Dtype dtype : kDtypes) {
        AttentionCase batch(
            {.dtype = dtype, .head_dim = 128, .group = 2, .items = {{.length = 100, .query_count = 8, .window = 64}}},
            seed_);
        compare(batch, dtype, DecodePath::one_pass);
        const std::vector<float> nan(128, std::numeric_limits<float>::quiet_NaN());
        batch.set_value(0, 0, 98, nan);
        batch.set_value(0, 0, 33, nan);

        DecodeOnGpu::run(batch.work(), kv_dtype_, {});

        for (int query = 0; query < 8; ++query) {
            const int order = 92 + query;
            const bool sees_one = order >= 98 || order - 64 < 33;
            for (int head = 0; head < 2; ++head) {
                const float element = batch.partial()[batch.output_row(0, query, head) * 128];
                EXPECT_EQ(std::isnan(element), sees_one) << name_of(dtype) << " query " << order << " head " << head;
            }
        }
    }
}

TEST_P(DecodeOverKv, TakesTheGeneralWayWhereThereIsNoKernel) {
    for (Dtype dtype : kDtypes) {
        for (int head_dim : {32, 40, 80, 112, 200}) {
            compare({.dtype = dtype,
                     .head_dim = head_dim,
                     .items = {{.length = 200}, {.length = 70, .query_count = 5, .window = 30, .sinks = 3}}},
                    DecodePath::general, {0});
        }
        compare({.dtype = dtype,
                 .head_dim = 40,
                 .soft_cap = 5,
                 .items = {{.length = 150, .query_count = 30}, {.length = 100}}},
                DecodePath::general, {0});
    }
}

TEST_F(DecodeGpu, ComputesF32TheGeneralWay) {
    for (int head_dim : {32, 40, 128, 256}) {
        compare({.dtype = Dtype::f32,
                 .head_dim = head_dim,
                 .items = {{.length = 300}, {.length = 70, .query_count = 5, .window = 30, .sinks = 3}}},
                DecodePath::general, {0});
    }
}

TEST_P(DecodeOverKv, IsTheSameToTheBitWhenRepeated) {
    AttentionCase batch({.dtype = Dtype::bf16, .head_dim = 128, .items = {{.length = 5000}, {.length = 300}}}, seed_);
    const auto partial_of = [&](std::initializer_list<int> block_counts, std::initializer_list<int> clusters) {
        compare(batch, Dtype::bf16, DecodePath::one_pass, block_counts, clusters);
        return batch.partial();
    };
    const auto are_same = [](const std::vector<float>& a, const std::vector<float>& b) {
        return std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
    };
    EXPECT_TRUE(are_same(partial_of({0}, {}), partial_of({0}, {})));
    for (int parts : {0, 4}) EXPECT_TRUE(are_same(partial_of({}, {parts}), partial_of({}, {parts})));
}

class DecodeGpuArguments : public DecodeGpu {};

// Each call breaks one promise. What is refused launches nothing, so the memory need not be there.
TEST_F(DecodeGpuArguments, AreRefusedWhenTheyBreakARule) {
    alignas(16) static float memory[64];
    const auto spans = [&](Decode& work) {
        work.slab = {reinterpret_cast<std::byte*>(std::uintptr_t{4096}), 2 * 64 * 64 * 2};
        work.q = {reinterpret_cast<std::byte*>(memory), 4 * 64 * 2};
        work.partial = {memory, 4 * 64};
        work.lse = {memory, 4};
        work.items.size = 1;
        work.lists.size = 2;
        work.entries.size = 2;
        work.units.size = 2;
        work.blocks.size = 1;
        work.workspace = {memory, decode_workspace_floats(work.shape, 1)};
    };
    const auto refuse = [&](const char* what, auto break_promise) {
        Decode work{.shape = {{4, 2, 64}, 1}, .dtype = Dtype::bf16, .scale = 0.125f, .row_count = 1};
        spans(work);
        break_promise(work);
        EXPECT_THROW(decode(work, nullptr), std::invalid_argument) << what;
    };
    refuse("f32 over fp8", [](Decode& work) { work.dtype = Dtype::f32, work.kv_dtype = KvDtype::fp8_e4m3; });
    refuse("head_dim", [](Decode& work) { work.shape.heads.head_dim = 24; });
    refuse("kv_heads", [](Decode& work) { work.shape.heads.kv_heads = 3; });
    refuse("scale", [](Decode& work) { work.scale = 0; });
    refuse("soft_cap", [](Decode& work) { work.soft_cap = -1; });
    refuse("queries", [](Decode& work) { work.shape.query_count_max = 0; });
    refuse("page_bytes", [](Decode& work) { work.slab.page_bytes -= 128; });
    refuse("slab", [](Decode& work) { work.slab.base = nullptr; });
    refuse("alignment", [](Decode& work) { work.slab.base += 64; });
    refuse("lists", [](Decode& work) { work.lists.size = 1; });
    refuse("q", [](Decode& work) { work.q.size -= 2; });
    refuse("partial", [](Decode& work) { work.partial.size -= 1; });
    refuse("rounded", [](Decode& work) { work.rounded.size = 2; });
    refuse("lse", [](Decode& work) { work.lse.size = 3; });
    refuse("units", [](Decode& work) { work.units.size = 3; });
    refuse("blocks", [](Decode& work) { work.blocks.size = 0; });
    refuse("workspace", [](Decode& work) { work.workspace.size -= 1; });
    refuse("a block too few of a cluster", [](Decode& work) { work.shape.cut = {UnitCut::Kind::clusters, 4}; });
    refuse("a cluster of too many", [](Decode& work) {
        work.shape.cut = {UnitCut::Kind::clusters, 16};
        work.blocks.size = 32;
    });
    refuse("several small blocks for a unit", [](Decode& work) {
        work.shape.cut = {UnitCut::Kind::small_blocks, 2};
        work.blocks.size = 4;
    });
    refuse("more chunks than items", [](Decode& work) { work.chunk_count = 2; });
    refuse("chunks without a bound", [](Decode& work) { work.chunk_count = 1; });
    refuse("chunk blocks", [](Decode& work) {
        work.chunk_count = 1;
        work.shape.chunk_query_count_max = 9;
        work.workspace.size = decode_workspace_floats(work.shape, 1);
    });
}

}  // namespace
}  // namespace kvgrid::kernels
