#pragma once

#include <string>

#include "client/kvgrid.h"

namespace kvgrid::cli {

// A configuration file for Prometheus that scrapes a cluster as it is now: the jobs kvgrid-coordinator and kvgrid-worker, each worker with
// its rank as a label. Processes that serve no HTTP, or over a Unix-domain socket only, are left out and named in a comment.
std::string prometheus_config(const ClusterStatus& status, int scrape_interval_s);

}  // namespace kvgrid::cli
