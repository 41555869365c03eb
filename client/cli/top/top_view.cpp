#include "client/cli/top/top_view.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "core/units.h"

namespace kvgrid::cli {

namespace {

struct Pages {
    std::uint64_t capacity = 0, free = 0, used = 0, reserved = 0, shared = 0;
    std::uint64_t used_bytes = 0, capacity_bytes = 0, sequences = 0;

    void add(const ModelOccupancy& model) {
        capacity += model.capacity_pages;
        free += model.free_pages;
        used += model.used_pages;
        reserved += model.reserved_pages;
        shared += model.shared_pages;
        used_bytes += (model.used_pages + model.reserved_pages) * model.page_bytes;
        capacity_bytes += model.capacity_pages * model.page_bytes;
        sequences += model.sequences;
    }
};

struct Painter {
    bool color;
    std::string operator()(const char* code, const std::string& text) const {
        return color ? fmt::format("\033[{}m{}\033[0m", code, text) : text;
    }
};

constexpr const char* kGreen = "32";
constexpr const char* kYellow = "33";
constexpr const char* kRed = "31";
constexpr const char* kBold = "1";
constexpr const char* kDim = "2";

Pages pages_of(const std::vector<ModelOccupancy>& models) {
    Pages pages;
    for (const ModelOccupancy& model : models) pages.add(model);
    return pages;
}

// From the grid itself where it answered, else as of the worker's last heartbeat.
Pages pages_of(const TopSnapshot& now, const ClusterWorker& worker) {
    if (now.occupancy) {
        for (const WorkerOccupancy& each : now.occupancy->workers) {
            if (each.worker == worker.worker) return pages_of(each.models);
        }
    }
    return pages_of(worker.models);
}

// Whole cells by the running sum, so that rounding never makes them too many.
std::string bar(const Pages& pages, int cells, const Painter& paint) {
    if (pages.capacity == 0) return paint(kDim, std::string(cells, '.'));
    const std::uint64_t shared = std::min(pages.shared, pages.used);
    const struct {
        std::uint64_t pages;
        char letter;
        const char* color;
    } parts[] = {{pages.used - shared, '#', kGreen}, {shared, '=', kYellow}, {pages.reserved, '+', kRed}};
    std::string text;
    std::uint64_t sum = 0;
    int drawn = 0;
    for (const auto& part : parts) {
        sum += part.pages;
        const int end =
            std::clamp(static_cast<int>(static_cast<double>(sum) / static_cast<double>(pages.capacity) * cells + 0.5),
                       drawn, cells);
        if (end > drawn) text += paint(part.color, std::string(end - drawn, part.letter));
        drawn = end;
    }
    return text + paint(kDim, std::string(cells - drawn, '.'));
}

double percent(std::uint64_t part, std::uint64_t whole) {
    return whole == 0 ? 0 : 100.0 * static_cast<double>(part) / static_cast<double>(whole);
}

std::string head_line(const TopSnapshot& now, int columns, const Painter& paint) {
    const bool good = now.status.ready && now.problem.empty();
    const std::string state = good                   ? "ready"
                              : !now.problem.empty() ? now.problem
                                                     : "not ready: " + now.status.not_ready_because;
    const std::string about =
        fmt::format("kvgrid {}  {}  generation {}  ", now.status.version, now.coordinator, now.status.generation.value);
    const auto left = static_cast<std::size_t>(std::max(0, columns - static_cast<int>(about.size())));
    return about.substr(0, columns) + paint(good ? kGreen : kRed, state.substr(0, left));
}

std::string rates_line(const std::optional<TopRates>& rates) {
    if (!rates) return "layer calls       -/s   of clients merged       -/s   join          -/s   operations       -/s";
    return fmt::format("layer calls {:>7.0f}/s   of clients merged {:>7.0f}/s   join {:>10}/s   operations {:>7.0f}/s",
                       rates->layer_calls, rates->merged_layer_calls,
                       format_bytes(static_cast<std::uint64_t>(rates->join_bytes)), rates->operations);
}

std::string worker_line(const TopSnapshot& now, const ClusterWorker& worker, int columns, const Painter& paint) {
    const Pages pages = pages_of(now, worker);
    const std::string name = worker.rank < 0 ? "standby" : fmt::format("rank {}", worker.rank);
    const std::string figures =
        fmt::format(" {:5.1f}% {:>9} of {:>9} {:>6} seq", percent(pages.capacity - pages.free, pages.capacity),
                    format_bytes(pages.used_bytes), format_bytes(pages.capacity_bytes), pages.sequences);
    const std::string begin = fmt::format("{:<8} {} ", name, worker.alive ? "     " : "dead ");
    const int cells = columns - static_cast<int>(begin.size() + figures.size()) - 2;
    const std::string shown = begin + (cells >= 4 ? "[" + bar(pages, cells, paint) + "]" + figures : figures);
    // Too narrow for a bar: figures alone, cut; they have no colours in them.
    return cells >= 4 ? shown : shown.substr(0, std::max(0, columns));
}

}  // namespace

std::optional<TopRates> top_rates(const TopSnapshot& before, const TopSnapshot& now) {
    if (!before.occupancy || !now.occupancy || before.status.generation != now.status.generation) return std::nullopt;
    const GridOccupancy &from = *before.occupancy, &to = *now.occupancy;
    const double seconds = std::chrono::duration<double>(now.taken - before.taken).count();
    if (seconds <= 0 || to.operations < from.operations || to.layer_calls < from.layer_calls) return std::nullopt;
    const auto rate = [seconds](std::uint64_t later, std::uint64_t earlier) {
        return static_cast<double>(later - earlier) / seconds;
    };
    return TopRates{.operations = rate(to.operations, from.operations),
                    .join_bytes = rate(to.join_bytes, from.join_bytes),
                    .layer_calls = rate(to.layer_calls, from.layer_calls),
                    .merged_layer_calls = rate(to.merged_layer_calls, from.merged_layer_calls)};
}

std::vector<std::string> top_lines(const TopSnapshot& now, const std::optional<TopRates>& rates,
                                   const TopStyle& style) {
    const Painter paint{style.color};
    const auto cut = [&](const std::string& text) { return text.substr(0, std::max(0, style.columns)); };
    std::vector<std::string> lines{head_line(now, style.columns, paint), cut(rates_line(rates))};
    lines.push_back(paint(kBold, cut(fmt::format("{} of {} workers    pages: # used  = shared  + reserved  . free",
                                                 now.status.workers.size(), now.status.expected_workers))));
    for (const ClusterWorker& worker : now.status.workers)
        lines.push_back(worker_line(now, worker, style.columns, paint));
    if (style.rows > 0 && static_cast<int>(lines.size()) > style.rows) lines.resize(style.rows);
    return lines;
}

std::string top_line(const TopSnapshot& now, const std::optional<TopRates>& rates) {
    Pages all;
    for (const ClusterWorker& worker : now.status.workers) {
        const Pages pages = pages_of(now, worker);
        all.capacity += pages.capacity;
        all.free += pages.free;
        all.used_bytes += pages.used_bytes;
        all.sequences = std::max(all.sequences, pages.sequences);  // each worker has a shard of each
    }
    const std::string state = !now.problem.empty() ? now.problem
                              : now.status.ready   ? "ready"
                                                   : "not ready: " + now.status.not_ready_because;
    std::string line =
        fmt::format("generation {}, {}, {} workers, {:.1f}% of pages in use ({}), {} sequences",
                    now.status.generation.value, state, now.status.workers.size(),
                    percent(all.capacity - all.free, all.capacity), format_bytes(all.used_bytes), all.sequences);
    if (rates)
        line += fmt::format(", {:.0f} layer calls/s, {:.0f} merged/s, join {}/s", rates->layer_calls,
                            rates->merged_layer_calls, format_bytes(static_cast<std::uint64_t>(rates->join_bytes)));
    return line;
}

}  // namespace kvgrid::cli
