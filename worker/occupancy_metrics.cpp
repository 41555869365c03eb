#include "worker/occupancy_metrics.h"

#include <map>
#include <string>

#include "comm/monitor/families.h"
#include "core/model_spec.h"

namespace kvgrid::worker {

namespace {

struct ModelOccupancy {
    std::string name;
    Dtype dtype;
    KvDtype kv_dtype;
    ModelReport report;
};

// Of the models that share a label.
struct Sums {
    PageCounts pages;
    std::uint64_t page_bytes = 0;  // of one page; of different models: the largest
    std::uint64_t capacity_bytes = 0, used_bytes = 0, unfilled_bytes = 0;
    std::uint64_t sequences = 0, token_slots = 0;
    std::int64_t sequence_tokens = 0;

    void add(const ModelReport& report) {
        pages.capacity += report.pages.capacity;
        pages.free += report.pages.free;
        pages.used += report.pages.used;
        pages.reserved += report.pages.reserved;
        pages.shared += report.pages.shared;
        pages.references += report.pages.references;
        page_bytes = std::max(page_bytes, report.page_bytes);
        capacity_bytes += report.pages.capacity * report.page_bytes;
        used_bytes += report.pages.used * report.page_bytes;
        unfilled_bytes +=
            (report.pages.references * kPageTokens - report.stored_tokens) * (report.page_bytes / kPageTokens);
        sequences += report.sequences;
        token_slots += report.stored_tokens;
        sequence_tokens += report.committed_tokens;
    }

    double utilization() const {
        return pages.references ? static_cast<double>(token_slots) / static_cast<double>(pages.references * kPageTokens)
                                : 0;
    }
};

}  // namespace

struct OccupancyMetrics::Snapshot {
    std::vector<ModelOccupancy> models;
    std::uint64_t memory_bytes = 0;
    std::uint64_t memory_left = 0;

    std::map<std::string, Sums> by_label() const {
        std::map<std::string, Sums> sums;
        for (const ModelOccupancy& model : models) {
            const bool own = sums.contains(model.name) || sums.size() < kModelsMax;
            sums[own ? model.name : "other"].add(model.report);
        }
        return sums;
    }
};

void OccupancyMetrics::publish(const Shard& shard) {
    auto snapshot = std::make_shared<Snapshot>();
    snapshot->memory_bytes = shard.memory_bytes();
    snapshot->memory_left = shard.memory_left();
    for (const ModelReport& report : shard.report()) {
        const ModelSpec& spec = shard.find_model(report.model)->spec;
        snapshot->models.push_back({spec.name, spec.dtype, spec.kv_dtype, report});
    }
    const std::lock_guard lock(mutex_);
    last_ = std::move(snapshot);
}

void OccupancyMetrics::withdraw() {
    const std::lock_guard lock(mutex_);
    last_.reset();
}

std::vector<prometheus::MetricFamily> OccupancyMetrics::Collect() const {
    std::shared_ptr<const Snapshot> snapshot;
    {
        const std::lock_guard lock(mutex_);
        snapshot = last_;
    }
    if (!snapshot) return {};
    using comm::gauge_family;
    auto pages = gauge_family("kvgrid_pages", "Pages by state. All states together are the capacity.");
    auto capacity = gauge_family("kvgrid_page_capacity", "Pages of the model's pool.");
    auto shared = gauge_family("kvgrid_shared_pages", "Used pages that more than one sequence holds.");
    auto references =
        gauge_family("kvgrid_page_references", "Entries of page lists: a shared page counts once for each holder.");
    auto page_bytes = gauge_family("kvgrid_page_bytes", "Size of one page.");
    auto kv_bytes = gauge_family("kvgrid_kv_bytes", "Bytes of the used pages.");
    auto capacity_bytes = gauge_family("kvgrid_kv_capacity_bytes", "Bytes of the model's pool.");
    auto slots =
        gauge_family("kvgrid_kv_token_slots",
                     "Committed tokens in page lists: one for each token, KV layer and KV head here, and holder.");
    auto utilization = gauge_family("kvgrid_page_utilization_ratio",
                                    "Part of the slots that page lists refer to which holds a token.");
    auto fragmentation = gauge_family("kvgrid_page_fragmentation_bytes",
                                      "Bytes of the slots that page lists refer to and that hold no token.");
    auto sequences = gauge_family("kvgrid_sequences", "Sequences of which this worker holds a share.");
    auto tokens = gauge_family("kvgrid_sequence_tokens", "Sum of the committed lengths of these sequences.");
    auto info = gauge_family("kvgrid_model_info",
                             "What K and V are stored as; `lossy` says whether that is less than the model's dtype.");
    for (std::size_t i = 0; i < std::min(snapshot->models.size(), kModelsMax); ++i) {
        const ModelOccupancy& model = snapshot->models[i];
        const bool is_lossy = model.kv_dtype != KvDtype::as_model;
        info.add(1, {{"model", model.name},
                     {"dtype", name_of(model.dtype)},
                     {"kv_dtype", is_lossy ? name_of(model.kv_dtype) : name_of(model.dtype)},
                     {"lossy", is_lossy ? "true" : "false"}});
    }
    for (const auto& [name, sums] : snapshot->by_label()) {
        const comm::Labels model{{"model", name}};
        const auto in_state = [&](const char* state) { return comm::Labels{{"model", name}, {"state", state}}; };
        pages.add(sums.pages.free, in_state("free"));
        pages.add(sums.pages.used, in_state("used"));
        pages.add(sums.pages.reserved, in_state("reserved"));
        capacity.add(sums.pages.capacity, model);
        shared.add(sums.pages.shared, model);
        references.add(sums.pages.references, model);
        page_bytes.add(sums.page_bytes, model);
        kv_bytes.add(sums.used_bytes, model);
        capacity_bytes.add(sums.capacity_bytes, model);
        slots.add(sums.token_slots, model);
        utilization.add(sums.utilization(), model);
        fragmentation.add(sums.unfilled_bytes, model);
        sequences.add(sums.sequences, model);
        tokens.add(sums.sequence_tokens, model);
    }
    return {
        info,
        pages,
        capacity,
        shared,
        references,
        page_bytes,
        kv_bytes,
        capacity_bytes,
        slots,
        utilization,
        fragmentation,
        sequences,
        tokens,
        gauge_family("kvgrid_memory_budget_bytes", "Memory for the pools of all models.").add(snapshot->memory_bytes),
        gauge_family("kvgrid_memory_unassigned_bytes", "What no model's pool has of it.").add(snapshot->memory_left)};
}

}  // namespace kvgrid::worker
