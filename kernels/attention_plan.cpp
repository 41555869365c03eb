#include "kernels/attention_plan.h"

#include <algorithm>

#include "kernels/attention_visible.h"

namespace kvgrid::kernels {

namespace {

// A page costs its memory traffic and its arithmetic: reading it is worth about the arithmetic of four rows.
constexpr std::int64_t kPageRows = 4;
// What a tile costs besides its pages, and how much work is worth a thread's attention, in rows times pages: some 40 us. Helpers may have
// to be woken, on a core that somebody else has.
constexpr std::int64_t kTileCost = 4;
constexpr std::int64_t kPartCostMin = 256;
// Of a deterministic plan: the pages of a fragment.
constexpr int kFixedFragmentPages = 64;
// More parts than threads: a thread that is held up leaves the rest to the others.
constexpr int kPartsPerThread = 4;

std::int64_t page_cost(const Tile& tile) {
    return kPageRows + tile.row_count;
}

std::int64_t tile_cost(const Tile& tile) {
    return kTileCost + page_cost(tile) * tile.page_count;
}

// Rows per tile: as even as the rows allow, in multiples of 4 where there are several tiles.
int even_tile_rows(int row_count) {
    const int tile_count = (row_count + kTileRows - 1) / kTileRows;
    if (tile_count <= 1) return row_count;
    const int rows = (row_count + tile_count - 1) / tile_count;
    return (rows + 3) / 4 * 4;
}

void add_tiles(const Attention& work, int item_index, int kv_head, std::vector<Tile>& tiles) {
    const AttentionItem& item = work.items[item_index];
    const int group = work.heads.group();
    const int row_count = item.query_count * group;
    const int step = even_tile_rows(row_count);
    for (int row = 0; row < row_count; row += step) {
        const int count = std::min(step, row_count - row);
        const VisiblePages visible =
            visible_pages(item.streams[kv_head], view_of(work, item, item.first_query + row / group),
                          view_of(work, item, item.first_query + (row + count - 1) / group));
        tiles.push_back(
            {item_index, kv_head, row, count, visible.sink_pages, visible.first_page, visible.count(), 1, -1});
    }
}

// Walks the tiles' pages in order and cuts them where a part is full.
class Cutter {
  public:
    Cutter(AttentionPlan& plan, std::int64_t part_cost, bool deterministic)
        : plan_(plan), part_cost_(part_cost), room_(part_cost), deterministic_(deterministic) {}

    void add(int tile_index) {
        Tile& tile = plan_.tiles[tile_index];
        const auto first_fragment = static_cast<int>(plan_.fragments.size());
        room_ -= kTileCost;
        int first = 0;
        while (tile.page_count - first > fragment_pages(tile)) {
            const int end = first + fragment_pages(tile);
            plan_.fragments.push_back({tile_index, first, end, -1});
            room_ -= page_cost(tile) * (end - first);
            if (room_ <= 0) end_part();
            first = end;
        }
        plan_.fragments.push_back({tile_index, first, tile.page_count, -1});
        room_ -= page_cost(tile) * (tile.page_count - first);
        if (room_ <= 0) end_part();
        give_buffers(tile, first_fragment);
    }

    void end_part() {
        const auto end = static_cast<int>(plan_.fragments.size());
        if (plan_.part_ends.empty() ? end > 0 : end > plan_.part_ends.back()) plan_.part_ends.push_back(end);
        room_ = part_cost_;
    }

  private:
    // At least one, so that every part makes way. Not what fits, but a fixed count, if bits must not depend on the batch.
    int fragment_pages(const Tile& tile) const {
        if (deterministic_) return kFixedFragmentPages;
        return static_cast<int>(std::max<std::int64_t>(1, (room_ + page_cost(tile) - 1) / page_cost(tile)));
    }

    void give_buffers(Tile& tile, int first_fragment) {
        tile.fragment_count = static_cast<int>(plan_.fragments.size()) - first_fragment;
        if (tile.fragment_count == 1) return;
        tile.first_buffer = plan_.buffer_count;
        for (int index = 0; index < tile.fragment_count; ++index) {
            plan_.fragments[first_fragment + index].buffer = plan_.buffer_count++;
        }
    }

    AttentionPlan& plan_;
    std::int64_t part_cost_;
    std::int64_t room_;
    const bool deterministic_;
};

}  // namespace

RowView view_of(const Attention& work, const AttentionItem& item, std::int64_t order) {
    const std::int64_t end = work.strictly_earlier ? order : order + 1;
    if (item.window == 0) return {0, 0, end};
    return {item.sinks, std::max<std::int64_t>(0, order - item.window + 1), end};
}

VisiblePages visible_pages(std::span<const PageEntry> pages, const RowView& oldest, const RowView& newest) {
    const auto index_of = [&](auto iterator) { return static_cast<int>(iterator - pages.begin()); };
    const auto end = std::partition_point(pages.begin(), pages.end(),
                                          [&](const PageEntry& page) { return page.first_token < newest.end; });
    const auto first = std::partition_point(
        pages.begin(), end, [&](const PageEntry& page) { return page.first_token + kPageTokens <= oldest.first; });
    const auto sinks = std::partition_point(pages.begin(), first,
                                            [&](const PageEntry& page) { return page.first_token < oldest.sinks; });
    return {index_of(sinks), index_of(first), index_of(end)};
}

AttentionPlan plan_attention(const Attention& work, int thread_count) {
    AttentionPlan plan;
    for (int item = 0; item < static_cast<int>(work.items.size()); ++item) {
        if (work.items[item].query_count == 0) continue;
        for (int head = 0; head < work.heads.kv_heads; ++head) add_tiles(work, item, head, plan.tiles);
    }

    std::int64_t cost = 0;
    for (const Tile& tile : plan.tiles) {
        cost += tile_cost(tile);
        plan.tile_rows_max = std::max(plan.tile_rows_max, tile.row_count);
    }
    const std::int64_t part_count =
        thread_count == 1
            ? 1
            : std::clamp<std::int64_t>(cost / kPartCostMin, 1, std::int64_t{thread_count} * kPartsPerThread);
    Cutter cutter(plan, (cost + part_count - 1) / part_count, work.deterministic);
    for (int tile = 0; tile < static_cast<int>(plan.tiles.size()); ++tile) cutter.add(tile);
    cutter.end_part();
    return plan;
}

}  // namespace kvgrid::kernels
