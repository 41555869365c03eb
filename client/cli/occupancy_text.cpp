#include "client/cli/occupancy_text.h"

#include <fmt/format.h>

#include "core/units.h"

namespace kvgrid::cli {

namespace {

const ModelOccupancy* find_model(const WorkerOccupancy& worker, ModelId model) {
    for (const ModelOccupancy& each : worker.models) {
        if (each.model == model) return &each;
    }
    return nullptr;
}

double percent_in_use(const ModelOccupancy& pages) {
    if (pages.capacity_pages == 0) return 0;
    return 100.0 * static_cast<double>(pages.capacity_pages - pages.free_pages) /
           static_cast<double>(pages.capacity_pages);
}

}  // namespace

std::string occupancy_line(const GridOccupancy& occupancy, ModelId model) {
    std::string line = "in use by worker:";
    for (const WorkerOccupancy& worker : occupancy.workers) {
        const ModelOccupancy* pages = find_model(worker, model);
        line += fmt::format(" {:2.0f}%", pages ? percent_in_use(*pages) : 0);
    }
    return line;
}

std::string occupancy_table(const GridOccupancy& occupancy, ModelId model) {
    std::string table = "  worker    pages     free     used   shared   in use\n";
    for (const WorkerOccupancy& worker : occupancy.workers) {
        const ModelOccupancy* pages = find_model(worker, model);
        if (!pages) continue;
        table += fmt::format("  {:>6} {:>8} {:>8} {:>8} {:>8}   {:>5.1f}%  {}\n", worker.rank, pages->capacity_pages,
                             pages->free_pages, pages->used_pages, pages->shared_pages, percent_in_use(*pages),
                             format_bytes(pages->used_pages * pages->page_bytes));
    }
    return table;
}

PageTotals page_totals(const GridOccupancy& occupancy, ModelId model) {
    PageTotals totals;
    for (const WorkerOccupancy& worker : occupancy.workers) {
        const ModelOccupancy* pages = find_model(worker, model);
        if (!pages) continue;
        totals.capacity += pages->capacity_pages;
        totals.free += pages->free_pages;
        totals.used += pages->used_pages;
        totals.shared += pages->shared_pages;
    }
    return totals;
}

bool all_free(const GridOccupancy& occupancy) {
    for (const WorkerOccupancy& worker : occupancy.workers) {
        for (const ModelOccupancy& pages : worker.models) {
            if (pages.free_pages != pages.capacity_pages) return false;
        }
    }
    return !occupancy.workers.empty();
}

}  // namespace kvgrid::cli
