#include <fmt/format.h>

#include <algorithm>

#include "client/cli/demo/demo_acts.h"
#include "client/cli/demo/long_context.h"
#include "client/cli/latencies.h"
#include "client/cli/occupancy_text.h"
#include "client/cli/replay/deviation.h"
#include "core/units.h"

namespace kvgrid::cli {

namespace {

using Seconds = std::chrono::duration<double>;

Status open_context(DemoStage& stage) {
    const DemoPlan& plan = stage.plan;
    auto model = stage.client.register_model(plan.long_model,
                                             {.grid = plan.grid, .pool_bytes_per_worker = plan.long_pool_bytes});
    if (!model) return model.error();
    auto context = stage.client.open(*model, {.expected_tokens = plan.context_tokens + plan.decode_tokens});
    if (!context) return context.error();
    stage.long_model = *std::move(model);
    stage.context.emplace(*std::move(context));
    return {};
}

Status fill(DemoStage& stage) {
    const std::int64_t total = stage.plan.context_tokens;
    const ModelSpec& spec = stage.long_model->spec;
    const TimePoint start = stage.clock.now();
    {
        Progress progress("fill", total, stage.progress_style, stage.clock);
        for (std::int64_t done = 0; done < total;) {
            if (Status go_on = stage.check_not_interrupted(); !go_on) return go_on;
            const int tokens = static_cast<int>(std::min<std::int64_t>(kChunkTokens, total - done));
            const KvChunk chunk = context_chunk(spec, done / kChunkTokens, tokens);
            if (Status written = write_chunk(stage.client, spec, *stage.context, chunk, tokens); !written)
                return written;
            done += tokens;
            if (!progress.is_due() && done < total) continue;
            const auto occupancy = stage.client.occupancy();
            if (!occupancy) return occupancy.error();
            progress.update(done, occupancy_line(*occupancy, stage.long_model->id));
        }
    }
    const Seconds took = stage.clock.now() - start;
    const auto bytes = static_cast<std::uint64_t>(total) * spec.token_bytes();
    const auto rate = static_cast<std::uint64_t>(static_cast<double>(bytes) / took.count());
    say(fmt::format("  filled with {} tokens, {} of keys and values, in {:.1f} s ({}/s)\n", total, format_bytes(bytes),
                    took.count(), format_bytes(rate)));
    stage.summary.emplace_back("context filled",
                               fmt::format("{} tokens, {}, in {:.1f} s", total, format_bytes(bytes), took.count()));
    return {};
}

// Answers of the last layer of the first decoded token, and what went into it.
struct FirstToken {
    NewTokens input;
    std::vector<std::byte> output;
};

struct Decoded {
    FirstToken first;
    Latencies layer_calls;
};

Status decode_token(DemoStage& stage, int token, Decoded& decoded) {
    const ModelSpec& spec = stage.long_model->spec;
    const StepPart part{&*stage.context, 1};
    auto step = stage.client.begin({&part, 1});
    if (!step) return step.error();
    for (int layer = 0; layer < spec.layer_count(); ++layer) {
        if (Status go_on = stage.check_not_interrupted(); !go_on) return go_on;
        NewTokens tokens = new_tokens(spec, static_cast<std::uint64_t>(token), layer, 1);
        const TimePoint start = stage.clock.now();
        auto output = step->layer(layer, tokens.input());
        if (!output) return output.error();
        decoded.layer_calls.add(stage.clock.now() - start);
        if (token == 0) decoded.first = {std::move(tokens), *std::move(output)};
    }
    return step->commit();
}

// In bf16 an answer is rounded by at most 2^-8, and on a GPU the weights are, too. The f32 sums below it are over up to 2^17 tokens: their roundings go up and down,
// 2^8.5 of 2^-24 of the weighted values' magnitude, which is at most some 2^3 times the answer's: far below 2^-11.
constexpr double kLongTolerance = 0x1p-7 + 0x1p-11;

Status check_first(DemoStage& stage, const FirstToken& first) {
    const ModelSpec& spec = stage.long_model->spec;
    const std::vector<double> exact = exact_first_row(spec, stage.plan.context_tokens, first.input);
    const std::vector<float> answer = analysis::floats_of(first.output, spec.dtype);
    const std::size_t dim = spec.head_dim;
    Deviation deviation;
    for (int head = 0; head < spec.query_heads; ++head) {
        const std::span expected = std::span(exact).subspan(head * dim, dim);
        deviation.add(std::span(answer).subspan(head * dim, dim), expected,
                      kLongTolerance * largest_magnitude(expected));
    }
    say(fmt::format(
        "  first decoded token, last layer, against fp64 attention over all {} tokens: {} rows, relative {:.1e} "
        "(tolerance {:.1e})\n",
        stage.plan.context_tokens + 1, deviation.rows, deviation.relative_max, kLongTolerance));
    if (deviation.rows_outside > 0) return {Errc::internal, "attention over the long context is not exact"};
    return {};
}

// All decoded tokens, with progress.
Result<Decoded> decode_tokens(DemoStage& stage) {
    const int count = stage.plan.decode_tokens;
    Decoded decoded;
    Progress progress("decode", count, stage.progress_style, stage.clock);
    for (int token = 0; token < count; ++token) {
        if (Status done = decode_token(stage, token, decoded); !done) return done.error();
        progress.update(token + 1);
    }
    return decoded;
}

void say_speed(DemoStage& stage, const Latencies& layer_calls, Seconds took) {
    const int count = stage.plan.decode_tokens;
    const ModelSpec& spec = stage.long_model->spec;
    const double p50_ms = layer_calls.percentile_ms(0.5);
    const double p99_ms = layer_calls.percentile_ms(0.99);
    const auto layer_bytes = static_cast<double>(stage.plan.context_tokens) * 2 * spec.row_bytes() * spec.kv_heads;
    say(fmt::format(
        "  decoded {} tokens in {:.1f} s: {:.2f} tokens/s; layer call p50 {:.2f} ms, p99 {:.2f} ms ({}/s of keys and "
        "values)\n",
        count, took.count(), count / took.count(), p50_ms, p99_ms,
        format_bytes(static_cast<std::uint64_t>(layer_bytes / (p50_ms / 1e3)))));
    stage.summary.emplace_back("decoded", fmt::format("{} tokens at {:.2f} tokens/s", count, count / took.count()));
    stage.summary.emplace_back("layer call", fmt::format("p50 {:.2f} ms, p99 {:.2f} ms", p50_ms, p99_ms));
}

// What the joins of the decoded tokens moved, by the workers' own counters.
void say_joined(DemoStage& stage, const GridOccupancy& before, const GridOccupancy& after) {
    const std::uint64_t calls = after.layer_calls - before.layer_calls;
    const std::uint64_t bytes = calls ? (after.join_bytes - before.join_bytes) / calls : 0;
    say(fmt::format("  between the workers: {} bytes per layer call, whatever the context's length\n", bytes));
    stage.summary.emplace_back("joined", fmt::format("{} bytes between workers per layer call", bytes));
}

Status decode(DemoStage& stage) {
    const auto before = stage.client.occupancy();
    if (!before) return before.error();
    const TimePoint start = stage.clock.now();
    const auto decoded = decode_tokens(stage);
    if (!decoded) return decoded.error();
    const Seconds took = stage.clock.now() - start;
    const auto after = stage.client.occupancy();
    if (!after) return after.error();
    say_speed(stage, decoded->layer_calls, took);
    say_joined(stage, *before, *after);
    return check_first(stage, decoded->first);
}

}  // namespace

Status demo_long_context(DemoStage& stage) {
    const ModelSpec& spec = stage.plan.long_model;
    say(fmt::format("\n2. A context of {} tokens: {} layers, {} query and {} KV heads of {}, {}\n",
                    stage.plan.context_tokens, spec.layer_count(), spec.query_heads, spec.kv_heads, spec.head_dim,
                    name_of(spec.dtype)));
    if (!stage.plan.why_fewer_tokens.empty()) say("  " + stage.plan.why_fewer_tokens + "\n");
    if (Status opened = open_context(stage); !opened) return opened;
    if (Status filled = fill(stage); !filled) return filled;
    const auto occupancy = stage.client.occupancy();
    if (!occupancy) return occupancy.error();
    say(occupancy_table(*occupancy, stage.long_model->id));
    return decode(stage);
}

}  // namespace kvgrid::cli
