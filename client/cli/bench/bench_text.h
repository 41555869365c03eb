#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "client/cli/bench/bench.h"

namespace kvgrid::cli {

std::string bench_text(const BenchPlan& plan, const BenchReport& report);
nlohmann::json bench_json(const BenchPlan& plan, const BenchReport& report);

}  // namespace kvgrid::cli
