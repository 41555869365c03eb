#include "client/cli/local/cluster_keeper.h"

#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <thread>

#include "client/cli/local/process_scan.h"
#include "client/cli/local/state_directory.h"
#include "core/log.h"
#include "core/version.h"

namespace kvgrid::cli {

namespace {

using namespace std::chrono_literals;

constexpr auto kPollInterval = 50ms;
constexpr auto kKillTimeout = 5s;
constexpr int kRevivals = 5;
constexpr auto kCalm = 60s;  // after which a coordinator that ends has not ended "in a row"

std::int64_t seconds_since_1970() {
    return std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch())
        .count();
}

// The logs are those of one run, and of the one before.
void set_logs_aside(const std::filesystem::path& state_dir) {
    std::error_code not_there;
    for (const char* log : {"coordinator.log", "workers.log"})
        std::filesystem::rename(state_dir / log, state_dir / (std::string(log) + ".before"), not_there);
}

// Until it is interrupted, or cannot go on.
Status watch(LocalCluster& cluster, const std::function<bool()>& interrupted) {
    int revivals = 0;
    auto last_revival = std::chrono::steady_clock::now();
    while (!interrupted()) {
        std::this_thread::sleep_for(kPollInterval);
        if (!cluster.workers_running()) return cluster.check();
        if (const Status good = cluster.check(); good) continue;
        if (std::chrono::steady_clock::now() - last_revival > kCalm) revivals = 0;
        if (++revivals > kRevivals) return cluster.check();
        log_warn("the coordinator has ended and is started again: " + cluster.check().error().to_string());
        if (const Status revived = cluster.revive_coordinator(); !revived) return revived;
        last_revival = std::chrono::steady_clock::now();
    }
    return {};
}

}  // namespace

Status keep_cluster(const std::filesystem::path& state_dir, LocalClusterOptions options) {
    // As a rule nothing of a keeper that was killed is left; if it is, it would be in the way.
    if (const auto before = abandoned_local_cluster(state_dir); before && !before->mark.empty())
        kill_processes_naming(before->mark, deadline_in(kKillTimeout));
    auto lock = StateLock::take(state_dir);
    if (!lock) return lock.error();
    LocalClusterRecord record{.keeper = getpid(),
                              .workers = options.workers,
                              .memory_bytes_per_worker = options.memory_bytes_per_worker,
                              .started_at = seconds_since_1970(),
                              .version = kVersion};
    Status written = lock->write(record);
    options.state_dir = state_dir;
    options.on_listening = [&](const LocalCluster& started) {
        record.mark = started.mark();
        record.endpoint = started.endpoint();
        record.listen = started.listening();
        if (written) written = lock->write(record);
    };
    set_logs_aside(state_dir);
    auto cluster = LocalCluster::start(options);
    if (!cluster) {
        lock->erase();
        return cluster.error();
    }
    record.ready = true;
    if (written) written = lock->write(record);
    log_info(fmt::format("the cluster is ready at {}", record.endpoint));

    const Status kept = written ? watch(*cluster, options.interrupted) : written;
    const Status stopped = cluster->stop();
    lock->erase();
    return kept ? stopped : kept;
}

}  // namespace kvgrid::cli
