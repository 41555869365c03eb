#include <fmt/format.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdlib>
#include <iostream>
#include <thread>

#include "comm/collective/mpi_collective.h"
#include "comm/collective/thread_collective.h"
#include "core/log.h"
#include "core/units.h"
#include "core/version.h"
#include "worker/node.h"

namespace {

using namespace kvgrid;

struct Options {
    std::string coordinator = "127.0.0.1:7070";
    std::string listen = "127.0.0.1:0";
    bool allow_remote = false;
    std::string memory = "1GiB";
    int threads = 0;
    int operation_timeout_ms = 60'000;
    int step_idle_timeout_ms = 60'000;
    std::string unsent_max = "512MiB";
    std::string log_level = "info";
    bool exit_with_parent = false;
};

int parse_options(int argc, char** argv, Options& options) {
    CLI::App app{
        "One worker of a kvgrid cluster: keeps its shard of the KV cache and attends to it. Start the workers of a "
        "cluster with "
        "mpirun; one started alone makes a grid of one.\nExit codes: 0 done, 1 failed, 2 usage."};
    app.set_version_flag("--version", kVersion);
    app.add_option("--coordinator", options.coordinator, "where the coordinator listens: host:port or unix:/path")
        ->capture_default_str();
    app.add_option("--listen", options.listen,
                   "where to listen; %r is replaced by the MPI rank, port 0 is any free one")
        ->capture_default_str();
    app.add_flag("--allow-remote", options.allow_remote,
                 "listen on an address that other hosts reach (traffic is not encrypted)");
    app.add_option("--memory", options.memory, "budget for the page pools of all models, e.g. 4GiB")
        ->capture_default_str();
    app.add_option("--threads", options.threads, "kernel threads; 0: this host's cores shared among its workers")
        ->capture_default_str();
    app.add_option("--operation-timeout-ms", options.operation_timeout_ms, "how long ranks wait for one another")
        ->check(CLI::Range(1, 3'600'000))
        ->capture_default_str();
    app.add_option("--step-idle-timeout-ms", options.step_idle_timeout_ms,
                   "abort a step of which no call has come for this long; 0: never")
        ->check(CLI::Range(0, 86'400'000))
        ->capture_default_str();
    app.add_option(
           "--unsent-max", options.unsent_max,
           "disconnect a client that leaves more than this of its answers unread (all clients together: twice as much)")
        ->capture_default_str();
    app.add_option("--log-level", options.log_level, "debug, info, warn or error")->capture_default_str();
    app.add_flag("--exit-with-parent", options.exit_with_parent, "end when the process that started this one ends");
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
        return app.exit(error) == 0 ? 0 : 2;
    }
    return -1;
}

int environment_number(const char* name, int otherwise) {
    const char* value = std::getenv(name);
    return value ? std::atoi(value) : otherwise;
}

int default_threads() {
    const int cores = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
    return std::max(1, cores / environment_number("OMPI_COMM_WORLD_LOCAL_SIZE", 1));
}

Result<worker::NodeOptions> node_options(const Options& options, int mpi_rank) {
    std::string listen = options.listen;
    if (const auto at = listen.find("%r"); at != std::string::npos) listen.replace(at, 2, std::to_string(mpi_rank));
    const auto coordinator = comm::parse_endpoint(options.coordinator);
    if (!coordinator) return coordinator.error();
    const auto endpoint = comm::parse_endpoint(listen);
    if (!endpoint) return endpoint.error();
    const auto memory = parse_bytes(options.memory);
    if (!memory) return memory.error();
    const auto unsent_max = parse_bytes(options.unsent_max);
    if (!unsent_max) return unsent_max.error();
    return worker::NodeOptions{.coordinator = *coordinator,
                               .listen = *endpoint,
                               .allow_remote = options.allow_remote,
                               .mpi_rank = mpi_rank,
                               .memory_bytes = *memory,
                               .kernel_threads = options.threads > 0 ? options.threads : default_threads(),
                               .operation_timeout = std::chrono::milliseconds(options.operation_timeout_ms),
                               .step_idle_max = std::chrono::milliseconds(options.step_idle_timeout_ms),
                               .limits = {.unsent_bytes_max = *unsent_max, .unsent_bytes_total_max = 2 * *unsent_max}};
}

// Turns SIGTERM and SIGINT into node.stop(). The signals are blocked in all other threads.
class StopOnSignal {
  public:
    explicit StopOnSignal(worker::Node& node)
        : thread_([this, &node] {
              int signal = 0;
              sigwait(&signals(), &signal);
              if (signal != SIGUSR1) node.stop();
          }) {}
    ~StopOnSignal() {
        pthread_kill(thread_.native_handle(), SIGUSR1);
        thread_.join();
    }

    static const sigset_t& signals() {
        static const sigset_t set = [] {
            sigset_t made;
            sigemptyset(&made);
            sigaddset(&made, SIGTERM);
            sigaddset(&made, SIGINT);
            sigaddset(&made, SIGUSR1);
            return made;
        }();
        return set;
    }

  private:
    std::thread thread_;
};

// Ranks of a launcher's world use MPI. A worker that was started alone is a world of one, and needs none.
worker::FormCollective make_former(comm::MpiWorld* world) {
    if (world) {
        return [world](const std::vector<int>& ranks, Generation generation, Deadline deadline) {
            return world->form(ranks, generation, deadline);
        };
    }
    return [](const std::vector<int>& ranks, Generation generation,
              Deadline) -> Result<std::unique_ptr<comm::Collective>> {
        if (ranks.size() != 1) {
            return {Errc::unsupported,
                    "this worker was started alone and cannot form a grid with others: start the workers of a grid "
                    "together with mpirun"};
        }
        return std::move(comm::make_thread_collectives(1, generation)[0]);
    };
}

int run(const Options& options) {
    pthread_sigmask(SIG_BLOCK, &StopOnSignal::signals(), nullptr);
    if (options.exit_with_parent) prctl(PR_SET_PDEATHSIG, SIGTERM);
    std::unique_ptr<comm::MpiWorld> world;
    if (std::getenv("OMPI_COMM_WORLD_SIZE")) world = std::make_unique<comm::MpiWorld>();
    const int rank = world ? world->rank() : 0;
    init_log(fmt::format("worker rank {}", rank), parse_log_level(options.log_level, LogLevel::info));

    const auto configured = node_options(options, rank);
    if (!configured) {
        log_error(configured.error().to_string());
        return 2;
    }
    worker::Node node(*configured, make_former(world.get()));
    StopOnSignal stop(node);
    if (const Status done = node.run(); !done) {
        log_error(done.error().to_string());
        return 1;
    }
    log_info("stopped");
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    Options options;
    if (const int code = parse_options(argc, argv, options); code >= 0) return code;
    try {
        return run(options);
    } catch (const std::exception& error) {
        log_error(std::string("giving up: ") + error.what());
        return 1;
    }
}
