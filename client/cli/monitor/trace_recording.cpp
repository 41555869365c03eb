#include "client/cli/monitor/trace_recording.h"

#include <fmt/format.h>

#include <algorithm>
#include <thread>

#include "client/cli/monitor/chrome_trace.h"
#include "core/clock.h"

namespace kvgrid::cli {

namespace {

constexpr std::chrono::milliseconds kPollInterval{200};  // each poll is an operation of the grid, and in the recording
constexpr int kContextTokens = 256;

std::int64_t now_ns() {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
        .count();
}

// Decode steps of a small model with the head shape of an 8B one.
class OwnSteps {
  public:
    static Result<OwnSteps> prepare(Client& client, int steps) {
        ModelSpec spec =
            parse_model_spec(R"({"name": "kvgrid-trace-record", "layers": 4, "query_heads": 32, "kv_heads": 8,
                                              "head_dim": 128, "dtype": "bf16"})")
                .value();
        const std::uint64_t pages = spec.layer_count() * spec.kv_heads * (kContextTokens / kPageTokens + 2);
        auto model = client.register_model(spec, {.pool_bytes_per_worker = pages * spec.page_bytes()});
        if (!model) return model.error();
        auto sequence = client.open(*model);
        if (!sequence) return sequence.error();
        OwnSteps own(client, spec, *std::move(sequence));
        if (Status filled = own.step(kContextTokens); !filled) return filled.error();
        if (steps > kPageTokens)
            return {Errc::invalid_argument, fmt::format("{} steps of its own: at most {}", steps, kPageTokens)};
        own.spans_.clear();
        return own;
    }

    Status run(int steps) {
        for (int i = 0; i < steps; ++i) {
            if (Status done = step(1); !done) return done;
        }
        return {};
    }

    const std::vector<ClientSpan>& spans() const { return spans_; }

  private:
    OwnSteps(Client& client, ModelSpec spec, Sequence sequence)
        : client_(&client), spec_(std::move(spec)), sequence_(std::move(sequence)) {}

    template <class Call>
    auto timed(std::string name, Call call) {
        const std::int64_t start = now_ns();
        auto result = call();
        spans_.push_back({std::move(name), start, now_ns()});
        return result;
    }

    Status step(int tokens) {
        const std::vector<std::byte> q(tokens * spec_.query_heads * spec_.row_bytes());
        const std::vector<std::byte> kv(tokens * spec_.kv_heads * spec_.row_bytes());
        const StepPart part{&sequence_, tokens};
        auto step = timed("begin", [&] { return client_->begin({&part, 1}); });
        if (!step) return step.error();
        for (int layer = 0; layer < spec_.layer_count(); ++layer) {
            const auto output = timed(fmt::format("call of layer {}", layer), [&] {
                return step->layer(layer, {q, kv, kv});
            });
            if (!output) return output.error();
        }
        return timed("commit", [&] { return step->commit(); });
    }

    Client* client_;
    ModelSpec spec_;
    Sequence sequence_;
    std::vector<ClientSpan> spans_;
};

bool is_finished(const GridTrace& trace) {
    return std::ranges::all_of(trace.ranks, &RankTrace::finished);
}

Result<GridTrace> wait_until_finished(Client& client, const TraceRecordingOptions& options, Deadline deadline) {
    for (;;) {
        auto trace = client.take_trace();
        if (!trace || is_finished(*trace)) return trace;
        if (options.interrupted && options.interrupted()) return trace;
        if (std::chrono::steady_clock::now() >= deadline) return trace;
        std::this_thread::sleep_for(kPollInterval);
    }
}

}  // namespace

Result<RecordedTrace> record_trace(Client& client, const TraceRecordingOptions& options) {
    std::optional<OwnSteps> own;
    if (options.own_steps) {
        auto prepared = OwnSteps::prepare(client, options.steps);
        if (!prepared) return prepared.error();
        own.emplace(*std::move(prepared));
    }
    const Deadline deadline = deadline_in(options.timeout);
    if (Status started = client.start_trace({options.steps, options.timeout, options.spans_max}); !started)
        return started.error();
    if (own) {
        if (Status ran = own->run(options.steps); !ran) return ran.error();
    }
    const auto trace = wait_until_finished(client, options, deadline);
    if (!trace) return trace.error();
    RecordedTrace recorded;
    for (const RankTrace& rank : trace->ranks) {
        recorded.span_count += rank.spans.size();
        recorded.dropped += rank.dropped;
        recorded.steps = std::max(recorded.steps, rank.steps);
    }
    if (recorded.steps == 0)
        return {Errc::deadline_exceeded,
                fmt::format("nobody ran a step within {} ms: record while a client works, or steps of your own",
                            options.timeout.count())};
    recorded.json = chrome_trace(*trace, own ? own->spans() : std::vector<ClientSpan>{});
    return recorded;
}

}  // namespace kvgrid::cli
