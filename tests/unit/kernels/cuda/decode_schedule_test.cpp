// A decode schedule covers every visible page of every unit exactly once, in order; blocks cost the same to within one page; a block
// hands over at most one partial and keeps at most one. Shown against a schedule made page by page, on random ragged batches with windows,
// missing pages and sequences without new tokens. No GPU is needed: the device runs the same functions.

#include "kernels/cuda/decode_schedule.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <utility>
#include <vector>

#include "tests/unit/kernels/test_seed.h"

namespace kvgrid::kernels {
namespace {

struct TestBatch {
    DecodeShape shape;
    std::vector<DecodeItem> items;
    std::vector<PageList> lists;
    std::vector<PageEntry> entries;

    DecodeBatch view() const { return {shape, items, lists, entries}; }
};

struct ItemSpec {
    int length = 0;
    int query_count = 1;
    std::int64_t window = 0;
    std::int64_t sinks = 0;
    int part_count = 1;
};

TestBatch make_batch(const DecodeShape& shape, const std::vector<ItemSpec>& specs) {
    TestBatch batch{shape, {}, {}, {}};
    int row = 0;
    for (const ItemSpec& spec : specs) {
        batch.items.push_back({spec.length - spec.query_count, spec.window, spec.sinks, spec.query_count, row});
        row += spec.query_count;
        for (int head = 0; head < shape.heads.kv_heads; ++head) {
            const int first = static_cast<int>(batch.entries.size());
            for (int token = 0; token < spec.length; token += kPageTokens * spec.part_count) {
                const int count = std::min(kPageTokens, spec.length - token);
                batch.entries.push_back({0, static_cast<std::uint32_t>(count), token});
            }
            batch.lists.push_back({first, static_cast<int>(batch.entries.size()) - first});
        }
    }
    return batch;
}

TestBatch random_batch(std::mt19937_64& random) {
    const auto below = [&](int end) { return static_cast<int>(random() % end); };
    DecodeShape shape{{0, 1 + below(3), 64}, 1 + below(8), below(4) == 0};
    shape.heads.query_heads = shape.heads.kv_heads * (1 + below(16));
    std::vector<ItemSpec> specs(1 + below(12));
    for (ItemSpec& spec : specs) {
        spec.query_count = below(shape.query_count_max + 1);
        spec.length = spec.query_count + below(below(2) == 0 ? 200 : 9000);
        if (below(3) == 0) spec.window = 1 + below(500);
        if (below(2) == 0) spec.sinks = below(150);
        spec.part_count = 1 + below(3);
    }
    return make_batch(shape, specs);
}

// Whether any of the unit's queries sees any token of the page.
bool sees(const DecodeShape& shape, const DecodeUnit& unit, const PageEntry& page) {
    const int group = shape.heads.group();
    for (int row = 0; row < unit.row_count; ++row) {
        const std::int64_t query = unit.first_query + (unit.first_head + row) / group;
        for (std::int64_t key = page.first_token; key < page.first_token + kPageTokens; ++key) {
            const bool earlier = shape.strictly_earlier ? key < query : key <= query;
            const bool in_window = unit.window == 0 || key > query - unit.window || key < unit.sinks;
            if (earlier && in_window) return true;
        }
    }
    return false;
}

struct UnitPages {
    int unit, begin, end;
};

// The pages of a block, in the order in which it walks them.
std::vector<UnitPages> walk(const DecodeSchedule& schedule, const DecodeBlock& block) {
    std::vector<UnitPages> segments;
    int page = block.page;
    for (int unit = block.unit; unit <= block.end_unit; ++unit) {
        if (unit == block.end_unit && block.end_page == page) break;
        const int end = unit == block.end_unit ? block.end_page : schedule.units[unit].page_count;
        segments.push_back({unit, page, end});
        page = 0;
    }
    return segments;
}

class DecodeScheduleTest : public testing::Test {
  protected:
    std::mt19937_64 random_{test_seed()};
};

TEST_F(DecodeScheduleTest, ListsTheVisiblePagesOfEveryUnit) {
    for (int round = 0; round < 60; ++round) {
        const TestBatch batch = random_batch(random_);
        const DecodeSchedule schedule = plan_decode(batch.view(), 7);
        const int per_stream = batch.shape.units_per_stream();
        for (std::size_t index = 0; index < schedule.units.size(); ++index) {
            const DecodeUnit& unit = schedule.units[index];
            if (unit.row_count == 0) continue;
            const PageList list = batch.lists[index / per_stream];
            std::vector<int> expected, listed;
            for (int entry = list.first; entry < list.first + list.count; ++entry) {
                if (sees(batch.shape, unit, batch.entries[entry])) expected.push_back(entry);
            }
            for (int position = 0; position < unit.page_count; ++position) listed.push_back(unit.page_at(position, 0));
            EXPECT_TRUE(std::includes(listed.begin(), listed.end(), expected.begin(), expected.end()));
            // Between the first query's window and the last one's a page may be listed for the rows in between only.
            EXPECT_LE(listed.size(), expected.size() + 1);
        }
    }
}

TEST_F(DecodeScheduleTest, NamesEveryRowOnce) {
    for (int round = 0; round < 60; ++round) {
        const TestBatch batch = random_batch(random_);
        const int group = batch.shape.heads.group();
        std::map<std::pair<int, int>, int> hits;  // (row of q, query head)
        for (const DecodeUnit& unit : plan_decode(batch.view(), 7).units) {
            EXPECT_LE(unit.row_count, batch.shape.unit_rows());
            for (int row = 0; row < unit.row_count; ++row) {
                const int at = unit.first_head + row;
                ++hits[{unit.query_row + at / group, unit.kv_head * group + at % group}];
            }
        }
        std::size_t expected = 0;
        for (const DecodeItem& item : batch.items) expected += item.query_count * batch.shape.heads.query_heads;
        EXPECT_EQ(hits.size(), expected);
        for (const auto& [row, count] : hits) EXPECT_EQ(count, 1);
    }
}

// Made page by page: the block of a page is the last one that begins at or before its cost.
TEST_F(DecodeScheduleTest, EqualsAScheduleMadePageByPage) {
    for (int round = 0; round < 200; ++round) {
        const TestBatch batch = random_batch(random_);
        const int block_count = 1 + static_cast<int>(random_() % 140);
        const DecodeSchedule schedule = plan_decode(batch.view(), block_count);
        std::int64_t total = 0, page_count = 0;
        for (const DecodeUnit& unit : schedule.units) page_count += unit.page_count;
        const int unit_cost = page_count <= kFewPagesPerBlock * block_count ? 0 : kUnitCost;
        for (const DecodeUnit& unit : schedule.units) {
            if (unit.row_count > 0) total += std::max(1, unit.page_count + unit_cost);
        }
        const std::int64_t used = std::min<std::int64_t>(block_count, total);
        const auto block_of = [&](std::int64_t cost) {
            int block = 0;
            while (block + 1 < used && (block + 1) * total / used <= cost) ++block;
            return block;
        };
        std::vector<std::vector<std::pair<int, int>>> expected(block_count), walked(block_count);
        std::vector<int> first_part(schedule.units.size(), -1), last_part(schedule.units.size(), -1);
        std::int64_t cost = 0;
        for (int unit = 0; unit < static_cast<int>(schedule.units.size()); ++unit) {
            if (schedule.units[unit].row_count == 0) continue;
            if (schedule.units[unit].page_count == 0) cost += std::max(1, unit_cost);
            if (schedule.units[unit].page_count > 0) cost += unit_cost;
            for (int page = 0; page < schedule.units[unit].page_count; ++page, ++cost) {
                const int block = block_of(cost);
                expected[block].push_back({unit, page});
                if (page == 0) first_part[unit] = block;
                last_part[unit] = block;
            }
        }
        for (int block = 0; block < block_count; ++block) {
            for (const UnitPages& segment : walk(schedule, schedule.blocks[block])) {
                for (int page = segment.begin; page < segment.end; ++page)
                    walked[block].push_back({segment.unit, page});
            }
            const DecodeBlock& made = schedule.blocks[block];
            if (made.page == 0) continue;
            const int part_count = last_part[made.unit] - first_part[made.unit] + 1;
            EXPECT_EQ(made.first_part, first_part[made.unit]);
            EXPECT_LT(made.first_part, block);
            EXPECT_GE(made.group_parts * made.group_parts, part_count);
            EXPECT_TRUE(made.group_parts == 4 || (made.group_parts - 1) * (made.group_parts - 1) < part_count);
        }
        EXPECT_EQ(walked, expected);
    }
}

// A unit's blocks are the same, alone or among others: its own pages, cut after each kFixedPartPages.
TEST_F(DecodeScheduleTest, DeterministicCutsDependOnTheUnitAlone) {
    for (int round = 0; round < 60; ++round) {
        TestBatch batch = random_batch(random_);
        DecodeBatch view = batch.view();
        view.deterministic = true;
        int needed = 0;
        for (const DecodeUnit& unit : plan_decode(view, 1).units) {
            if (unit.row_count > 0) needed += fixed_part_count(unit.page_count);
        }
        const int spare = static_cast<int>(random_() % 5);
        const DecodeSchedule schedule = plan_decode(view, needed + spare);
        std::map<int, std::vector<UnitPages>> of_unit;
        for (int block = 0; block < needed + spare; ++block) {
            const auto segments = walk(schedule, schedule.blocks[block]);
            if (block >= needed) {
                EXPECT_TRUE(segments.empty());
                continue;
            }
            ASSERT_EQ(segments.size(), 1u);
            of_unit[segments[0].unit].push_back(segments[0]);
            EXPECT_EQ(schedule.blocks[block].first_part,
                      block - static_cast<int>(of_unit[segments[0].unit].size()) + 1);
        }
        for (const auto& [unit, parts] : of_unit) {
            const int page_count = schedule.units[unit].page_count;
            ASSERT_EQ(static_cast<int>(parts.size()), fixed_part_count(page_count));
            for (int part = 0; part < static_cast<int>(parts.size()); ++part) {
                EXPECT_EQ(parts[part].begin, part * kFixedPartPages);
                EXPECT_EQ(parts[part].end, std::min(page_count, (part + 1) * kFixedPartPages));
            }
        }
    }
}

TEST_F(DecodeScheduleTest, FinishesEveryUnitOnceAndHandsOverOnlyTheLast) {
    for (int round = 0; round < 200; ++round) {
        const TestBatch batch = random_batch(random_);
        const DecodeSchedule schedule = plan_decode(batch.view(), 1 + static_cast<int>(random_() % 140));
        std::vector<int> finished(schedule.units.size());
        for (const DecodeBlock& block : schedule.blocks) {
            const std::vector<UnitPages> segments = walk(schedule, block);
            for (std::size_t index = 0; index < segments.size(); ++index) {
                const UnitPages& segment = segments[index];
                const bool ends = segment.end == schedule.units[segment.unit].page_count;
                EXPECT_TRUE(ends || index + 1 == segments.size());
                EXPECT_TRUE(segment.begin == 0 || index == 0);
                if (ends) ++finished[segment.unit];
            }
        }
        for (std::size_t unit = 0; unit < finished.size(); ++unit) {
            if (schedule.units[unit].row_count == 0) continue;
            EXPECT_EQ(finished[unit], 1);
        }
    }
}

TEST_F(DecodeScheduleTest, CutsEachUnitEvenlyOverBlocksOfItsOwn) {
    for (int parts = 1; parts <= UnitCut::kPartsMax; ++parts) {
        TestBatch batch = random_batch(random_);
        batch.shape.cut = {UnitCut::Kind::clusters, parts};
        const int unit_count = batch.view().unit_count();
        const DecodeSchedule schedule =
            plan_decode(batch.view(), static_cast<int>(block_count_of(batch.shape.cut, unit_count, 132)));
        ASSERT_EQ(schedule.blocks.size(), schedule.units.size() * parts);
        for (int unit = 0; unit < unit_count; ++unit) {
            const int pages = schedule.units[unit].page_count;
            int page = 0;
            for (int part = 0; part < parts; ++part) {
                const DecodeBlock& block = schedule.blocks[unit * parts + part];
                EXPECT_EQ(block.unit, unit);
                EXPECT_EQ(block.end_unit, unit);
                EXPECT_EQ(block.page, page);
                page = block.end_page;
                EXPECT_LE(page - block.page, (pages + parts - 1) / parts);
            }
            EXPECT_EQ(page, pages);
        }
    }
}

TEST(BestCut, GivesShortStreamsBlocksOfTheirOwn) {
    constexpr std::size_t kPageBytes = 32 << 10;
    constexpr int kSms = 132;
    const DecodeShape shape{{32, 8, 128}, 1};
    const auto best = [&](std::int64_t sequences, int pages) {
        return best_cut_of(shape, {sequences * 8, sequences * 8 * pages, pages, kPageBytes, kSms});
    };
    const auto clusters = [](int parts) { return UnitCut{UnitCut::Kind::clusters, parts}; };
    EXPECT_EQ(best(1, 16), clusters(8));
    EXPECT_EQ(best(1, 64), clusters(8));
    EXPECT_EQ(best(1, 2048), UnitCut{});
    EXPECT_EQ(best(2, 16), clusters(4));
    EXPECT_EQ(best(8, 64), clusters(2));
    EXPECT_EQ(best(64, 8), (UnitCut{UnitCut::Kind::small_blocks, 1}));
    EXPECT_EQ(best(64, 128), UnitCut{});
    EXPECT_EQ(best_cut_of({{9, 3, 64}, 1}, {24, 24 * 4096, 4096, kPageBytes / 2, kSms}), UnitCut{});
    EXPECT_EQ(best(0, 0), UnitCut{});
    // One long stream beside short ones, and rows that are too many.
    EXPECT_EQ(best_cut_of(shape, {64, 8192 + 63 * 8, 8192, kPageBytes, kSms}), UnitCut{});
    EXPECT_EQ(best_cut_of({{32, 8, 128}, 8}, {8, 128, 16, kPageBytes, kSms}), UnitCut{});
}

TEST(BestCut, LeavesRoomForEveryCluster) {
    const DecodeShape shape{{32, 8, 128}, 1};
    for (int sms : {1, 16, 66, 132}) {
        for (int units = 1; units <= sms; ++units) {
            const UnitCut cut = best_cut_of(shape, {units, units, 1, 32 << 10, sms});
            EXPECT_LE(block_count_of(cut, units, sms), sms);
            EXPECT_GE(imbalance_of(cut, {units, units, 1, 32 << 10, sms}), 1);
        }
    }
}

TEST_F(DecodeScheduleTest, GivesEqualShares) {
    const TestBatch batch = make_batch({{32, 8, 128}, 1}, {{.length = 131072}});
    std::size_t most = 0, least = ~std::size_t{0};
    const DecodeSchedule schedule = plan_decode(batch.view(), 132);
    for (const DecodeBlock& block : schedule.blocks) {
        std::size_t pages = 0;
        for (const UnitPages& segment : walk(schedule, block)) pages += segment.end - segment.begin;
        most = std::max(most, pages);
        least = std::min(least, pages);
    }
    EXPECT_LE(most - least, 1u + kUnitCost);  // rounding, and the cost of a unit
}

TEST_F(DecodeScheduleTest, GivesNoBlockTwoPagesWhereThereIsABlockForEachPage) {
    const TestBatch batch = make_batch({{32, 8, 128}, 1}, {{.length = 1024}});
    const DecodeSchedule schedule = plan_decode(batch.view(), 132);
    for (const DecodeBlock& block : schedule.blocks) {
        for (const UnitPages& segment : walk(schedule, block)) EXPECT_EQ(segment.end - segment.begin, 1);
    }
}

TEST_F(DecodeScheduleTest, LeavesBlocksEmptyWhereThereIsLittleToDo) {
    const TestBatch batch = make_batch({{4, 1, 128}, 1}, {{.length = 65}});
    const DecodeSchedule schedule = plan_decode(batch.view(), 132);
    int busy = 0;
    for (const DecodeBlock& block : schedule.blocks) busy += walk(schedule, block).empty() ? 0 : 1;
    EXPECT_EQ(busy, 2);
    const TestBatch nothing = make_batch({{4, 1, 128}, 1}, {{.length = 65, .query_count = 0}});
    const DecodeSchedule empty = plan_decode(nothing.view(), 4);
    for (const DecodeBlock& block : empty.blocks) EXPECT_TRUE(walk(empty, block).empty());
}

}  // namespace
}  // namespace kvgrid::kernels
