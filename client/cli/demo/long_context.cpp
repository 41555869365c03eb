#include "client/cli/demo/long_context.h"

#include <algorithm>
#include <deque>
#include <future>

#include "analysis/trace.h"
#include "client/cli/replay/exact_attention.h"

namespace kvgrid::cli {

namespace {

using Output = Result<std::vector<std::byte>>;

constexpr std::size_t kLayersUnderWay = 4;

enum Tensor : std::uint64_t { kContextKeys = 1, kContextValues, kNewQueries, kNewKeys, kNewValues };

std::uint64_t seed(std::initializer_list<std::uint64_t> path) {
    return seed_of({path.begin(), path.size()});
}

Status wait_for_oldest(std::deque<std::future<Output>>& under_way) {
    const Output output = under_way.front().get();
    under_way.pop_front();
    return output ? Status() : output.error();
}

}  // namespace

KvChunk context_chunk(const ModelSpec& spec, std::int64_t chunk, int tokens) {
    const std::size_t count = static_cast<std::size_t>(tokens) * spec.kv_heads * spec.head_dim;
    const auto number = static_cast<std::uint64_t>(chunk);
    return {random_tensor(seed({kContextKeys, number}), count, kKeyDeviation, spec.dtype),
            random_tensor(seed({kContextValues, number}), count, kValueDeviation, spec.dtype)};
}

NewTokens new_tokens(const ModelSpec& spec, std::uint64_t run, int layer, int tokens) {
    const std::size_t head_elements = static_cast<std::size_t>(tokens) * spec.head_dim;
    const auto number = static_cast<std::uint64_t>(layer);
    return {
        random_tensor(seed({kNewQueries, run, number}), head_elements * spec.query_heads, kQueryDeviation, spec.dtype),
        random_tensor(seed({kNewKeys, run, number}), head_elements * spec.kv_heads, kKeyDeviation, spec.dtype),
        random_tensor(seed({kNewValues, run, number}), head_elements * spec.kv_heads, kValueDeviation, spec.dtype)};
}

Status write_chunk(Client& client, const ModelSpec& spec, const Sequence& sequence, const KvChunk& chunk, int tokens) {
    const StepPart part{&sequence, tokens};
    auto step = client.begin({&part, 1}, StepKind::write);
    if (!step) return step.error();
    std::deque<std::future<Output>> under_way;
    for (const int layer : spec.kv_layers()) {
        under_way.push_back(step->layer_async(layer, {.q = {}, .k = chunk.k, .v = chunk.v}));
        if (under_way.size() < kLayersUnderWay) continue;
        if (Status done = wait_for_oldest(under_way); !done) return done;
    }
    while (!under_way.empty()) {
        if (Status done = wait_for_oldest(under_way); !done) return done;
    }
    return step->commit();
}

std::vector<double> exact_first_row(const ModelSpec& spec, std::int64_t context_tokens, const NewTokens& first) {
    const std::size_t dim = spec.head_dim;
    const std::vector<float> queries = analysis::floats_of(first.q, spec.dtype);
    std::vector<ExactAttention> heads;
    for (int head = 0; head < spec.query_heads; ++head)
        heads.emplace_back(std::span(queries).subspan(head * dim, dim), spec.scale);

    const auto see = [&](const std::vector<std::byte>& k_bytes, const std::vector<std::byte>& v_bytes, int tokens) {
        const std::vector<float> k = analysis::floats_of(k_bytes, spec.dtype),
                                 v = analysis::floats_of(v_bytes, spec.dtype);
        for (int token = 0; token < tokens; ++token) {
            for (int head = 0; head < spec.query_heads; ++head) {
                const std::size_t at = (static_cast<std::size_t>(token) * spec.kv_heads + head / spec.group()) * dim;
                heads[head].see(std::span(k).subspan(at, dim), std::span(v).subspan(at, dim));
            }
        }
    };
    for (std::int64_t done = 0; done < context_tokens; done += kChunkTokens) {
        const int tokens = static_cast<int>(std::min<std::int64_t>(kChunkTokens, context_tokens - done));
        const KvChunk chunk = context_chunk(spec, done / kChunkTokens, tokens);
        see(chunk.k, chunk.v, tokens);
    }
    see(first.k, first.v, 1);

    std::vector<double> row;
    for (const ExactAttention& head : heads) {
        const std::vector<double> output = head.output();
        row.insert(row.end(), output.begin(), output.end());
    }
    return row;
}

}  // namespace kvgrid::cli
