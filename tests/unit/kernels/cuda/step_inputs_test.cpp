// take_step_inputs puts k and v through page lists into exactly the slots that the runs name, in the KV layer that is meant, and copies q;
// update_page_lists changes exactly the entries named. Everything is filled with a pattern beforehand and compared whole.

#include "kernels/cuda/step_inputs.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>
#include <stdexcept>

#include "kernels/cuda/device_buffer.h"
#include "kernels/cuda/device_page_layout.h"
#include "kernels/cuda/page_list_update.h"
#include "tests/unit/kernels/test_seed.h"

namespace kvgrid::kernels {
namespace {

constexpr int kKvHeads = 3;
constexpr int kKvLayers = 3;
constexpr int kItems = 5;
constexpr int kEntries = 4;  // of each list

std::vector<std::byte> random_bytes(std::size_t count, std::mt19937_64& random) {
    std::vector<std::byte> bytes(count);
    for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
    return bytes;
}

template <class T>
DeviceArray<T> upload(const std::vector<T>& values) {
    return DeviceArray<T>(std::span<const T>(values));
}

// Lists as the worker keeps them, [item][KV layer][head][entry], of pages in random order.
struct Lists {
    explicit Lists(std::mt19937_64& random) {
        for (int item = 0; item < kItems; ++item) {
            for (int head = 0; head < kKvHeads; ++head) {
                const int first = (item * kKvLayers * kKvHeads + head) * kEntries;
                lists.push_back({first, kEntries, kKvHeads * kEntries});
            }
        }
        std::vector<std::uint32_t> pages(std::size_t{kItems} * kKvLayers * kKvHeads * kEntries);
        std::iota(pages.begin(), pages.end(), 0u);
        std::shuffle(pages.begin(), pages.end(), random);
        for (std::uint32_t page : pages) entries.push_back({page, kPageTokens, 0});
    }
    std::vector<PageList> lists;
    std::vector<PageEntry> entries;
};

class StepInputsTest : public testing::Test {
  protected:
    // Runs of random lengths, one for each item and entry.
    std::vector<ListRun> random_runs(int& row_count) {
        std::vector<ListRun> runs;
        for (int item = 0; item < kItems; ++item) {
            for (int entry = 0; entry < kEntries; ++entry) {
                const int slot = static_cast<int>(random_() % kPageTokens);
                const int count = 1 + static_cast<int>(random_() % (kPageTokens - slot));
                runs.push_back({item, entry, slot, count, row_count});
                row_count += count;
            }
        }
        return runs;
    }

    std::mt19937_64 random_{test_seed()};
};

TEST_F(StepInputsTest, WritesTheNamedSlotsOfOneLayerAndNothingElse) {
    for (int row_bytes : {64, 192, 256, 512}) {
        const Lists lists(random_);
        const DevicePageLayout layout{row_bytes};
        int row_count = 0;
        const std::vector<ListRun> runs = random_runs(row_count);
        // Rows of more heads than are taken.
        constexpr int kRowHeads = kKvHeads + 2, kFirstHead = 1, kQueryRow = 320, kQueryOffset = 64, kQueryBytes = 208;
        const auto k = random_bytes(std::size_t{1} * row_count * kRowHeads * row_bytes, random_);
        const auto v = random_bytes(k.size(), random_);
        const auto q = random_bytes(std::size_t{1} * row_count * kQueryRow, random_);
        std::vector<std::byte> slab = random_bytes(layout.page_bytes() * lists.entries.size(), random_);
        const auto on_device = upload(slab), k_there = upload(k), v_there = upload(v), q_there = upload(q);
        const DeviceArray<std::byte> q_copy(std::size_t{1} * row_count * kQueryBytes);
        const auto lists_there = upload(lists.lists);
        const auto entries_there = upload(lists.entries);
        const auto runs_there = upload(runs);
        const int kv_layer = 1;

        take_step_inputs({.kv_heads = kKvHeads,
                          .head_dim = row_bytes / 2,
                          .dtype = Dtype::bf16,
                          .row_count = row_count,
                          .slab = {on_device.span().data, layout.page_bytes()},
                          .entries = entries_there.span(),
                          .lists = lists_there.span(),
                          .kv_layer = kv_layer,
                          .first_kv_head = kFirstHead,
                          .q_offset_bytes = kQueryOffset,
                          .runs = runs_there.span(),
                          .k = k_there.span(),
                          .v = v_there.span(),
                          .q = q_there.span(),
                          .q_copy = q_copy.span()},
                         nullptr);

        for (const ListRun& run : runs) {
            for (int head = 0; head < kKvHeads; ++head) {
                const PageList list = lists.lists[run.item * kKvHeads + head];
                const std::size_t page = lists.entries[list.at_layer(kv_layer) + run.entry].page * layout.page_bytes();
                for (int token = 0; token < run.token_count; ++token) {
                    for (int byte = 0; byte < row_bytes; ++byte) {
                        const std::size_t at =
                            (std::size_t(run.row + token) * kRowHeads + kFirstHead + head) * row_bytes + byte;
                        slab[page + layout.k_offset(run.slot + token, byte)] = k[at];
                        slab[page + layout.v_offset(run.slot + token, byte)] = v[at];
                    }
                }
            }
        }
        EXPECT_EQ(on_device.download(), slab) << "row_bytes " << row_bytes;
        std::vector<std::byte> taken;
        for (int row = 0; row < row_count; ++row) {
            const auto from = q.begin() + row * kQueryRow + kQueryOffset;
            taken.insert(taken.end(), from, from + kQueryBytes);
        }
        EXPECT_EQ(q_copy.download(), taken);
    }
}

TEST_F(StepInputsTest, RefusesWhatDoesNotFitTogether) {
    const DeviceArray<std::byte> bytes(4096);
    StepInputs work{.kv_heads = 2,
                    .head_dim = 64,
                    .dtype = Dtype::bf16,
                    .row_count = 4,
                    .slab = {bytes.span().data, DevicePageLayout{128}.page_bytes()},
                    .entries = {},
                    .lists = {},
                    .kv_layer = 0,
                    .runs = {},
                    .k = {bytes.span().data, 1024},
                    .v = {bytes.span().data, 1024},
                    .q = {},
                    .q_copy = {}};
    EXPECT_NO_THROW(take_step_inputs(work, nullptr));
    StepInputs wrong = work;
    wrong.v.size = 512;
    EXPECT_THROW(take_step_inputs(wrong, nullptr), std::invalid_argument);
    wrong = work;
    wrong.head_dim = 60;
    EXPECT_THROW(take_step_inputs(wrong, nullptr), std::invalid_argument);
    wrong = work;
    wrong.q = {bytes.span().data, 32};
    EXPECT_THROW(take_step_inputs(wrong, nullptr), std::invalid_argument);
    wrong = work;
    wrong.slab.page_bytes = 1024;
    EXPECT_THROW(take_step_inputs(wrong, nullptr), std::invalid_argument);
}

TEST_F(StepInputsTest, UpdatesExactlyTheEntriesNamed) {
    std::vector<PageEntry> entries;
    for (std::uint32_t i = 0; i < 5000; ++i) entries.push_back({i, 1, i});
    const auto there = upload(entries);
    std::vector<std::int64_t> places(entries.size());
    std::iota(places.begin(), places.end(), 0);
    std::shuffle(places.begin(), places.end(), random_);
    std::vector<EntryUpdate> updates;
    for (int i = 0; i < 1234; ++i) {
        const PageEntry entry{static_cast<std::uint32_t>(random_()), 64, static_cast<std::int64_t>(random_())};
        updates.push_back({entry, places[i]});
        entries[places[i]] = entry;
    }
    const auto updates_there = upload(updates);

    update_page_lists(there.span(), updates_there.span(), nullptr);

    const auto got = there.download();
    for (std::size_t i = 0; i < entries.size(); ++i) {
        EXPECT_EQ(got[i].page, entries[i].page);
        EXPECT_EQ(got[i].token_count, entries[i].token_count);
        EXPECT_EQ(got[i].first_token, entries[i].first_token);
    }
}

}  // namespace
}  // namespace kvgrid::kernels
