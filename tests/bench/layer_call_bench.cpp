// One layer call of one new token on a context of 256: through client, lead, fan-out, join and back, over real processes, against the
// machine's own blocking round trip of the same bytes over a Unix socket. Calls and round trips alternate in short blocks, so that what
// disturbs the machine hits both; the best block says what both do when nothing disturbs them.
//
//   layer_call_bench [--benchmark_filter=grid:2x2]      KVGRID_BLOCKS=n (default 200)
//
//   call_p50_us, call_p99_us   Step::layer; compute_us and join_us are the lead's parts of it, kernels and join, by its own clock
//   floor_p50_us, floor_p99_us the round trip
//   ratio, ratio_best          of the p50s of all blocks, and of the lowest p50s of one block
//   goal                       what `ratio` is to stay under; 0: none is set

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstdlib>
#include <stdexcept>
#include <string>

#include "client/cli/demo/long_context.h"
#include "client/cli/latencies.h"
#include "client/cli/local/local_cluster.h"
#include "client/kvgrid.h"
#include "comm/rpc/channel.h"
#include "comm/wire/messages.h"
#include "tests/bench/socket_echo.h"

namespace kvgrid::bench {
namespace {

using cli::Latencies;
using comm::MessageType;

constexpr int kContextTokens = 256;
constexpr int kLayers = 4;  // their KV stays in the caches: it is the path that is measured, not the memory
constexpr int kCallsPerBlock = 10 * kLayers;
constexpr std::size_t kFrameBytes = 48;  // what a frame has around the tensors

struct Case {
    GridShape grid;
    int query_heads, kv_heads, head_dim;
    double goal;
};

ModelSpec spec_of(const Case& run) {
    ModelSpec spec{.name = "bench",
                   .layers = {},
                   .query_heads = run.query_heads,
                   .kv_heads = run.kv_heads,
                   .head_dim = run.head_dim,
                   .dtype = Dtype::bf16,
                   .scale = 0.125};
    for (int layer = 0; layer < kLayers; ++layer) spec.layers.push_back({.kv_layer = layer});
    return spec;
}

// Latencies of all blocks, and the lowest p50 of one.
class Blocks {
  public:
    void add(const std::vector<std::chrono::nanoseconds>& block) {
        Latencies own;
        for (const auto latency : block) {
            all_.add(latency);
            own.add(latency);
        }
        best_us_ = std::min(best_us_, own.percentile_ms(0.5) * 1e3);
    }
    double percentile_us(double share) const { return all_.percentile_ms(share) * 1e3; }
    double best_us() const { return best_us_; }

  private:
    Latencies all_;
    double best_us_ = 1e9;
};

// A sequence of 256 tokens on a cluster of its own; its calls, by the client or by bare frames, leave it as it was.
class Bed {
  public:
    explicit Bed(const Case& run)
        : spec_(spec_of(run)),
          tokens_(cli::new_tokens(spec_, 1, 0, 1)),
          cluster_(cli::LocalCluster::start({.workers = run.grid.workers(),
                                             .memory_bytes_per_worker = std::uint64_t{64} << 20,
                                             .interrupted = {}})
                       .value()),
          client_(Client::connect(cluster_.endpoint()).value()),
          model_(client_.register_model(spec_, {.grid = run.grid}).value()),
          sequence_(client_.open(model_).value()) {
        cli::write_chunk(client_, spec_, sequence_, cli::context_chunk(spec_, 0, kContextTokens), kContextTokens)
            .value();
        const ClusterStatus status = client_.status().value();
        generation_ = status.generation.value;
        const auto lead = std::ranges::find(status.workers, 0, &ClusterWorker::rank);
        lead_.emplace(io_, comm::parse_endpoint(lead->endpoint).value());
    }

    std::vector<std::chrono::nanoseconds> calls() {
        std::vector<std::chrono::nanoseconds> latencies;
        while (latencies.size() < kCallsPerBlock) {
            const StepPart part{&sequence_, 1};
            Step step = client_.begin({&part, 1}).value();
            for (int layer = 0; layer < kLayers; ++layer) {
                const auto start = std::chrono::steady_clock::now();
                benchmark::DoNotOptimize(step.layer(layer, tokens_.input()).value());
                latencies.push_back(std::chrono::steady_clock::now() - start);
            }
            step.commit().value();
            sequence_.truncate(kContextTokens).value();
        }
        return latencies;
    }

    // The lead's own times are in its replies, which the client does not show.
    void add_lead_times(Latencies& compute, Latencies& join) {
        wire::BeginStepRequest begin;
        begin.set_model(model_.id.value);
        auto& part = *begin.add_parts();
        part.set_sequence(sequence_.id().value);
        part.set_tokens(1);
        wire::StepRequest end;
        end.set_step(ask<wire::BeginStepReply>(MessageType::begin_step, begin, {}).step());
        std::vector<std::byte> tensors;
        for (const auto* tensor : {&tokens_.q, &tokens_.k, &tokens_.v})
            tensors.insert(tensors.end(), tensor->begin(), tensor->end());
        for (int layer = 0; layer < kLayers; ++layer) {
            wire::LayerRequest call;
            call.set_step(end.step());
            call.set_layer(layer);
            const auto reply = ask<wire::LayerReply>(MessageType::layer, call, comm::Payload::copy_of(tensors));
            compute.add(std::chrono::nanoseconds(reply.compute_ns()));
            join.add(std::chrono::nanoseconds(reply.join_ns()));
        }
        ask<wire::Empty>(MessageType::abort_step, end, {});
    }

    std::size_t request_bytes() const { return tokens_.q.size() + tokens_.k.size() + tokens_.v.size() + kFrameBytes; }
    std::size_t reply_bytes() const { return tokens_.q.size() + kFrameBytes; }

  private:
    template <class Reply>
    Reply ask(MessageType type, const google::protobuf::MessageLite& message, comm::Payload payload) {
        const auto frame = lead_->call(type, generation_, comm::pack(message), std::move(payload),
                                       deadline_in(std::chrono::seconds(10)));
        return comm::unpack<Reply>(frame.value()).value();
    }

    const ModelSpec spec_;
    const cli::NewTokens tokens_;
    cli::LocalCluster cluster_;
    Client client_;
    RegisteredModel model_;
    Sequence sequence_;
    std::uint64_t generation_ = 0;
    comm::IoThread io_;
    std::optional<comm::Channel> lead_;
};

int block_count() {
    const char* given = std::getenv("KVGRID_BLOCKS");
    return given ? std::max(1, std::atoi(given)) : 200;
}

void layer_call(benchmark::State& state, const Case& run) {
    Bed bed(run);
    SocketEcho floor(bed.request_bytes(), bed.reply_bytes());
    bed.calls();
    Blocks calls, round_trips;
    Latencies compute, join;
    for (auto _ : state) {
        for (int block = 0; block < block_count(); ++block) {
            calls.add(bed.calls());
            std::vector<std::chrono::nanoseconds> floors(kCallsPerBlock);
            for (auto& latency : floors) latency = floor.round_trip();
            round_trips.add(floors);
            bed.add_lead_times(compute, join);
        }
        state.SetIterationTime(calls.percentile_us(0.5) / 1e6);
    }
    const std::pair<const char*, double> counters[] = {
        {"call_p50_us", calls.percentile_us(0.5)},
        {"call_p99_us", calls.percentile_us(0.99)},
        {"floor_p50_us", round_trips.percentile_us(0.5)},
        {"floor_p99_us", round_trips.percentile_us(0.99)},
        {"ratio", calls.percentile_us(0.5) / round_trips.percentile_us(0.5)},
        {"call_best_us", calls.best_us()},
        {"floor_best_us", round_trips.best_us()},
        {"ratio_best", calls.best_us() / round_trips.best_us()},
        {"goal", run.goal},
        {"compute_us", compute.percentile_ms(0.5) * 1e3},
        {"join_us", join.percentile_ms(0.5) * 1e3},
    };
    for (const auto& [name, value] : counters) state.counters[name] = value;
}

void add_cases() {
    const std::pair<GridShape, double> grids[] = {{{1, 1}, 2.5}, {{2, 1}, 4}, {{1, 2}, 0}, {{2, 2}, 8}};
    for (const auto& [grid, goal] : grids) {
        for (const Case& run : {Case{grid, 32, 8, 128, goal}, Case{grid, 9, 3, 64, goal}}) {
            const std::string name = "layer_call/grid:" + std::to_string(grid.head_parts) + "x" +
                                     std::to_string(grid.sequence_parts) + "/heads:" + std::to_string(run.query_heads) +
                                     "x" + std::to_string(run.kv_heads) + "/d:" + std::to_string(run.head_dim);
            benchmark::RegisterBenchmark(name.c_str(), layer_call, run)
                ->UseManualTime()
                ->Iterations(1)
                ->Unit(benchmark::kMicrosecond);
        }
    }
}

}  // namespace
}  // namespace kvgrid::bench

int main(int argc, char** argv) {
    kvgrid::bench::add_cases();
    benchmark::Initialize(&argc, argv);
    if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
    benchmark::RunSpecifiedBenchmarks();
    benchmark::Shutdown();
    return 0;
}
