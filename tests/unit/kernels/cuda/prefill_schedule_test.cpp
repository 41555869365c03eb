// A schedule of chunks covers every visible page of every tile exactly once, in parts that lie in order; a part waits only for blocks of lower
// index, and no two parts hand over in the same slot. Shown on random ragged batches with windows and missing pages. Few tiles are cut to
// fill the SMs, many are left whole. No GPU is needed: the device runs the same functions.

#include "kernels/cuda/prefill_schedule.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>
#include <tuple>
#include <utility>
#include <vector>

#include "kernels/cuda/prefill_schedule_rules.h"
#include "tests/unit/kernels/test_seed.h"

namespace kvgrid::kernels {
namespace {

struct ChunkSpec {
    int length = 0;
    int query_count = 9;
    std::int64_t window = 0;
    int part_count = 1;  // of the sequence: the pages that are there
};

struct TestChunks {
    DecodeShape shape;
    std::vector<DecodeItem> items;
    std::vector<PageList> lists;
    std::vector<PageEntry> entries;

    PrefillBatch view(int multiprocessor_count) const {
        return {.shape = shape,
                .items = {items.data(), items.size()},
                .lists = {lists.data(), lists.size()},
                .entries = {entries.data(), entries.size()},
                .multiprocessor_count = multiprocessor_count};
    }
};

TestChunks make_chunks(const HeadShape& heads, const std::vector<ChunkSpec>& specs) {
    TestChunks made{{.heads = heads, .query_count_max = 1}, {}, {}, {}};
    int row = 0;
    for (const ChunkSpec& spec : specs) {
        made.shape.chunk_query_count_max = std::max(made.shape.chunk_query_count_max, spec.query_count);
        made.items.push_back({spec.length - spec.query_count, spec.window, 0, spec.query_count, row});
        row += spec.query_count;
        for (int head = 0; head < heads.kv_heads; ++head) {
            const int first = static_cast<int>(made.entries.size());
            for (int token = 0; token < spec.length; token += kPageTokens * spec.part_count) {
                const int count = std::min(kPageTokens, spec.length - token);
                made.entries.push_back({0, static_cast<std::uint32_t>(count), token});
            }
            made.lists.push_back({first, static_cast<int>(made.entries.size()) - first});
        }
    }
    return made;
}

int used_blocks(const std::vector<PrefillBlock>& blocks) {
    return static_cast<int>(std::ranges::count_if(blocks, [](const auto& block) { return block.unit.row_count > 0; }));
}

class PrefillScheduleTest : public testing::Test {
  protected:
    int below(int end) { return static_cast<int>(random_() % end); }

    TestChunks random_chunks() {
        const int kv_heads = 1 + below(4);
        std::vector<ChunkSpec> specs(1 + below(6));
        for (ChunkSpec& spec : specs) {
            spec.query_count = 1 + below(400);
            spec.length = spec.query_count + below(below(2) == 0 ? 300 : 60000);
            if (below(3) == 0) spec.window = 1 + below(3000);
            spec.part_count = 1 + below(3);
        }
        return make_chunks({kv_heads * (1 + below(12)), kv_heads, 128}, specs);
    }

    std::mt19937_64 random_{test_seed()};
};

TEST_F(PrefillScheduleTest, CoversEachPageOfEachTileOnceInPartsThatLieInOrder) {
    for (int turn = 0; turn < 60; ++turn) {
        const TestChunks chunks = random_chunks();
        const PrefillBatch batch = chunks.view(1 + below(140));
        std::map<std::tuple<int, int, int>, std::pair<int, int>> reached;  // tile -> next part, next page
        std::set<int> slots;
        int rows = 0;

        const std::vector<PrefillBlock> blocks = plan_prefill(batch);

        for (int index = 0; index < static_cast<int>(blocks.size()); ++index) {
            const PrefillBlock& block = blocks[index];
            if (block.unit.row_count == 0) continue;
            auto& [part, page] = reached[{block.unit.kv_head, block.unit.query_row, block.unit.first_head}];
            EXPECT_EQ(block.part, part++);
            EXPECT_EQ(block.first_page, page);
            page = block.end_page;
            if (block.is_last_part()) {
                EXPECT_EQ(page, block.unit.page_count);
                rows += block.unit.row_count;
            } else {
                EXPECT_EQ(page % 2, 0);
            }
            EXPECT_EQ(block.slot_of(block.part), index);
            if (block.part_count > 1) {
                EXPECT_TRUE(slots.insert(index).second);
                EXPECT_LT(index, kPrefillCutBlocks);
            }
        }
        int expected_rows = 0;
        for (const DecodeItem& item : chunks.items) expected_rows += item.query_count * chunks.shape.heads.query_heads;
        EXPECT_EQ(rows, expected_rows);
    }
}

TEST_F(PrefillScheduleTest, CutsFewLongTilesForAllSms) {
    const TestChunks chunks = make_chunks({32, 8, 128}, {{.length = 16384, .query_count = 128}});  // 32 tiles

    EXPECT_EQ(used_blocks(plan_prefill(chunks.view(132))), 4 * 32);
    EXPECT_EQ(used_blocks(plan_prefill(chunks.view(32))), 32);
}

TEST_F(PrefillScheduleTest, LeavesManyTilesAndShortOnesWhole) {
    const TestChunks many = make_chunks({32, 8, 128}, {{.length = 131072, .query_count = 2048}});
    const TestChunks brief = make_chunks({32, 8, 128}, {{.length = 333, .query_count = 333}});

    EXPECT_EQ(used_blocks(plan_prefill(many.view(132))), 512);
    EXPECT_EQ(used_blocks(plan_prefill(brief.view(132))), 8 * 11);
}

// One long sequence beside short ones must not keep one SM longer than the others.
TEST_F(PrefillScheduleTest, CutsTheLongTilesOfARaggedBatch) {
    const TestChunks chunks = make_chunks(
        {32, 8, 128}, {{.length = 65536, .query_count = 32}, {.length = 2000, .query_count = 32}, {.length = 900}});
    int longest = 0;

    for (const PrefillBlock& block : plan_prefill(chunks.view(132))) {
        longest = std::max(longest, block.end_page - block.first_page);
    }

    EXPECT_LE(longest, 1024 / 12);
}

TEST_F(PrefillScheduleTest, FindsPagesAsALinearSearchDoes) {
    for (int turn = 0; turn < 300; ++turn) {
        std::vector<PageEntry> entries(1 + below(40));
        std::int64_t token = 64 * below(3);
        const bool is_even = below(2) == 0;
        for (PageEntry& entry : entries) {
            entry.first_token = token;
            token += 64 * (is_even ? 1 : 1 + below(4));
        }
        const int begin = below(static_cast<int>(entries.size())), end = static_cast<int>(entries.size());
        const std::int64_t bound = below(static_cast<int>(token) + 200) - 50;
        for (int reach : {0, kPageTokens}) {
            int expected = begin;
            while (expected < end && entries[expected].first_token + reach < bound) ++expected;

            EXPECT_EQ(first_at_or_after(entries.data(), begin, end, bound, reach), expected);
        }
    }
}

}  // namespace
}  // namespace kvgrid::kernels
