#include "client/cli/bench/bench.h"

#include <atomic>
#include <chrono>
#include <thread>

#include "client/cli/demo/long_context.h"

namespace kvgrid::cli {

namespace {

using SteadyTime = std::chrono::steady_clock::time_point;

constexpr int kWarmUpSteps = 1;
constexpr std::chrono::milliseconds kProgressInterval{5};  // also how exactly the end of the last client is seen

double seconds_since(SteadyTime start) {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// One measuring client with its sequences.
struct Lane {
    Client client;
    std::vector<Sequence> sequences;
    Latencies layer_calls;
    Status status;

    std::vector<StepPart> parts(int tokens) const {
        std::vector<StepPart> all;
        for (const Sequence& sequence : sequences) all.push_back({&sequence, tokens});
        return all;
    }
};

class Bench {
  public:
    Bench(const RegisteredModel& model, const BenchPlan& plan, const BenchHooks& hooks)
        : model_(model), plan_(plan), hooks_(hooks) {}

    Status open(const std::function<Result<Client>()>& connect) {
        for (int lane = 0; lane < plan_.clients; ++lane) {
            auto client = connect();
            if (!client) return client.error();
            lanes_.push_back({.client = *std::move(client), .sequences = {}, .layer_calls = {}, .status = {}});
            for (int at = 0; at < plan_.batch; ++at) {
                auto sequence = lanes_.back().client.open(model_);
                if (!sequence) return sequence.error();
                lanes_.back().sequences.push_back(*std::move(sequence));
            }
        }
        return {};
    }

    Status fill() {
        const std::int64_t total = plan_.context * plan_.clients * plan_.batch;
        std::int64_t done = 0;
        for (Lane& lane : lanes_) {
            for (const Sequence& sequence : lane.sequences) {
                for (std::int64_t at = 0; at < plan_.context; at += kChunkTokens) {
                    const int tokens = static_cast<int>(std::min<std::int64_t>(kChunkTokens, plan_.context - at));
                    const KvChunk chunk = context_chunk(plan_.spec, at / kChunkTokens, tokens);
                    if (Status written = write_chunk(lane.client, plan_.spec, sequence, chunk, tokens); !written)
                        return written;
                    if (Status go_on = advance("fill", done += tokens, total); !go_on) return go_on;
                }
            }
        }
        return {};
    }

    // One chunk of the first client's first sequence, taken back at the end.
    Status prefill(BenchReport& report) {
        if (plan_.prefill_tokens == 0) return {};
        const StepPart part{&lanes_[0].sequences[0], plan_.prefill_tokens};
        std::vector<NewTokens> layers;
        for (int layer = 0; layer < plan_.spec.layer_count(); ++layer)
            layers.push_back(new_tokens(plan_.spec, 0, layer, plan_.prefill_tokens));
        const SteadyTime start = std::chrono::steady_clock::now();
        auto step = lanes_[0].client.begin({&part, 1});
        if (!step) return step.error();
        for (int layer = 0; layer < plan_.spec.layer_count(); ++layer) {
            if (Status go_on = advance("prefill", layer, plan_.spec.layer_count()); !go_on) return go_on;
            if (auto output = step->layer(layer, layers[layer].input()); !output) return output.error();
        }
        report.prefill_seconds = seconds_since(start);
        if (Status go_on = advance("prefill", plan_.spec.layer_count(), plan_.spec.layer_count()); !go_on) return go_on;
        return step->abort();
    }

    Status decode(BenchReport& report) {
        for (Lane& lane : lanes_) {
            if (Status warm = decode_steps(lane, kWarmUpSteps); !warm) return warm;
            lane.layer_calls = {};
        }
        const auto before = lanes_[0].client.occupancy();
        if (!before) return before.error();
        const SteadyTime start = std::chrono::steady_clock::now();
        if (Status done = decode_at_once(); !done) return done;
        report.decode_seconds = seconds_since(start);
        const auto after = lanes_[0].client.occupancy();
        if (!after) return after.error();
        report.grid_layer_calls = after->layer_calls - before->layer_calls;
        report.merged_layer_calls = after->merged_layer_calls - before->merged_layer_calls;
        report.join_bytes = after->join_bytes - before->join_bytes;
        report.decoded_tokens = std::int64_t{plan_.clients} * plan_.batch * plan_.steps;
        for (const Lane& lane : lanes_) report.layer_calls.add(lane.layer_calls);
        return {};
    }

  private:
    Status advance(const char* phase, std::int64_t done, std::int64_t total) const {
        if (hooks_.progress) hooks_.progress(phase, done, total);
        if (hooks_.interrupted && hooks_.interrupted()) return {Errc::unavailable, "interrupted"};
        return {};
    }

    Status decode_steps(Lane& lane, int steps) {
        std::vector<NewTokens> inputs;
        for (int layer = 0; layer < plan_.spec.layer_count(); ++layer)
            inputs.push_back(new_tokens(plan_.spec, 1, layer, plan_.batch));
        for (int at = 0; at < steps; ++at) {
            auto step = lane.client.begin(lane.parts(1));
            if (!step) return step.error();
            for (int layer = 0; layer < plan_.spec.layer_count(); ++layer) {
                if (hooks_.interrupted && hooks_.interrupted()) return {Errc::unavailable, "interrupted"};
                const SteadyTime start = std::chrono::steady_clock::now();
                if (auto output = step->layer(layer, inputs[layer].input()); !output) return output.error();
                lane.layer_calls.add(std::chrono::steady_clock::now() - start);
            }
            if (Status committed = step->commit(); !committed) return committed;
            ++steps_done_;
        }
        return {};
    }

    Status decode_at_once() {
        steps_done_ = 0;
        const std::int64_t total = std::int64_t{plan_.clients} * plan_.steps;
        {
            std::vector<std::jthread> threads;
            std::atomic<int> running = plan_.clients;
            for (Lane& lane : lanes_) {
                threads.emplace_back([this, &lane, &running] {
                    lane.status = decode_steps(lane, plan_.steps);
                    --running;
                });
            }
            while (running > 0) {
                (void)advance("decode", steps_done_, total);  // the threads ask for themselves whether to go on
                std::this_thread::sleep_for(kProgressInterval);
            }
        }
        (void)advance("decode", total, total);
        for (const Lane& lane : lanes_) {
            if (!lane.status) return lane.status;
        }
        return {};
    }

    const RegisteredModel& model_;
    const BenchPlan& plan_;
    const BenchHooks& hooks_;
    std::vector<Lane> lanes_;
    std::atomic<std::int64_t> steps_done_ = 0;
};

}  // namespace

std::uint64_t BenchPlan::pool_bytes_per_worker(const GridShape& grid) const {
    const std::int64_t tokens = context + prefill_tokens + steps + kWarmUpSteps;
    // A sequence part has every sequence_parts-th page; the fullest one has one more, and a step may begin another.
    const std::int64_t pages = (tokens + kPageTokens - 1) / kPageTokens / grid.sequence_parts + 2;
    const std::int64_t heads = (spec.kv_heads + grid.head_parts - 1) / grid.head_parts;
    return static_cast<std::uint64_t>(pages * heads * clients * batch) * spec.kv_layers().size() * spec.page_bytes();
}

std::uint64_t BenchPlan::kv_bytes_per_layer_call() const {
    return static_cast<std::uint64_t>(batch * context) * 2 * spec.row_bytes() * spec.kv_heads;
}

std::uint64_t BenchPlan::kv_bytes() const {
    return kv_bytes_per_layer_call() * clients * spec.kv_layers().size();
}

Result<BenchReport> run_bench(const std::function<Result<Client>()>& connect, const RegisteredModel& model,
                              const BenchPlan& plan, const BenchHooks& hooks) {
    BenchReport report{.model = model.spec.name, .grid = model.grid};
    Bench bench(model, plan, hooks);
    if (Status opened = bench.open(connect); !opened) return opened.error();
    if (Status filled = bench.fill(); !filled) return filled.error();
    if (Status prefilled = bench.prefill(report); !prefilled) return prefilled.error();
    if (Status decoded = bench.decode(report); !decoded) return decoded.error();
    return report;
}

}  // namespace kvgrid::cli
