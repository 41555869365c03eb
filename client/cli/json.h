#pragma once

#include <nlohmann/json.hpp>

#include "client/kvgrid.h"

namespace kvgrid::cli {

// What several commands show, as JSON.
nlohmann::json as_json(const ModelOccupancy& pages);
nlohmann::json as_json(const ClusterWorker& worker);
nlohmann::json as_json(const RegisteredModel& model);

}  // namespace kvgrid::cli
