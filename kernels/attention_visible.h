#pragma once

#include <cstdint>
#include <span>

#include "kernels/attention_plan.h"

namespace kvgrid::kernels {

// The pages of a list that hold anything visible to the rows from `oldest` to `newest`: a prefix that holds sinks, and
// a range.
struct VisiblePages {
    int sink_pages, first_page, end_page;

    int count() const { return sink_pages + end_page - first_page; }
    int page_at(int position) const { return position < sink_pages ? position : first_page + position - sink_pages; }
};
VisiblePages visible_pages(std::span<const PageEntry> pages, const RowView& oldest, const RowView& newest);

}  // namespace kvgrid::kernels
