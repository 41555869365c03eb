#include "client/cli/replay/replay.h"

#include <algorithm>
#include <chrono>

#include "client/cli/replay/exact_attention.h"

namespace kvgrid::cli {

namespace {

using analysis::Trace;
using analysis::TraceLayer;

constexpr double kF32Arithmetic = 0x1p-17;

// One layer's tensors as they travel.
struct Sent {
    std::vector<std::byte> q, k, v;
};

std::vector<Sent> rounded_layers(const Trace& trace, Dtype dtype) {
    std::vector<Sent> layers;
    for (const TraceLayer& layer : trace.layers) {
        layers.push_back({analysis::bytes_of(layer.q, dtype), analysis::bytes_of(layer.k, dtype),
                          analysis::bytes_of(layer.v, dtype)});
    }
    return layers;
}

struct TokenRange {
    int first;
    int count;
};

std::span<const std::byte> rows_of(const std::vector<std::byte>& tensor, const TokenRange& tokens,
                                   std::size_t row_bytes) {
    return std::span(tensor).subspan(tokens.first * row_bytes, tokens.count * row_bytes);
}

// K and V as one step's attention saw them.
struct Kept {
    int token_end;  // of the step
    KvRows rows;    // of the tokens before
};

struct LayerAnswers {
    std::vector<std::byte> o;  // of all tokens
    std::vector<Kept> kept;    // of each step; empty where K and V are kept as they are sent
};

// One step of some tokens through all layers; appends to each layer's answers.
Status replay_step(Client& client, const ModelSpec& spec, const Sequence& sequence, const std::vector<Sent>& layers,
                   const TokenRange& tokens, std::vector<LayerAnswers>& answers) {
    const StepPart part{&sequence, tokens.count};
    auto step = client.begin({&part, 1});
    if (!step) return step.error();
    const std::size_t query_bytes = spec.row_bytes() * spec.query_heads;
    const std::size_t kv_bytes = spec.row_bytes() * spec.kv_heads;
    for (std::size_t layer = 0; layer < layers.size(); ++layer) {
        const Sent& sent = layers[layer];
        auto answer = step->layer(static_cast<int>(layer), {.q = rows_of(sent.q, tokens, query_bytes),
                                                            .k = rows_of(sent.k, tokens, kv_bytes),
                                                            .v = rows_of(sent.v, tokens, kv_bytes)});
        if (!answer) return answer.error();
        answers[layer].o.insert(answers[layer].o.end(), answer->begin(), answer->end());
    }
    if (Status committed = step->commit(); !committed || spec.kv_dtype == KvDtype::as_model) return committed;
    const int token_end = tokens.first + tokens.count;
    for (std::size_t layer = 0; layer < layers.size(); ++layer) {
        auto rows = sequence.read_kv(static_cast<int>(layer), 0, token_end);
        if (!rows) return rows.error();
        answers[layer].kept.push_back({token_end, *std::move(rows)});
    }
    return {};
}

// The prefill in one step, then token by token. Answers: [layer].
Result<std::vector<LayerAnswers>> replay_steps(Client& client, const RegisteredModel& model, const Trace& trace,
                                               const std::vector<Sent>& layers, const ReplayHooks& hooks) {
    auto sequence = client.open(model, {.expected_tokens = trace.token_count()});
    if (!sequence) return sequence.error();
    std::vector<LayerAnswers> answers(layers.size());
    TokenRange tokens{0, std::max(1, trace.prefill_tokens)};
    while (tokens.first < trace.token_count()) {
        if (hooks.interrupted && hooks.interrupted()) return {Errc::unavailable, "interrupted during the replay"};
        if (Status done = replay_step(client, model.spec, *sequence, layers, tokens, answers); !done)
            return done.error();
        tokens = {tokens.first + tokens.count, 1};
        if (hooks.progress) hooks.progress(tokens.first);
    }
    if (Status closed = sequence->close(); !closed) return closed.error();
    return answers;
}

// q, k and v of one layer, as numbers.
struct Inputs {
    std::span<const float> q, k, v;
};

// fp64 attention of query row `row` (token and head): [head_dim].
std::vector<double> exact_row(const Trace& trace, const Inputs& inputs, std::size_t row) {
    const ModelSpec& spec = trace.spec;
    const std::size_t dim = spec.head_dim;
    const std::size_t token = row / spec.query_heads;
    const std::size_t kv_head = row % spec.query_heads / spec.group();
    ExactAttention attention(inputs.q.subspan(row * dim, dim), spec.scale);
    for (std::size_t seen = 0; seen <= token; ++seen) {
        const std::size_t at = (seen * spec.kv_heads + kv_head) * dim;
        attention.see(inputs.k.subspan(at, dim), inputs.v.subspan(at, dim));
    }
    return attention.output();
}

// K and V as numbers, by the token that attends.
class KeptNumbers {
  public:
    KeptNumbers(const LayerAnswers& answers, const Inputs& sent, Dtype dtype) : answers_(answers), sent_(sent) {
        for (const Kept& kept : answers.kept) {
            steps_.push_back({analysis::floats_of(kept.rows.k, dtype), analysis::floats_of(kept.rows.v, dtype)});
        }
    }

    Inputs for_token(int token) const {
        if (steps_.empty()) return sent_;
        const auto step = std::ranges::upper_bound(answers_.kept, token, {}, &Kept::token_end);
        const Numbers& numbers = steps_[step - answers_.kept.begin()];
        return {sent_.q, numbers.k, numbers.v};
    }

  private:
    struct Numbers {
        std::vector<float> k, v;
    };
    const LayerAnswers& answers_;
    Inputs sent_;
    std::vector<Numbers> steps_;
};

ReplayLayer check_layer(const Trace& trace, const TraceLayer& recorded, Dtype dtype, const Sent& sent,
                        const LayerAnswers& answers) {
    const std::vector<float> answer = analysis::floats_of(answers.o, dtype);
    const auto q = analysis::floats_of(sent.q, dtype), k = analysis::floats_of(sent.k, dtype),
               v = analysis::floats_of(sent.v, dtype);
    const Inputs sent_numbers{q, k, v}, recorded_numbers{recorded.q, recorded.k, recorded.v};
    const KeptNumbers kept(answers, sent_numbers, dtype);
    const bool is_exact = dtype == Dtype::f32, is_lossy = !answers.kept.empty();
    // The output is rounded to the dtype, and on a GPU the weights are, too.
    const double arithmetic = kF32Arithmetic + (is_exact ? 0 : 2 * unit_roundoff(dtype));
    const std::size_t dim = trace.spec.head_dim;

    ReplayLayer result{recorded.model_layer, {}, {}};
    if (is_lossy) result.from_sent.emplace();
    for (std::size_t row = 0; row < answer.size() / dim; ++row) {
        const std::span answer_row = std::span(answer).subspan(row * dim, dim);
        const int token = static_cast<int>(row / trace.spec.query_heads);
        const std::vector<double> reference = exact_row(trace, kept.for_token(token), row);
        const std::vector<double> unrounded = is_exact ? reference : exact_row(trace, recorded_numbers, row);
        const std::vector<double> model(recorded.o.begin() + row * dim, recorded.o.begin() + (row + 1) * dim);

        const double tolerance = arithmetic * largest_magnitude(reference);
        result.from_reference.add(answer_row, reference, tolerance);
        result.from_model.add(
            answer_row, model,
            tolerance + kF32Arithmetic * largest_magnitude(model) + largest_difference(reference, unrounded));
        if (!is_lossy) continue;
        const std::vector<double> exact = exact_row(trace, sent_numbers, row);
        result.from_sent->add(answer_row, exact, tolerance + largest_difference(reference, exact));
    }
    return result;
}

}  // namespace

bool ReplayReport::passed() const {
    const std::int64_t rows_min = 1;  // having checked nothing is no success
    return !layers.empty() && std::ranges::all_of(layers, [&](const ReplayLayer& layer) {
        return layer.from_reference.rows >= rows_min && layer.from_reference.rows_outside == 0 &&
               layer.from_model.rows_outside == 0;
    });
}

ModelSpec replay_spec(const Trace& trace, Dtype dtype, KvDtype kv_dtype) {
    ModelSpec spec = trace.spec;
    spec.dtype = dtype;
    spec.kv_dtype = kv_dtype;
    spec.name += std::string(".") + name_of(dtype);
    if (kv_dtype != KvDtype::as_model) spec.name += std::string(".") + name_of(kv_dtype);
    return spec;
}

std::uint64_t replay_pool_bytes(const Trace& trace, Dtype dtype, const GridShape& grid, int copies) {
    const ModelSpec spec = replay_spec(trace, dtype);
    const std::uint64_t pages_of_stream = trace.token_count() / kPageTokens / grid.sequence_parts + 1;
    return pages_of_stream * kv_heads_per_part_max(spec, grid) * spec.kv_layers().size() * spec.page_bytes() * copies;
}

Result<ReplayReport> replay(Client& client, const RegisteredModel& model, const Trace& trace,
                            const ReplayHooks& hooks) {
    const Dtype dtype = model.spec.dtype;
    const std::vector<Sent> layers = rounded_layers(trace, dtype);
    const auto start = std::chrono::steady_clock::now();
    const auto answers = replay_steps(client, model, trace, layers, hooks);
    if (!answers) return answers.error();
    const std::chrono::duration<double> in_grid = std::chrono::steady_clock::now() - start;

    ReplayReport report{.model = model.spec.name,
                        .dtype = dtype,
                        .kv_dtype = model.spec.kv_dtype,
                        .grid = model.grid,
                        .prefill_tokens = trace.prefill_tokens,
                        .decode_tokens = trace.decode_tokens,
                        .seconds = in_grid.count(),
                        .layers = {}};
    for (std::size_t layer = 0; layer < layers.size(); ++layer) {
        report.layers.push_back(check_layer(trace, trace.layers[layer], dtype, layers[layer], (*answers)[layer]));
    }
    return report;
}

}  // namespace kvgrid::cli
