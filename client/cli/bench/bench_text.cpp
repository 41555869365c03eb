#include "client/cli/bench/bench_text.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "core/units.h"

namespace kvgrid::cli {

namespace {

constexpr int kHistogramCells = 40;

double per_second(double count, double seconds) {
    return seconds > 0 ? count / seconds : 0;
}

std::uint64_t join_bytes_per_call(const BenchReport& report) {
    return report.grid_layer_calls ? report.join_bytes / report.grid_layer_calls : 0;
}

// Nothing can be faster than reading every key and value of the call once.
std::optional<double> floor_ms(const BenchPlan& plan, const BenchReport& report) {
    if (!report.memory_bytes_per_second) return std::nullopt;
    return static_cast<double>(plan.kv_bytes_per_layer_call()) / *report.memory_bytes_per_second * 1e3;
}

std::string histogram_text(const Latencies& layer_calls) {
    std::string text;
    std::int64_t most = 1;
    const auto buckets = layer_calls.histogram();
    for (const auto& bucket : buckets) most = std::max(most, bucket.count);
    for (const auto& bucket : buckets) {
        const auto cells = static_cast<int>(bucket.count * kHistogramCells / most);
        text += fmt::format("    < {:>9.3f} ms {:>8}  {}\n", bucket.below_ms, bucket.count, std::string(cells, '#'));
    }
    return text;
}

}  // namespace

std::string bench_text(const BenchPlan& plan, const BenchReport& report) {
    const ModelSpec& spec = plan.spec;
    std::string text = fmt::format("{}: {} layers, {} query and {} KV heads of {}, {}, on {} x {} parts\n",
                                   report.model, spec.layer_count(), spec.query_heads, spec.kv_heads, spec.head_dim,
                                   name_of(spec.dtype), report.grid.head_parts, report.grid.sequence_parts);
    text += fmt::format("  {} clients x {} sequences of {} tokens\n", plan.clients, plan.batch, plan.context);
    if (plan.prefill_tokens > 0)
        text += fmt::format("  prefill       {:>10.1f} tokens/s   one chunk of {} tokens in {:.3f} s\n",
                            per_second(plan.prefill_tokens, report.prefill_seconds), plan.prefill_tokens,
                            report.prefill_seconds);
    text += fmt::format("  decode        {:>10.1f} tokens/s   {} tokens in {:.3f} s\n",
                        per_second(static_cast<double>(report.decoded_tokens), report.decode_seconds),
                        report.decoded_tokens, report.decode_seconds);
    text += fmt::format("  layer call    p50 {:.3f} ms, p99 {:.3f} ms\n", report.layer_calls.percentile_ms(0.5),
                        report.layer_calls.percentile_ms(0.99));
    text += histogram_text(report.layer_calls);
    if (const auto floor = floor_ms(plan, report)) {
        text += fmt::format(
            "  floor         {:.3f} ms a layer call: {} of keys and values at {}/s, as this host reads memory; p50 is "
            "{:.1f} times it\n",
            *floor, format_bytes(plan.kv_bytes_per_layer_call()),
            format_bytes(static_cast<std::uint64_t>(*report.memory_bytes_per_second)),
            report.layer_calls.percentile_ms(0.5) / *floor);
    }
    text +=
        fmt::format("  join          {} a layer call of the grid; {} of {} client calls shared one\n",
                    format_bytes(join_bytes_per_call(report)), report.merged_layer_calls, report.layer_calls.count());
    return text;
}

nlohmann::json bench_json(const BenchPlan& plan, const BenchReport& report) {
    nlohmann::json histogram = nlohmann::json::array();
    for (const auto& bucket : report.layer_calls.histogram())
        histogram.push_back({{"below_ms", bucket.below_ms}, {"count", bucket.count}});
    nlohmann::json object{
        {"model", report.model},
        {"spec", nlohmann::json::parse(to_json(plan.spec))},
        {"head_parts", report.grid.head_parts},
        {"sequence_parts", report.grid.sequence_parts},
        {"clients", plan.clients},
        {"batch", plan.batch},
        {"context_tokens", plan.context},
        {"prefill",
         {{"tokens", plan.prefill_tokens},
          {"seconds", report.prefill_seconds},
          {"tokens_per_second", per_second(plan.prefill_tokens, report.prefill_seconds)}}},
        {"decode",
         {{"tokens", report.decoded_tokens},
          {"seconds", report.decode_seconds},
          {"tokens_per_second", per_second(static_cast<double>(report.decoded_tokens), report.decode_seconds)}}},
        {"layer_call",
         {{"count", report.layer_calls.count()},
          {"p50_ms", report.layer_calls.percentile_ms(0.5)},
          {"p99_ms", report.layer_calls.percentile_ms(0.99)},
          {"histogram", std::move(histogram)}}},
        {"join_bytes_per_layer_call", join_bytes_per_call(report)},
        {"merged_layer_calls", report.merged_layer_calls},
        {"kv_bytes_per_layer_call", plan.kv_bytes_per_layer_call()},
        {"floor_ms", nullptr}};
    if (const auto floor = floor_ms(plan, report)) object["floor_ms"] = *floor;
    return object;
}

}  // namespace kvgrid::cli
