#include <fmt/format.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <iostream>
#include <thread>

#include "comm/collective/mpi_collective.h"
#include "comm/collective/thread_collective.h"
#include "core/config/setting_options.h"
#include "core/log.h"
#include "core/units.h"
#include "core/version.h"
#include "worker/device_options.h"
#include "worker/gpu_choice.h"
#include "worker/node.h"

namespace {

using namespace kvgrid;

constexpr int kUsage = 2;

struct Options {
    std::string coordinator;
    std::string listen;
    std::string http_listen;
    bool allow_remote = false;
    std::string device;
    std::string memory;
    int threads = 0;
    int operation_timeout_ms = 0;
    int step_idle_timeout_ms = 0;
    std::string unsent_max;
    int drain_timeout_ms = 0;
    std::string log_level;
    bool exit_with_parent = false;
    bool list_devices = false;
    std::string config_file;
};

// Flags, else the environment, else the configuration file.
int parse_options(int argc, char** argv, Options& options) {
    const auto config = Config::load(config_argument(argc, argv), [](const char* name) { return std::getenv(name); });
    CLI::App app{
        "One worker of a kvgrid cluster: keeps its shard of the KV cache and attends to it. Start the workers of a "
        "cluster with mpirun; one started alone makes a grid of one.\nExit codes: 0 done, 1 failed, 2 usage."};
    app.set_version_flag("--version", kVersion);
    const Config in_force = config ? *config : Config();
    SettingOptions settings(in_force);
    settings.add(app, "cluster.coordinator", options.coordinator);
    settings.add(app, "worker.listen", options.listen);
    settings.add(app, "worker.http_listen", options.http_listen);
    settings.add(app, "worker.allow_remote", options.allow_remote);
    settings.add(app, "worker.device", options.device);
    settings.add(app, "worker.memory", options.memory);
    settings.add(app, "worker.threads", options.threads);
    settings.add(app, "worker.operation_timeout_ms", options.operation_timeout_ms);
    settings.add(app, "worker.step_idle_timeout_ms", options.step_idle_timeout_ms);
    settings.add(app, "worker.unsent_max", options.unsent_max);
    settings.add(app, "worker.drain_timeout_ms", options.drain_timeout_ms);
    settings.add(app, "worker.log_level", options.log_level);
    add_config_option(app, options.config_file);
    app.add_flag("--list-devices", options.list_devices, "print what this worker can compute on, and end");
    app.add_flag("--exit-with-parent", options.exit_with_parent, "end when the process that started this one ends");
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
        return app.exit(error) == 0 ? 0 : kUsage;
    }
    settings.apply(app);
    if (config) return -1;
    std::cerr << config.error().message << "\n";
    return kUsage;
}

int environment_number(const char* name, int otherwise) {
    const char* value = std::getenv(name);
    return value ? std::atoi(value) : otherwise;
}

int default_threads() {
    const int cores = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
    return std::max(1, cores / environment_number("OMPI_COMM_WORLD_LOCAL_SIZE", 1));
}

Result<comm::Endpoint> endpoint_of_rank(std::string text, int mpi_rank) {
    if (const auto at = text.find("%r"); at != std::string::npos) text.replace(at, 2, std::to_string(mpi_rank));
    return comm::parse_endpoint(text);
}

Result<worker::NodeOptions> node_options(const Options& options, int mpi_rank, std::uint64_t world) {
    const auto coordinator = comm::parse_endpoint(options.coordinator);
    if (!coordinator) return coordinator.error();
    const auto endpoint = endpoint_of_rank(options.listen, mpi_rank);
    if (!endpoint) return endpoint.error();
    std::optional<comm::Endpoint> http;
    if (!options.http_listen.empty()) {
        auto parsed = endpoint_of_rank(options.http_listen, mpi_rank);
        if (!parsed) return parsed.error();
        http = *std::move(parsed);
    }
    const auto unsent_max = parse_bytes(options.unsent_max);
    if (!unsent_max) return unsent_max.error();
    return worker::NodeOptions{.coordinator = *coordinator,
                               .listen = *endpoint,
                               .http_listen = std::move(http),
                               .allow_remote = options.allow_remote,
                               .mpi_rank = mpi_rank,
                               .world = world,
                               .operation_timeout = std::chrono::milliseconds(options.operation_timeout_ms),
                               .step_idle_max = std::chrono::milliseconds(options.step_idle_timeout_ms),
                               .drain_timeout = std::chrono::milliseconds(options.drain_timeout_ms),
                               .limits = {.unsent_bytes_max = *unsent_max, .unsent_bytes_total_max = 2 * *unsent_max}};
}

Result<worker::ChosenDevice> choose_device(const Options& options) {
    const auto memory = options.memory.empty() ? Result<std::uint64_t>(0) : parse_bytes(options.memory);
    if (!memory) return memory.error();
    return worker::choose_device({.device = options.device,
                                  .memory_bytes = *memory,
                                  .threads = options.threads > 0 ? options.threads : default_threads(),
                                  .local_rank = environment_number("OMPI_COMM_WORLD_LOCAL_RANK", 0),
                                  .local_count = environment_number("OMPI_COMM_WORLD_LOCAL_SIZE", 1)});
}

// Turns the first SIGTERM or SIGINT into node.drain(), and any further one into node.stop(). The signals are blocked in all other
// threads.
class StopOnSignal {
  public:
    explicit StopOnSignal(worker::Node& node)
        : thread_([this, &node] {
              for (bool first = true;; first = false) {
                  int signal = 0;
                  sigwait(&signals(), &signal);
                  if (signal == SIGUSR1) return;
                  first ? node.drain() : node.stop();
              }
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

// One line each: "cpu", "gpu NVIDIA H200 (GPU 0)".
int list_devices() {
    std::cout << "cpu\n";
    for (int index = 0; index < worker::usable_gpu_count(); ++index) {
        const auto gpu = worker::make_gpu_device(index);
        if (gpu) std::cout << "gpu " << (*gpu)->status().name << "\n";
    }
    return 0;
}

int run(const Options& options) {
    if (options.list_devices) return list_devices();
    pthread_sigmask(SIG_BLOCK, &StopOnSignal::signals(), nullptr);
    if (options.exit_with_parent) prctl(PR_SET_PDEATHSIG, SIGTERM);
    std::unique_ptr<comm::MpiWorld> world;
    if (std::getenv("OMPI_COMM_WORLD_SIZE")) world = std::make_unique<comm::MpiWorld>();
    const int rank = world ? world->rank() : 0;
    init_log(fmt::format("worker rank {}", rank), parse_log_level(options.log_level, LogLevel::info));

    auto configured = node_options(options, rank, world ? world->id() : 0);
    if (!configured) {
        log_error(configured.error().to_string());
        return 2;
    }
    if (world) configured->abandoned_mpi_requests = [&world] { return world->abandoned_request_count(); };
    auto chosen = choose_device(options);
    if (!chosen) {
        log_error(chosen.error().to_string());
        return 1;
    }
    configured->memory_bytes = chosen->memory_bytes;
    log_info(
        fmt::format("computes on {}, {} for pages", chosen->device->status().name, format_bytes(chosen->memory_bytes)));
    worker::Node node(*configured, make_former(world.get()), std::move(chosen->device));
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
