#include <fmt/format.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cstdlib>
#include <iostream>
#include <thread>

#include "comm/collective/mpi_collective.h"
#include "comm/collective/thread_collective.h"
#include "comm/collective/thread_world.h"
#include "core/config/setting_options.h"
#include "core/log.h"
#include "core/units.h"
#include "core/version.h"
#include "worker/device_options.h"
#include "worker/gpu_choice.h"
#include "worker/node_group.h"
#include "worker/stop_on_signal.h"

namespace {

using namespace kvgrid;

constexpr int kUsage = 2;

struct Options {
    std::string coordinator;
    std::string listen;
    std::string http_listen;
    bool allow_remote = false;
    std::string device;
    std::string join;
    std::string memory;
    int threads = 0;
    int operation_timeout_ms = 0;
    int step_idle_timeout_ms = 0;
    std::string unsent_max;
    int drain_timeout_ms = 0;
    std::string log_level;
    bool exit_with_parent = false;
    bool list_devices = false;
    int ranks = 1;
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
    settings.add(app, "worker.ranks", options.ranks);
    settings.add(app, "worker.device", options.device);
    settings.add(app, "worker.join", options.join);
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

// Of one worker, where `local_count` of them share this host.
int default_threads(int local_count) {
    return std::max(1, static_cast<int>(std::thread::hardware_concurrency()) / local_count);
}

Result<comm::Endpoint> endpoint_of_rank(std::string text, int world_rank) {
    if (const auto at = text.find("%r"); at != std::string::npos) text.replace(at, 2, std::to_string(world_rank));
    return comm::parse_endpoint(text);
}

Result<worker::NodeOptions> node_options(const Options& options, int world_rank, std::uint64_t world) {
    const auto coordinator = comm::parse_endpoint(options.coordinator);
    if (!coordinator) return coordinator.error();
    const auto endpoint = endpoint_of_rank(options.listen, world_rank);
    if (!endpoint) return endpoint.error();
    std::optional<comm::Endpoint> http;
    if (!options.http_listen.empty()) {
        auto parsed = endpoint_of_rank(options.http_listen, world_rank);
        if (!parsed) return parsed.error();
        http = *std::move(parsed);
    }
    const auto unsent_max = parse_bytes(options.unsent_max);
    if (!unsent_max) return unsent_max.error();
    return worker::NodeOptions{.coordinator = *coordinator,
                               .listen = *endpoint,
                               .http_listen = std::move(http),
                               .allow_remote = options.allow_remote,
                               .mpi_rank = world_rank,
                               .world = world,
                               .operation_timeout = std::chrono::milliseconds(options.operation_timeout_ms),
                               .step_idle_max = std::chrono::milliseconds(options.step_idle_timeout_ms),
                               .drain_timeout = std::chrono::milliseconds(options.drain_timeout_ms),
                               .limits = {.unsent_bytes_max = *unsent_max, .unsent_bytes_total_max = 2 * *unsent_max}};
}

// Of rank `rank` among this process' own.
Result<worker::ChosenDevice> choose_device(const Options& options, int rank) {
    const auto memory = options.memory.empty() ? Result<std::uint64_t>(0) : parse_bytes(options.memory);
    if (!memory) return memory.error();
    const int local_count = environment_number("OMPI_COMM_WORLD_LOCAL_SIZE", 1) * options.ranks;
    return worker::choose_device(
        {.device = options.device,
         .join = options.join,
         .memory_bytes = *memory,
         .threads = options.threads > 0 ? options.threads : default_threads(local_count),
         .local_rank = environment_number("OMPI_COMM_WORLD_LOCAL_RANK", 0) * options.ranks + rank,
         .local_count = local_count,
         .ranks = options.ranks});
}

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
                    "together with mpirun, or as threads of one process with --ranks"};
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

Result<std::unique_ptr<worker::Node>> make_node(worker::NodeOptions configured, worker::FormCollective form,
                                                const Options& options, int rank) {
    auto chosen = choose_device(options, rank);
    if (!chosen) return chosen.error();
    configured.memory_bytes = chosen->memory_bytes;
    log_info(fmt::format("rank {} computes on {}, {} for pages", configured.mpi_rank, chosen->device->status().name,
                         format_bytes(chosen->memory_bytes)));
    return std::make_unique<worker::Node>(std::move(configured), std::move(form), std::move(chosen->device));
}

using Nodes = std::vector<std::unique_ptr<worker::Node>>;

Result<Nodes> make_one(const Options& options, comm::MpiWorld* world) {
    auto configured = node_options(options, world ? world->rank() : 0, world ? world->id() : 0);
    if (!configured) return configured.error();
    if (world) configured->abandoned_mpi_requests = [world] { return world->abandoned_request_count(); };
    auto node = make_node(*std::move(configured), make_former(world), options, 0);
    if (!node) return node.error();
    Nodes nodes;
    nodes.push_back(*std::move(node));
    return nodes;
}

// Threads of this process, which need no launcher.
Result<Nodes> make_several(const Options& options, comm::ThreadWorld& world) {
    if (environment_number("OMPI_COMM_WORLD_SIZE", 1) > 1) {
        return {Errc::unsupported, fmt::format("{} ranks in each process of mpirun: ranks of several processes meet "
                                               "over MPI, one to a process; start one "
                                               "process with --ranks, or several without it",
                                               options.ranks)};
    }
    for (const std::string& listen : {options.listen, options.http_listen}) {
        if (listen.empty() || listen.find("%r") != std::string::npos || listen.ends_with(":0")) continue;
        return {Errc::invalid_argument,
                fmt::format("{} ranks cannot all listen on {}: put %r into it, which becomes the rank, or take port 0",
                            options.ranks, listen)};
    }
    Nodes nodes;
    for (int rank = 0; rank < world.size(); ++rank) {
        auto configured = node_options(options, rank, world.id());
        if (!configured) return configured.error();
        const auto form = [&world, rank](const std::vector<int>& ranks, Generation generation, Deadline) {
            return world.form(rank, ranks, generation);
        };
        auto node = make_node(*std::move(configured), form, options, rank);
        if (!node) return node.error();
        nodes.push_back(*std::move(node));
    }
    return nodes;
}

int run(const Options& options) {
    if (options.list_devices) return list_devices();
    worker::StopOnSignal::block();
    if (options.exit_with_parent) prctl(PR_SET_PDEATHSIG, SIGTERM);
    std::unique_ptr<comm::MpiWorld> world;
    if (options.ranks == 1 && std::getenv("OMPI_COMM_WORLD_SIZE")) world = std::make_unique<comm::MpiWorld>();
    comm::ThreadWorld threads(options.ranks);
    init_log(options.ranks == 1 ? fmt::format("worker rank {}", world ? world->rank() : 0)
                                : fmt::format("worker of {} ranks", options.ranks),
             parse_log_level(options.log_level, LogLevel::info));

    auto nodes = options.ranks == 1 ? make_one(options, world.get()) : make_several(options, threads);
    if (!nodes) {
        log_error(nodes.error().to_string());
        return nodes.error() == Errc::invalid_argument ? kUsage : 1;
    }
    worker::NodeGroup group(*std::move(nodes));
    worker::StopOnSignal stop([&group] { group.drain(); }, [&group] { group.stop(); });
    if (const Status done = group.run(); !done) {
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
