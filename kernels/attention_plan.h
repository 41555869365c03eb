#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/attention.h"

namespace kvgrid::kernels {

// How one call of attention_cpu is divided. Pure: no memory is touched but the page lists.
//
//   row        (query token, query head of a group) of one item and KV head, counted token by token: token * group +
//   head tile       up to kTileRows consecutive rows, which read their pages together: the unit whose softmax is one
//   fragment   a tile over some of its visible pages; a tile of several fragments is merged by whoever ends last
//   part       consecutive fragments of about equal cost: what one thread takes at a time
//
//      tile 0          tile 1                       tile 2
//      [pages.........][pages......................][pages....]     visible pages, one tile after the other
//      |  part 0   |  part 1   |  part 2   |  part 3   |  part 4 |
//      [frag 0    ][f1][f2    ][f3        ][f4  ][f5   ][f6     ]
inline constexpr int kTileRows = 64;

// What is seen by one row: order numbers [0, sinks) and [first, end).
struct RowView {
    std::int64_t sinks, first, end;

    bool sees(std::int64_t key) const { return (key >= first || key < sinks) && key < end; }
};
RowView view_of(const Attention& work, const AttentionItem& item, std::int64_t order);

struct Tile {
    int item, kv_head;
    int first_row, row_count;
    // Visible pages of the stream's list: [0, sink_pages), then [first_page, first_page + page_count - sink_pages).
    int sink_pages, first_page, page_count;
    // Fragments that merge into this tile. 1: it is whole, and needs no buffer.
    int fragment_count;
    int first_buffer;

    int page_at(int position) const { return position < sink_pages ? position : first_page + position - sink_pages; }
};

struct Fragment {
    int tile;
    int first, end;  // positions among the tile's visible pages
    int buffer;      // -1: the tile is whole
};

struct AttentionPlan {
    std::vector<Tile> tiles;
    std::vector<Fragment> fragments;
    std::vector<int> part_ends;  // part p holds the fragments from part_ends[p - 1] (or 0) to part_ends[p]
    int buffer_count = 0;
    int tile_rows_max = 0;

    int part_count() const { return static_cast<int>(part_ends.size()); }
    int part_begin(int part) const { return part == 0 ? 0 : part_ends[part - 1]; }
};
AttentionPlan plan_attention(const Attention& work, int thread_count);

// The promises that attention.h asks of its callers. Throws std::invalid_argument with the first one broken. Page lists
// are checked where they are visible to a query; that an index lies in the slab cannot be checked.
void check_attention(const Attention& work, std::size_t partial_size, std::size_t lse_size);

}  // namespace kvgrid::kernels
