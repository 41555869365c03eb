// attention_cpu equals the fp64 reference within the rounding of f32 (AttentionCase::tolerance), whatever the shape,
// the masks, the order of pages, the number of threads and the instruction set; rows that see nothing are exactly 0;
// nothing else is written; slots that hold no token are NaN throughout and never reach a result.

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <stdexcept>

#include "kernels/simd_targets.h"
#include "tests/unit/kernels/attention_case.h"
#include "tests/unit/kernels/test_seed.h"
// The targets' list comes first.
#include "hwy/highway.h"

namespace kvgrid::kernels {

void AttentionCase::run_and_compare(ThreadPool& threads) {
    run_and_compare([&](const Attention& work) { attention_cpu(work, threads); }, 0);
}

namespace {

constexpr std::array kDtypes = {Dtype::f32, Dtype::f16, Dtype::bf16};

class AttentionCpu : public testing::Test {
  protected:
    void compare(const TestShape& shape) {
        AttentionCase batch(shape, seed_);
        batch.run_and_compare(one_);
        if (!HasFatalFailure()) batch.run_and_compare(four_);
    }

    std::uint64_t seed_ = test_seed();
    ThreadPool one_{1};
    ThreadPool four_{4};
};

// Lengths around the borders of pages, one decode each.
std::vector<TestItem> border_items() {
    std::vector<TestItem> items;
    for (int length : {1, 63, 64, 65, 127, 128, 129}) items.push_back({.length = length});
    return items;
}

TEST_F(AttentionCpu, AgreesForEveryDtypeAndHeadSize) {
    for (Dtype dtype : kDtypes) {
        for (int head_dim : {32, 40, 64, 96, 128, 200, 256}) {
            compare({.dtype = dtype, .head_dim = head_dim, .items = border_items()});
        }
    }
}

TEST_F(AttentionCpu, AgreesForEveryGroup) {
    for (Dtype dtype : kDtypes) {
        for (int group : {1, 3, 4, 7, 8, 16, 65}) {
            compare({.dtype = dtype, .kv_heads = 1, .group = group, .items = {{.length = 300}, {.length = 64}}});
        }
    }
}

TEST_F(AttentionCpu, AgreesForLongStreams) {
    for (Dtype dtype : kDtypes) {
        compare({.dtype = dtype, .head_dim = 32, .kv_heads = 1, .items = {{.length = 4000}, {.length = 18000}}});
    }
}

TEST_F(AttentionCpu, AgreesForChunks) {
    for (Dtype dtype : kDtypes) {
        for (int query_count : {2, 5, 64, 130}) {
            const TestItem from_nothing{.length = query_count, .query_count = query_count};
            const TestItem on_top{.length = 150 + query_count, .query_count = query_count};
            compare({.dtype = dtype, .head_dim = 40, .kv_heads = 1, .items = {from_nothing, on_top}});
        }
    }
}

TEST_F(AttentionCpu, AgreesForRaggedBatches) {
    const std::vector<TestItem> items = {{.length = 1000},
                                         {.length = 0, .query_count = 0},
                                         {.length = 70, .query_count = 70},
                                         {.length = 64, .query_count = 0},
                                         {.length = 129, .query_count = 5},
                                         {.length = 1}};
    for (Dtype dtype : kDtypes) compare({.dtype = dtype, .items = items});
}

TEST_F(AttentionCpu, SeesOnlyThePagesOfItsSequencePart) {
    for (Dtype dtype : kDtypes) {
        for (int part = 0; part < 3; ++part) {
            compare({.dtype = dtype,
                     .items = {{.length = 1000, .part_count = 3, .part = part},
                               {.length = 70, .query_count = 70, .part_count = 3, .part = part},
                               {.length = 300, .query_count = 130, .part_count = 3, .part = part}}});
        }
    }
}

TEST_F(AttentionCpu, AgreesForWindowsAndSinks) {
    for (int window : {1, 5, 64, 100}) {
        for (int sinks : {0, 1, 4, 70}) {
            compare({.dtype = Dtype::bf16,
                     .head_dim = 32,
                     .group = 2,
                     .items = {{.length = 400, .window = window, .sinks = sinks},
                               {.length = 130, .query_count = 130, .window = window, .sinks = sinks},
                               {.length = 1000, .query_count = 5, .window = window, .sinks = sinks},
                               {.length = 333, .query_count = 66, .window = window, .sinks = sinks, .part_count = 2}}});
        }
    }
}

TEST_F(AttentionCpu, AgreesWithASoftCap) {
    for (Dtype dtype : kDtypes) {
        for (float soft_cap : {1.0f, 30.0f}) {
            compare({.dtype = dtype,
                     .soft_cap = soft_cap,
                     .key_size = 10,
                     .items = {{.length = 200}, {.length = 70, .query_count = 6}}});
        }
    }
}

TEST_F(AttentionCpu, SeesNothingBeforeTheFirstTokenWhenStrictlyEarlier) {
    for (Dtype dtype : kDtypes) {
        const TestShape shape{.dtype = dtype,
                              .strictly_earlier = true,
                              .items = {{.length = 1}, {.length = 66, .query_count = 66}, {.length = 129}}};
        AttentionCase batch(shape, seed_);

        batch.run_and_compare(four_);

        const std::size_t row = batch.output_row(0, 0, 0);
        EXPECT_EQ(batch.lse()[row], -std::numeric_limits<float>::infinity());
        EXPECT_EQ(batch.partial()[row * shape.head_dim], 0);
    }
}

TEST_F(AttentionCpu, ReturnsTheValueOfADominantKey) {
    for (Dtype dtype : kDtypes) {
        AttentionCase batch({.dtype = dtype, .kv_heads = 1, .group = 1, .items = {{.length = 500}}}, seed_);
        batch.set_query(0, 0, 0, std::vector<float>(64, 4.0f));
        batch.set_key(0, 0, 77, std::vector<float>(64, 32.0f));
        batch.set_value(0, 0, 77, std::vector<float>(64, 3.0f));

        batch.run_and_compare(four_);

        EXPECT_EQ(batch.partial()[batch.output_row(0, 0, 0) * 64], 3.0f);
    }
}

TEST_F(AttentionCpu, AveragesTheValuesOfEqualKeys) {
    for (Dtype dtype : kDtypes) {
        AttentionCase batch({.dtype = dtype, .kv_heads = 1, .group = 4, .items = {{.length = 1000}}}, seed_);
        for (int token = 0; token < 1000; ++token) batch.set_key(0, 0, token, std::vector<float>(64, 0.5f));

        batch.run_and_compare(four_);
    }
}

TEST_F(AttentionCpu, StaysFiniteForLargeLogits) {
    // |q.k| of normal rows of 64 elements is about 8; times 1 / 8 that is 1; keys of size 10,000 make logits of
    // +-10,000.
    for (Dtype dtype : kDtypes) {
        compare({.dtype = dtype, .key_size = 1e4, .items = {{.length = 600}, {.length = 90, .query_count = 20}}});
    }
}

TEST_F(AttentionCpu, ShowsANaNOfAVisibleKey) {
    for (Dtype dtype : kDtypes) {
        AttentionCase batch({.dtype = dtype, .kv_heads = 1, .group = 1, .items = {{.length = 100}}}, seed_);
        batch.run_and_compare(four_);
        batch.set_key(0, 0, 50, std::vector<float>(64, std::numeric_limits<float>::quiet_NaN()));

        attention_cpu(batch.work(), four_);

        EXPECT_TRUE(std::isnan(batch.partial()[batch.output_row(0, 0, 0) * 64]));
        EXPECT_TRUE(std::isnan(batch.lse()[batch.output_row(0, 0, 0)]));
    }
}

// Token 95 is newer than most queries, token 30 has left the window of the newest ones; all are in pages that other rows see.
TEST_F(AttentionCpu, ShowsANaNOfAValueOnlyToTheRowsThatSeeIt) {
    for (Dtype dtype : kDtypes) {
        AttentionCase batch({.dtype = dtype, .items = {{.length = 100, .query_count = 20, .window = 64}}}, seed_);
        batch.run_and_compare(four_);
        const std::vector<float> nan(64, std::numeric_limits<float>::quiet_NaN());
        batch.set_value(0, 0, 95, nan);
        batch.set_value(0, 0, 30, nan);

        attention_cpu(batch.work(), four_);

        for (int query = 0; query < 20; ++query) {
            const int order = 80 + query;
            const bool sees_one = order >= 95 || order - 64 < 30;
            for (int head = 0; head < 3; ++head) {
                const float element = batch.partial()[batch.output_row(0, query, head) * 64];
                EXPECT_EQ(std::isnan(element), sees_one) << name_of(dtype) << " query " << order << " head " << head;
            }
        }
    }
}

TEST_F(AttentionCpu, IsTheSameToTheBitWhenRepeated) {
    AttentionCase batch({.items = {{.length = 20000}, {.length = 1200, .query_count = 100}}}, seed_);
    batch.run_and_compare(four_);
    const std::vector<float> first = batch.partial();

    batch.run_and_compare(four_);

    // Unnamed rows are NaN, hence bytes.
    EXPECT_TRUE(std::equal(first.begin(), first.end(), batch.partial().begin(), [](float a, float b) {
        return std::bit_cast<std::uint32_t>(a) == std::bit_cast<std::uint32_t>(b);
    }));
}

// The instruction sets that the kernels are compiled for and this machine has, one at a time.
// A sequence alone, on one thread, and among others, on four: the cuts of the plan must not show.
TEST_F(AttentionCpu, IsTheSameToTheBitInEveryBatchWhenDeterministic) {
    AttentionCase batch(
        {.dtype = Dtype::bf16,
         .items = {{.length = 20'000}, {.length = 700, .query_count = 300}, {.length = 9000, .query_count = 2}}},
        seed_);
    const auto attend = [&](Attention work) {
        work.deterministic = true;
        attention_cpu(work, four_);
    };
    batch.run_and_compare(attend, 0);
    const std::vector<float> among_others = batch.partial();
    for (int item = 0; item < 3; ++item) {
        Attention work = batch.work();
        work.deterministic = true;
        const AttentionItem alone = work.items[item];
        work.items = {&alone, 1};
        attention_cpu(work, one_);
        const std::size_t first = batch.output_row(item, 0, 0) * 64,
                          count = std::size_t{1} * alone.query_count * 6 * 64;
        EXPECT_TRUE(std::equal(among_others.begin() + first, among_others.begin() + first + count,
                               batch.partial().begin() + first));
    }
}

TEST_F(AttentionCpu, AgreesOnEveryInstructionSet) {
    const std::int64_t available = hwy::SupportedTargets() & HWY_TARGETS;
    for (std::int64_t rest = available; rest != 0; rest &= rest - 1) {
        const std::int64_t target = rest & -rest;
        SCOPED_TRACE(hwy::TargetName(target));
        hwy::SetSupportedTargetsForTest(target);
        hwy::GetChosenTarget().DeInit();
        for (Dtype dtype : kDtypes) {
            for (int head_dim : {40, 64, 200}) {
                const TestShape shape{.dtype = dtype,
                                      .head_dim = head_dim,
                                      .kv_heads = 1,
                                      .group = 5,
                                      .soft_cap = head_dim == 40 ? 2.0f : 0.0f,
                                      .items = {{.length = 330}, {.length = 100, .query_count = 9, .window = 70}}};
                AttentionCase(shape, seed_).run_and_compare(one_);
            }
        }
    }
    hwy::SetSupportedTargetsForTest(0);
    hwy::GetChosenTarget().DeInit();
}

// Every call below breaks one promise; the outputs must keep their poison.
class AttentionArguments : public AttentionCpu {
  protected:
    template <class Break>
    void refuse(const char* what, const Break& break_promise) {
        SCOPED_TRACE(what);
        AttentionCase batch({.items = {{.length = 100, .query_count = 2}}}, seed_);
        batch.run_and_compare(one_);
        const std::vector<float> before = batch.partial();
        Attention work = batch.work();
        std::vector<AttentionItem> items(work.items.begin(), work.items.end());
        work.items = items;

        break_promise(work, items[0]);

        EXPECT_THROW(attention_cpu(work, one_), std::invalid_argument);
        EXPECT_EQ(std::memcmp(before.data(), batch.partial().data(), before.size() * sizeof(float)), 0);
    }
};

TEST_F(AttentionArguments, AreRefusedWhenTheyBreakARule) {
    const PageEntry no_tokens{0, 0, 0};
    const PageEntry too_many{0, 65, 0};
    const std::array<PageEntry, 2> disordered = {{{0, 64, 64}, {1, 64, 0}}};
    std::vector<std::span<const PageEntry>> streams(2);
    using Work = Attention;
    using Item = AttentionItem;
    refuse("q", [](Work& work, Item&) { work.q = work.q.first(work.q.size() - 1); });
    refuse("partial", [](Work& work, Item&) { work.partial = work.partial.first(8); });
    refuse("lse", [](Work& work, Item&) { work.lse = work.lse.first(1); });
    refuse("kv_heads", [](Work& work, Item&) { work.heads.kv_heads = 4; });
    refuse("head_dim", [](Work& work, Item&) { work.heads.head_dim = 24; });
    refuse("scale 0", [](Work& work, Item&) { work.scale = 0; });
    refuse("scale infinite", [](Work& work, Item&) { work.scale = std::numeric_limits<float>::infinity(); });
    refuse("soft_cap", [](Work& work, Item&) { work.soft_cap = -1; });
    refuse("page_bytes", [](Work& work, Item&) { work.slab.page_bytes -= 1; });
    refuse("slab", [](Work& work, Item&) { work.slab.base = nullptr; });
    refuse("query_count", [](Work&, Item& item) { item.query_count = -1; });
    refuse("first_row", [](Work&, Item& item) { item.first_row = -1; });
    refuse("rows", [](Work&, Item& item) { item.query_count = 1000; });
    refuse("window", [](Work&, Item& item) { item.window = -1; });
    refuse("streams", [](Work&, Item& item) { item.streams = item.streams.first(1); });
    refuse("no tokens", [&](Work&, Item& item) { streams[0] = {&no_tokens, 1}, item.streams = streams; });
    refuse("too many tokens", [&](Work&, Item& item) { streams[0] = {&too_many, 1}, item.streams = streams; });
    refuse("order", [&](Work&, Item& item) { streams[0] = disordered, item.streams = streams; });
}

}  // namespace
}  // namespace kvgrid::kernels
