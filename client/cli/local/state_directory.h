#pragma once

#include <sys/types.h>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "core/result.h"

namespace kvgrid::cli {

// What a cluster on this host keeps in its state directory, so that later commands find it:
//
//     kvgrid-local-cluster   says that the directory is kvgrid's, and of which layout
//     lock                   held by the process that keeps the cluster (cluster_keeper.h) while it lives
//     cluster.json           LocalClusterRecord, written by that process
//     keeper.log, coordinator.log, workers.log, catalogue.sqlite
struct LocalClusterRecord {
    pid_t keeper = 0;
    bool ready = false;
    std::string endpoint;             // of the coordinator: a Unix-domain socket
    std::vector<std::string> listen;  // where it listens besides
    std::string mark;                 // in the command line of each of its processes (LocalCluster::mark)
    int workers = 0;
    std::uint64_t memory_bytes_per_worker = 0;
    std::int64_t started_at = 0;  // seconds since 1970
    std::string version;          // of kvgrid
};

std::string to_json(const LocalClusterRecord& record);
// `corrupt`: it is not of this format and version.
Result<LocalClusterRecord> parse_local_cluster_record(const std::string& json);

// Where the cluster of a name has its state: `named` where that is not empty, else kvgrid/NAME under $XDG_STATE_HOME or ~/.local/state.
std::filesystem::path local_state_dir(const std::string& named, const std::string& name);

// Makes the directory for this user alone, or takes one that was made so before. `invalid_argument`: it is something else's (not empty,
// another user's, of another layout), with what to do.
Status prepare_state_dir(const std::filesystem::path& directory);
bool is_state_dir(const std::filesystem::path& directory);

// The cluster whose keeper lives; its record, as far as it has come.
std::optional<LocalClusterRecord> running_local_cluster(const std::filesystem::path& directory);

// What a keeper that was killed left behind.
std::optional<LocalClusterRecord> abandoned_local_cluster(const std::filesystem::path& directory);

// Held while a keeper lives; the kernel lets go of it when the process ends, however it ends.
class StateLock {
  public:
    // `busy`: another keeper lives.
    static Result<StateLock> take(const std::filesystem::path& directory);
    StateLock(StateLock&& other) noexcept;
    StateLock& operator=(StateLock&&) = delete;
    ~StateLock();

    // Replaces the record; readers see the old one or the new one.
    Status write(const LocalClusterRecord& record);
    // The cluster has ended: no record.
    void erase();

  private:
    StateLock(std::filesystem::path directory, int descriptor)
        : directory_(std::move(directory)), descriptor_(descriptor) {}
    std::filesystem::path directory_;
    int descriptor_;
};

}  // namespace kvgrid::cli
