// Many clients that decode at once, against one alone on the same grid: how much the lead's merging of calls brings, what a layer call
// takes then, and whether the workers' memory stays where it is.
//
//   clients_bench [--workers 1] [--clients 64] [--context 512] [--steps 10000]
//
// Each client has its own connections, its own sequence and its own thread, and decodes token by token; the sequences go back to their
// first length now and then, so that memory could only grow by a leak. A step is one token through all layers.

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <atomic>
#include <thread>

#include "client/cli/demo/demo_plan.h"
#include "core/units.h"
#include "tests/bench/bench_grid.h"

namespace kvgrid::bench {
namespace {

constexpr int kLayers = 4;
constexpr int kTokensBetweenTruncations = 64;
constexpr double kGoalRatio = 3;

struct Options {
    int workers = 1;
    int clients = 64;
    std::int64_t context = 512;
    int steps = 10'000;  // of all clients together; one client alone makes a tenth of them
};

struct Run {
    double steps_per_second = 0;
    cli::Latencies layer_calls;
    std::uint64_t resident_before = 0, resident_after = 0;
};

// One client's life: opens, fills, says that it is ready, and decodes until the steps are used up.
class Decoder {
  public:
    Decoder(const std::string& endpoint, const RegisteredModel& model, const Options& options)
        : client_(Client::connect(endpoint).value()),
          model_(model),
          context_(options.context),
          sequence_(client_.open(model).value()),
          token_(cli::new_tokens(model.spec, 1, 0, 1)) {
        fill(client_, model.spec, sequence_, context_);
    }

    void decode(std::atomic<int>& steps_left) {
        int grown = 0;
        while (steps_left.fetch_sub(1) > 0) {
            decode_one(client_, model_.spec, sequence_, token_, layer_calls_);
            if (++grown % kTokensBetweenTruncations == 0) sequence_.truncate(context_).value();
        }
    }

    cli::Latencies take_layer_calls() { return std::exchange(layer_calls_, {}); }

  private:
    Client client_;
    const RegisteredModel& model_;
    const std::int64_t context_;
    Sequence sequence_;
    const cli::NewTokens token_;
    cli::Latencies layer_calls_;
};

double decode_together(std::vector<std::unique_ptr<Decoder>>& decoders, int steps) {
    std::atomic<int> steps_left = steps;
    const auto start = std::chrono::steady_clock::now();
    {
        std::vector<std::jthread> threads;
        for (auto& decoder : decoders) threads.emplace_back([&] { decoder->decode(steps_left); });
    }
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

Run run(BenchGrid& grid, const RegisteredModel& model, const Options& options, int clients, int steps) {
    std::vector<std::unique_ptr<Decoder>> decoders;
    for (int client = 0; client < clients; ++client)
        decoders.push_back(std::make_unique<Decoder>(grid.endpoint(), model, options));
    decode_together(decoders,
                    std::max(clients * kTokensBetweenTruncations, steps / 10));  // pages and buffers have grown
    for (auto& decoder : decoders) decoder->take_layer_calls();

    Run result;
    result.resident_before = grid.resident_bytes();
    result.steps_per_second = steps / decode_together(decoders, steps);
    result.resident_after = grid.resident_bytes();
    for (auto& decoder : decoders) result.layer_calls.add(decoder->take_layer_calls());
    return result;
}

void print(const std::string& who, const Run& run) {
    fmt::print("{:>11} {:>12.0f} {:>14.3f} {:>14.3f} {:>22}\n", who, run.steps_per_second,
               run.layer_calls.percentile_ms(0.5), run.layer_calls.percentile_ms(0.99),
               fmt::format("{} -> {}", format_bytes(run.resident_before), format_bytes(run.resident_after)));
}

void measure(const Options& options) {
    const ModelSpec spec = cli::smollm2_135m_spec(kLayers);
    const GridShape shape = validated_grid_shape(spec, options.workers, {0, 0}).value();
    const std::uint64_t pool =
        bench_pool_bytes(spec, shape, options.context + kTokensBetweenTruncations, options.clients + 1);
    BenchGrid grid(options.workers, pool);
    const RegisteredModel model =
        grid.client().register_model(spec, {.grid = shape, .pool_bytes_per_worker = pool}).value();
    fmt::print("{} x {} parts, {} layers of 9/3 heads of 64, bf16, {} tokens of context each\n", shape.head_parts,
               shape.sequence_parts, kLayers, options.context);
    fmt::print("{:>11} {:>12} {:>14} {:>14} {:>22}\n", "", "steps/s", "layer p50 ms", "layer p99 ms",
               "workers' memory");
    const Run alone = run(grid, model, options, 1, options.steps / 10);
    print("1 client", alone);
    const GridOccupancy before = grid.client().occupancy().value();
    const Run together = run(grid, model, options, options.clients, options.steps);
    const GridOccupancy after = grid.client().occupancy().value();
    print(fmt::format("{} clients", options.clients), together);

    const double ratio = together.steps_per_second / alone.steps_per_second;
    const std::uint64_t calls = after.layer_calls - before.layer_calls;
    const std::uint64_t merged = after.merged_layer_calls - before.merged_layer_calls;
    fmt::print("throughput {:.2f} times that of one client (goal: {}); {} layer operations, {} calls shared one\n",
               ratio, kGoalRatio, calls, merged);
    fmt::print("memory {:+.2f} MiB over {} steps\n",
               (static_cast<double>(together.resident_after) - static_cast<double>(together.resident_before)) / 0x1p20,
               options.steps);
}

}  // namespace
}  // namespace kvgrid::bench

int main(int argc, char** argv) try {
    kvgrid::bench::Options options;
    CLI::App app{"Many clients that decode at once, against one alone."};
    app.add_option("--workers", options.workers)->check(CLI::Range(1, 64))->capture_default_str();
    app.add_option("--clients", options.clients)->check(CLI::Range(1, 512))->capture_default_str();
    app.add_option("--context", options.context)->check(CLI::Range(1, 1 << 20))->capture_default_str();
    app.add_option("--steps", options.steps)->check(CLI::Range(10, 10'000'000))->capture_default_str();
    CLI11_PARSE(app, argc, argv);
    kvgrid::bench::measure(options);
    return 0;
} catch (const std::exception& error) {
    fmt::print(stderr, "clients_bench: {}\n", error.what());
    return 1;
}
