// The table of settings, and nothing else.
#include <algorithm>
#include <array>

#include "core/config/setting.h"

namespace kvgrid {

namespace {

using enum SettingKind;

constexpr std::int64_t kHourMs = 3'600'000;

constexpr std::array kSettings{
    Setting{"cluster.coordinator", "KVGRID_COORDINATOR", "--coordinator", "127.0.0.1:7070", text,
            "the cluster: where its coordinator listens, host:port or unix:/path"},
    Setting{"cluster.timeout_ms", "KVGRID_TIMEOUT_MS", "--timeout-ms", "10000", number,
            "how long kvgrid waits for each answer", 1, kHourMs},

    Setting{"local.name", "KVGRID_CLUSTER", "--cluster", "default", text,
            "the name of a cluster on this host, by which it is started, stopped and found again"},
    Setting{"local.state_dir", "KVGRID_LOCAL_STATE_DIR", "--state-dir", "", text,
            "where its catalogue, logs and process ids are; without it ~/.local/state/kvgrid/NAME"},
    Setting{"local.listen", "KVGRID_LOCAL_LISTEN", "--listen", "127.0.0.1:7070", text,
            "where its coordinator listens besides a Unix-domain socket; port 0: any free one"},
    Setting{"local.workers", "KVGRID_LOCAL_WORKERS", "--workers", "2", number, "how many workers it has", 1, 64},
    Setting{"local.memory", "KVGRID_LOCAL_MEMORY", "--memory", "1GiB", size,
            "memory for pages of each of its workers; taken as pages are used"},
    Setting{"local.threads", "KVGRID_LOCAL_THREADS", "--threads", "0", number,
            "kernel threads of each of its workers; 0: this host's cores shared among them", 0, 1024},
    Setting{"local.one_process", "KVGRID_LOCAL_ONE_PROCESS", "--one-process", "false", boolean,
            "its workers are threads of one process, as where they share a GPU; mpirun is not needed then"},

    Setting{"coordinator.listen", "KVGRID_COORDINATOR_LISTEN", "--listen", "127.0.0.1:7070", list,
            "where to listen: host:port (port 0: any) or unix:/path; may be several"},
    Setting{"coordinator.http_listen", "KVGRID_COORDINATOR_HTTP_LISTEN", "--http-listen", "", text,
            "where to serve /metrics, /live, /ready and /version: host:port (port 0: any); nowhere if left out"},
    Setting{"coordinator.allow_remote", "KVGRID_COORDINATOR_ALLOW_REMOTE", "--allow-remote", "false", boolean,
            "listen also on addresses that other hosts can reach (traffic is not encrypted)"},
    Setting{"coordinator.state_dir", "KVGRID_COORDINATOR_STATE_DIR", "--state-dir", "", text,
            "directory of the catalogue; has to be named"},
    Setting{"coordinator.workers", "KVGRID_COORDINATOR_WORKERS", "--workers", "", number,
            "workers that make up the grid; has to be named", 1, 4096},
    Setting{"coordinator.heartbeat_ms", "KVGRID_COORDINATOR_HEARTBEAT_MS", "--heartbeat-ms", "200", number,
            "how often workers report", 10, 60'000},
    Setting{"coordinator.dead_after_ms", "KVGRID_COORDINATOR_DEAD_AFTER_MS", "--dead-after-ms", "2000", number,
            "silence after which a worker is dead; at least 4 heartbeats", 40, 600'000},
    Setting{"coordinator.prefixes_max", "KVGRID_COORDINATOR_PREFIXES_MAX", "--prefixes-max", "256", number,
            "sequences kept for prompts that begin with their tokens, of all models and tenants; 0: none", 0, 4096},
    Setting{"coordinator.log_level", "KVGRID_COORDINATOR_LOG_LEVEL", "--log-level", "info", log_level,
            "lowest level that is logged: debug, info, warn or error"},

    Setting{"worker.listen", "KVGRID_WORKER_LISTEN", "--listen", "127.0.0.1:0", text,
            "where to listen; %r is replaced by the MPI rank, port 0 is any free one"},
    Setting{"worker.http_listen", "KVGRID_WORKER_HTTP_LISTEN", "--http-listen", "", text,
            "where to serve /metrics, /live, /ready and /version: host:port, as --listen; nowhere if left out"},
    Setting{"worker.allow_remote", "KVGRID_WORKER_ALLOW_REMOTE", "--allow-remote", "false", boolean,
            "listen also on addresses that other hosts can reach (traffic is not encrypted)"},
    Setting{"worker.ranks", "KVGRID_WORKER_RANKS", "--ranks", "1", number,
            "workers of this process, as threads: for several ranks on one GPU, and without mpirun", 1, 64},
    Setting{"worker.device", "KVGRID_WORKER_DEVICE", "--device", "auto", text,
            "where pages are kept and attention is computed: cpu, gpu (this worker's of the host's), gpu:N, or auto: a "
            "GPU if there is one"},
    Setting{"worker.join", "KVGRID_WORKER_JOIN", "--join", "auto", text,
            "how outputs of GPUs are joined: pushed (between the GPUs of one host; large ones by NCCL), nccl, host, or "
            "auto: the best that all workers have"},
    Setting{"worker.memory", "KVGRID_WORKER_MEMORY", "--memory", "", size,
            "budget for the page pools of all models; without it 1GiB, or a GPU's free memory less 2GiB"},
    Setting{"worker.threads", "KVGRID_WORKER_THREADS", "--threads", "0", number,
            "kernel threads; 0: this host's cores shared among its workers", 0, 1024},
    Setting{"worker.operation_timeout_ms", "KVGRID_WORKER_OPERATION_TIMEOUT_MS", "--operation-timeout-ms", "60000",
            number, "how long ranks wait for one another", 1, kHourMs},
    Setting{"worker.step_idle_timeout_ms", "KVGRID_WORKER_STEP_IDLE_TIMEOUT_MS", "--step-idle-timeout-ms", "60000",
            number, "abort a step of which no call has come for this long; 0: never", 0, 24 * kHourMs},
    Setting{
        "worker.unsent_max", "KVGRID_WORKER_UNSENT_MAX", "--unsent-max", "512MiB", size,
        "disconnect a client that leaves more than this of its answers unread; all clients together: twice as much"},
    Setting{"worker.drain_timeout_ms", "KVGRID_WORKER_DRAIN_TIMEOUT_MS", "--drain-timeout-ms", "10000", number,
            "after SIGTERM or SIGINT: how long the grid's open steps may take to end; a second signal ends at once", 0,
            kHourMs},
    Setting{"worker.log_level", "KVGRID_WORKER_LOG_LEVEL", "--log-level", "info", log_level,
            "lowest level that is logged: debug, info, warn or error"},
};

}  // namespace

std::span<const Setting> settings() {
    return kSettings;
}

const Setting* find_setting(std::string_view name) {
    const auto found = std::ranges::find(kSettings, name, &Setting::name);
    return found == kSettings.end() ? nullptr : &*found;
}

}  // namespace kvgrid
