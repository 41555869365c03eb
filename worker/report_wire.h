#pragma once

#include "comm/wire/kvgrid.pb.h"
#include "worker/shard.h"

namespace kvgrid::worker {

inline void put_report(const ModelReport& report, wire::Occupancy& out) {
    out.set_model(report.model.value);
    out.set_page_bytes(report.page_bytes);
    out.set_capacity_pages(report.pages.capacity);
    out.set_free_pages(report.pages.free);
    out.set_used_pages(report.pages.used);
    out.set_reserved_pages(report.pages.reserved);
    out.set_shared_pages(report.pages.shared);
    out.set_sequences(report.sequences);
    out.set_stored_tokens(report.stored_tokens);
}

}  // namespace kvgrid::worker
