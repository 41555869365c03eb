#include "client/cli/json.h"

namespace kvgrid::cli {

nlohmann::json as_json(const ModelOccupancy& pages) {
    return {{"model", pages.model.value},
            {"page_bytes", pages.page_bytes},
            {"pages",
             {{"capacity", pages.capacity_pages},
              {"free", pages.free_pages},
              {"used", pages.used_pages},
              {"reserved", pages.reserved_pages},
              {"shared", pages.shared_pages}}},
            {"sequences", pages.sequences},
            {"stored_tokens", pages.stored_tokens}};
}

nlohmann::json as_json(const ClusterWorker& worker) {
    nlohmann::json models = nlohmann::json::array();
    for (const ModelOccupancy& model : worker.models) models.push_back(as_json(model));
    return {{"worker", worker.worker.value},         {"rank", worker.rank},
            {"endpoint", worker.endpoint},           {"host", worker.host},
            {"process_id", worker.process_id},       {"alive", worker.alive},
            {"memory_bytes", worker.memory_bytes},   {"version", worker.version},
            {"http_endpoint", worker.http_endpoint}, {"models", std::move(models)}};
}

nlohmann::json as_json(const RegisteredModel& model) {
    return {{"model", model.id.value},
            {"name", model.spec.name},
            {"head_parts", model.grid.head_parts},
            {"sequence_parts", model.grid.sequence_parts},
            {"pool_bytes_per_worker", model.pool_bytes_per_worker},
            {"spec", nlohmann::json::parse(to_json(model.spec))}};
}

}  // namespace kvgrid::cli
