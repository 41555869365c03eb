// What one decoded token costs as the context grows and as workers are added, and what the join moves meanwhile.
//
//   scaling_bench [--workers 1 2 4] [--contexts 1024 4096 ...] [--steps 30] [--json FILE]
//
// For each number of workers one cluster, one sequence that grows from context to context, and at each some steps of one token, of which
// the median counts. The table goes to standard output; the JSON file is what plot_scaling.py draws.

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/version.h"
#include "tests/bench/bench_grid.h"

namespace kvgrid::bench {
namespace {

constexpr int kLayers = 2;

struct Options {
    std::vector<int> workers{1, 2, 4};
    std::vector<std::int64_t> contexts{1'024, 4'096, 16'384, 65'536, 131'072, 262'144, 524'288};
    int steps = 30;
    std::string json;
};

struct Point {
    int workers;
    GridShape shape;
    std::int64_t context;
    double layer_ms_p50, layer_ms_p99;
    double step_ms_p50;
    std::uint64_t join_bytes;  // per layer call, over all workers
};

Point measure_at(BenchGrid& grid, const RegisteredModel& model, const Sequence& sequence, std::int64_t context,
                 int steps) {
    Client& client = grid.client();
    const cli::NewTokens token = cli::new_tokens(model.spec, 1, 0, 1);
    cli::Latencies warm_up, layer_calls, steps_taken;
    for (int step = 0; step < 3; ++step) decode_one(client, model.spec, sequence, token, warm_up);
    const GridOccupancy before = client.occupancy().value();
    for (int step = 0; step < steps; ++step) {
        const auto start = std::chrono::steady_clock::now();
        decode_one(client, model.spec, sequence, token, layer_calls);
        steps_taken.add(std::chrono::steady_clock::now() - start);
    }
    const GridOccupancy after = client.occupancy().value();
    return {.workers = model.grid.workers(),
            .shape = model.grid,
            .context = context,
            .layer_ms_p50 = layer_calls.percentile_ms(0.5),
            .layer_ms_p99 = layer_calls.percentile_ms(0.99),
            .step_ms_p50 = steps_taken.percentile_ms(0.5),
            .join_bytes = (after.join_bytes - before.join_bytes) / (after.layer_calls - before.layer_calls)};
}

void print(const Point& point) {
    fmt::print("{:>7} {:>7} {:>9} {:>12.3f} {:>12.3f} {:>12.3f} {:>12}\n", point.workers,
               fmt::format("{} x {}", point.shape.head_parts, point.shape.sequence_parts), point.context,
               point.step_ms_p50, point.layer_ms_p50, point.layer_ms_p99, point.join_bytes);
    std::fflush(stdout);
}

std::vector<Point> measure(const Options& options, int workers) {
    const ModelSpec spec = bench_model("scaling-bench", kLayers);
    const GridShape shape = validated_grid_shape(spec, workers, {0, 0}).value();
    const std::int64_t longest = std::ranges::max(options.contexts);
    const std::uint64_t pool = bench_pool_bytes(spec, shape, longest + options.steps, 1);
    BenchGrid grid(workers, pool);
    const RegisteredModel model =
        grid.client().register_model(spec, {.grid = shape, .pool_bytes_per_worker = pool}).value();
    const Sequence sequence = grid.client().open(model).value();
    std::vector<Point> points;
    for (const std::int64_t context : options.contexts) {
        fill(grid.client(), spec, sequence, context);
        points.push_back(measure_at(grid, model, sequence, context, options.steps));
        print(points.back());
    }
    return points;
}

nlohmann::json as_json(const std::vector<Point>& points) {
    nlohmann::json rows = nlohmann::json::array();
    for (const Point& point : points) {
        rows.push_back({{"workers", point.workers},
                        {"head_parts", point.shape.head_parts},
                        {"sequence_parts", point.shape.sequence_parts},
                        {"context_tokens", point.context},
                        {"step_ms_p50", point.step_ms_p50},
                        {"layer_ms_p50", point.layer_ms_p50},
                        {"layer_ms_p99", point.layer_ms_p99},
                        {"join_bytes_per_layer_call", point.join_bytes}});
    }
    return {{"format", "kvgrid.scaling_bench"},
            {"format_version", 1},
            {"version", kVersion},
            {"layers", kLayers},
            {"query_heads", 32},
            {"kv_heads", 8},
            {"head_dim", 128},
            {"dtype", "bf16"},
            {"points", std::move(rows)}};
}

void run(const Options& options) {
    fmt::print("{} layers of 32 query and 8 KV heads of 128, bf16; one new token a step; medians of {} steps\n",
               kLayers, options.steps);
    fmt::print("{:>7} {:>7} {:>9} {:>12} {:>12} {:>12} {:>12}\n", "workers", "parts", "context", "step ms", "layer ms",
               "layer p99", "joined bytes");
    std::vector<Point> points;
    for (const int workers : options.workers) {
        const std::vector<Point> more = measure(options, workers);
        points.insert(points.end(), more.begin(), more.end());
    }
    if (options.json.empty()) return;
    std::ofstream file(options.json);
    file << as_json(points).dump(2) << '\n';
    if (!file.flush()) fatal("cannot write " + options.json);
}

}  // namespace
}  // namespace kvgrid::bench

int main(int argc, char** argv) try {
    kvgrid::bench::Options options;
    CLI::App app{"What one decoded token costs as the context grows and as workers are added."};
    app.add_option("--workers", options.workers)->check(CLI::Range(1, 64))->capture_default_str();
    app.add_option("--contexts", options.contexts, "tokens, ascending")->capture_default_str();
    app.add_option("--steps", options.steps, "measured at each context")
        ->check(CLI::Range(1, 100'000))
        ->capture_default_str();
    app.add_option("--json", options.json, "file for plot_scaling.py");
    CLI11_PARSE(app, argc, argv);
    kvgrid::bench::run(options);
    return 0;
} catch (const std::exception& error) {
    fmt::print(stderr, "scaling_bench: {}\n", error.what());
    return 1;
}
