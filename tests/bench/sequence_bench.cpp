// What it costs to open, fork and close sequences: through the coordinator, which writes its catalogue, and every worker's page tables.
//
//   sequence_bench [--workers 1] [--contexts 1024 16384 131072] [--turns 20]
//
//   pages          of one sequence, of all heads and layers, over all workers
//   open           of an empty sequence; p50 in ms, as all
//   fork           of one with so many tokens: its pages are shared
//   first token    on a fork, through all layers: the page that it is in is copied first
//   close fork     gives one page table back
//   close          of the last one: the pages are free again; of 3, which are filled for it
//   ns/page        of what fork and close take beyond those of an empty sequence

#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include "tests/bench/bench_grid.h"

namespace kvgrid::bench {
namespace {

constexpr int kLayers = 4;
constexpr int kFills = 3;

struct Options {
    int workers = 1;
    std::vector<std::int64_t> contexts{1'024, 16'384, 131'072};
    int turns = 20;
};

template <class Call>
auto timed(cli::Latencies& latencies, Call&& call) {
    const auto start = std::chrono::steady_clock::now();
    auto result = call();
    latencies.add(std::chrono::steady_clock::now() - start);
    return result;
}

double ms(const cli::Latencies& latencies) {
    return latencies.percentile_ms(0.5);
}

struct Times {
    cli::Latencies open, close_empty, fork, first_token, close_fork, close;
};

Times measure_at(Client& client, const RegisteredModel& model, std::int64_t context, int turns) {
    const cli::NewTokens token = cli::new_tokens(model.spec, 1, 0, 1);
    Times times;
    for (int turn = 0; turn < turns; ++turn) {
        Sequence empty = timed(times.open, [&] { return client.open(model).value(); });
        timed(times.close_empty, [&] { return empty.close(); }).value();
    }
    for (int filled = 0; filled < kFills; ++filled) {
        Sequence sequence = client.open(model).value();
        fill(client, model.spec, sequence, context);
        for (int turn = 0; turn < turns; ++turn) {
            Sequence fork = timed(times.fork, [&] { return sequence.fork().value(); });
            cli::Latencies layer_calls;
            timed(times.first_token, [&] {
                decode_one(client, model.spec, fork, token, layer_calls);
                return 0;
            });
            timed(times.close_fork, [&] { return fork.close(); }).value();
        }
        timed(times.close, [&] { return sequence.close(); }).value();
    }
    return times;
}

void measure(const Options& options) {
    const ModelSpec spec = bench_model("sequences", kLayers);
    const GridShape shape = validated_grid_shape(spec, options.workers, {0, 0}).value();
    const std::int64_t longest = std::ranges::max(options.contexts);
    const std::uint64_t pool = bench_pool_bytes(spec, shape, longest, 1) + bench_pool_bytes(spec, shape, 0, 4);
    BenchGrid grid(options.workers, pool);
    const RegisteredModel model =
        grid.client().register_model(spec, {.grid = shape, .pool_bytes_per_worker = pool}).value();
    fmt::print("{} x {} parts, {} layers of 32/8 heads of 128, bf16; p50 in ms\n", shape.head_parts,
               shape.sequence_parts, kLayers);
    fmt::print("{:>9} {:>8} {:>8} {:>8} {:>12} {:>11} {:>8} {:>22}\n", "tokens", "pages", "open", "fork", "first token",
               "close fork", "close", "ns/page: fork, close");
    for (const std::int64_t context : options.contexts) {
        const Times times = measure_at(grid.client(), model, context, options.turns);
        const std::int64_t pages = (context + kPageTokens - 1) / kPageTokens * spec.kv_heads * kLayers;
        const auto per_page = [&](double whole, double empty) {
            return std::max(0.0, (whole - empty) * 1e6 / static_cast<double>(pages));
        };
        fmt::print("{:>9} {:>8} {:>8.3f} {:>8.3f} {:>12.3f} {:>11.3f} {:>8.3f} {:>22}\n", context, pages,
                   ms(times.open), ms(times.fork), ms(times.first_token), ms(times.close_fork), ms(times.close),
                   fmt::format("{:.1f}, {:.1f}", per_page(ms(times.fork), ms(times.open)),
                               per_page(ms(times.close), ms(times.close_empty))));
    }
}

}  // namespace
}  // namespace kvgrid::bench

int main(int argc, char** argv) try {
    kvgrid::bench::Options options;
    CLI::App app{"What it costs to open, fork and close sequences."};
    app.add_option("--workers", options.workers)->check(CLI::Range(1, 64))->capture_default_str();
    app.add_option("--contexts", options.contexts)->check(CLI::Range(1, 1 << 24))->capture_default_str();
    app.add_option("--turns", options.turns)->check(CLI::Range(1, 10'000))->capture_default_str();
    CLI11_PARSE(app, argc, argv);
    kvgrid::bench::measure(options);
    return 0;
} catch (const std::exception& error) {
    fmt::print(stderr, "sequence_bench: {}\n", error.what());
    return 1;
}
