#pragma once

#include <filesystem>
#include <functional>

#include "client/cli/local/local_cluster.h"

namespace kvgrid::cli {

// Keeps a cluster on this host for as long as it is wanted: the process that `kvgrid cluster start` leaves behind.
//
//     kvgrid cluster keep          holds the lock of the state directory
//       |-- kvgrid-coordinator     started again when it ends, at most kRevivals times in a row
//       '-- mpirun
//             '-- kvgrid-worker ...
//
//   Ends    when `cluster.interrupted` says so, or when the workers have ended by themselves. Whoever kills it ends all of them, since
//           they end with the process that started them.
//   Errors  busy: another one keeps a cluster in this directory. Else what LocalCluster says.
Status keep_cluster(const std::filesystem::path& state_dir, LocalClusterOptions cluster);

}  // namespace kvgrid::cli
