#include <fmt/format.h>
#include <unistd.h>

#include <nlohmann/json.hpp>
#include <optional>

#include "client/cli/bench/bench.h"
#include "client/cli/bench/bench_text.h"
#include "client/cli/bench/memory_bandwidth.h"
#include "client/cli/find_cluster.h"
#include "client/cli/interrupt.h"
#include "client/cli/local/local_cluster.h"
#include "client/cli/local/worker_gpus.h"
#include "client/cli/progress.h"

namespace kvgrid::cli {

namespace {

// With so many times the cache's size in use, what it holds does not matter for a floor.
constexpr std::uint64_t kCachesCovered = 4;

struct BenchOptions {
    BenchPlan plan;
    int layers = 4, query_heads = 32, kv_heads = 8, head_dim = 128;
    std::string dtype = "bf16";
    std::string kv_dtype = "as_model";
    int local_workers = 0;
};

// By its geometry: two runs of one geometry share a model, since a model cannot be taken back.
Result<ModelSpec> bench_spec(const BenchOptions& options) {
    ModelSpec spec{.name = fmt::format("kvgrid-bench-{}-layers-{}-{}-heads-of-{}-{}", options.layers,
                                       options.query_heads, options.kv_heads, options.head_dim, options.dtype),
                   .layers = {},
                   .query_heads = options.query_heads,
                   .kv_heads = options.kv_heads,
                   .head_dim = options.head_dim,
                   .dtype = *parse_dtype(options.dtype),
                   .kv_dtype = *parse_kv_dtype(options.kv_dtype),
                   .scale = 1 / std::sqrt(options.head_dim)};
    for (int layer = 0; layer < options.layers; ++layer) spec.layers.push_back({.kv_layer = layer});
    return validated(spec);
}

bool all_on_this_host(const ClusterStatus& status) {
    char name[256] = "";
    gethostname(name, sizeof name - 1);
    return std::ranges::all_of(status.workers, [&](const ClusterWorker& worker) { return worker.host == name; });
}

// Of this host's last level; nothing where it does not say.
std::uint64_t cache_bytes() {
    const long bytes = sysconf(_SC_LEVEL3_CACHE_SIZE);
    return bytes > 0 ? static_cast<std::uint64_t>(bytes) : 0;
}

// One bar after the other: a phase is over when the next one begins.
class PhaseProgress {
  public:
    explicit PhaseProgress(ProgressStyle style) : style_(style) {}

    void update(const char* phase, std::int64_t done, std::int64_t total) {
        if (phase_ != phase) bar_.emplace(phase_ = phase, total, style_, clock_);
        bar_->update(done);
    }

  private:
    ProgressStyle style_;
    SteadyClock clock_;
    std::string phase_;
    std::optional<Progress> bar_;
};

Result<BenchReport> measure(const std::function<Result<Client>()>& connect, BenchPlan& plan, ProgressStyle style,
                            const InterruptWatch& watch) {
    auto client = connect();
    if (!client) return client.error();
    const auto status = client->status();
    if (!status) return status.error();
    const auto grid = validated_grid_shape(plan.spec, status->expected_workers, {0, 0});
    if (!grid) return grid.error();
    const auto model =
        client->register_model(plan.spec, {.grid = *grid, .pool_bytes_per_worker = plan.pool_bytes_per_worker(*grid)});
    if (!model) return model.error();
    PhaseProgress progress(style);
    auto report = run_bench(connect, *model, plan,
                            {.progress = [&](const char* phase, std::int64_t done,
                                             std::int64_t total) { progress.update(phase, done, total); },
                             .interrupted = [&watch] { return watch.interrupted(); }});
    if (report && all_on_this_host(*status) && plan.kv_bytes() > kCachesCovered * cache_bytes())
        report->memory_bytes_per_second = measure_memory_bandwidth(cache_bytes());
    return report;
}

ExitCode run(const ClusterCommand& command, const BenchOptions& options) {
    BenchPlan plan = options.plan;
    auto spec = bench_spec(options);
    if (!spec) return command.fail(spec.error());
    plan.spec = *std::move(spec);

    InterruptWatch watch;
    std::optional<LocalCluster> own;
    if (options.local_workers > 0) {
        auto started = LocalCluster::start({.workers = options.local_workers,
                                            .memory_bytes_per_worker = plan.pool_bytes_per_worker({1, 1}),
                                            .one_process = must_share_gpus(options.local_workers, worker_gpus()),
                                            .state_dir = {},
                                            .interrupted = [&watch] { return watch.interrupted(); }});
        if (!started) return command.fail(started.error(), "kvgrid doctor");
        own.emplace(*std::move(started));
    }
    const auto connect = [&] { return own ? Client::connect(own->endpoint()) : command.connect(); };
    const auto report = measure(connect, plan, progress_style(command.output().quiet), watch);
    const Status stopped = own ? own->stop() : Status();
    if (watch.interrupted()) return ExitCode::interrupted;
    if (!report) return command.fail(report.error(), report.error() == Errc::no_room ? "kvgrid bench --local 2" : "");
    if (command.output().json) {
        print_json("bench", bench_json(plan, *report));
    } else {
        fmt::print("{}", bench_text(plan, *report));
    }
    return stopped ? ExitCode::done : command.fail(stopped.error());
}

void add_geometry(CLI::App& command, BenchOptions& options) {
    const auto number = [&](const char* name, int& variable, const char* doc, int most) {
        command.add_option(name, variable, doc)->check(CLI::Range(1, most))->type_name("NUMBER")->capture_default_str();
    };
    number("--layers", options.layers, "layers of the model that is measured", 1'024);
    number("--query-heads", options.query_heads, "its query heads", 1'024);
    number("--kv-heads", options.kv_heads, "its KV heads", 1'024);
    number("--head-dim", options.head_dim, "elements of a head", 256);
    command.add_option("--dtype", options.dtype, "of q, k, v and the cache")
        ->check(CLI::IsMember({"f32", "f16", "bf16"}))
        ->capture_default_str();
    command.add_option("--kv-dtype", options.kv_dtype, "of the cache: as q, k and v, or fp8_e4m3 (lossy, GPU workers)")
        ->check(CLI::IsMember({"as_model", "fp8_e4m3"}))
        ->capture_default_str();
}

}  // namespace

void add_bench(CommandLine& line) {
    CLI::App& command = line.command("bench",
                                     "measure prefill and decoding on a cluster; the pool of the model that it "
                                     "registers stays until the cluster stops");
    auto options = std::make_shared<BenchOptions>();
    BenchPlan& plan = options->plan;
    const auto number = [&command]<class T>(const char* name, T& variable, const char* doc, T least, T most) {
        command.add_option(name, variable, doc)
            ->check(CLI::Range(least, most))
            ->type_name("NUMBER")
            ->capture_default_str();
    };
    number("--clients", plan.clients, "clients that decode at once", 1, 256);
    number("--batch", plan.batch, "sequences of each client, decoded together", 1, 1'024);
    number("--context", plan.context, "tokens in each sequence", std::int64_t{1}, std::int64_t{1} << 24);
    number("--steps", plan.steps, "tokens that are decoded of each sequence", 1, 1'000'000);
    number("--prefill", plan.prefill_tokens, "tokens of the chunk that is prefilled; 0: none", 0, 65'536);
    command.add_option("--local", options->local_workers, "start a cluster of so many workers for this, and stop it")
        ->check(CLI::Range(1, 64))
        ->type_name("NUMBER");
    add_geometry(command, *options);
    on_cluster(line, command, [options](const ClusterCommand& chosen) { return run(chosen, *options); });
}

}  // namespace kvgrid::cli
