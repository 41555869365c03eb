#include "client/cli/replay/replay_text.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

namespace kvgrid::cli {

namespace {

nlohmann::json as_json(const Deviation& deviation) {
    return {{"rows", deviation.rows},
            {"rows_outside", deviation.rows_outside},
            {"absolute_max", deviation.absolute_max},
            {"relative_max", deviation.relative_max},
            {"relative_rms", deviation.relative_rms()},
            {"tolerance_used", deviation.tolerance_used}};
}

std::string cells(const Deviation& deviation) {
    return fmt::format("{:>9.1e} {:>9.1e} {:>9.0f}%", deviation.absolute_max, deviation.relative_max,
                       deviation.tolerance_used * 100);
}

}  // namespace

std::string replay_text(const ReplayReport& report) {
    std::string text = fmt::format("{} on {} x {} parts: {} tokens of prefill, {} decoded, {:.2f} s in the grid\n",
                                   report.model, report.grid.head_parts, report.grid.sequence_parts,
                                   report.prefill_tokens, report.decode_tokens, report.seconds);
    text += "                  from the fp64 reference           from the model's own output\n";
    text += "  layer   rows   absolute  relative  tolerance     absolute  relative  tolerance   outside\n";
    for (const ReplayLayer& layer : report.layers) {
        text += fmt::format("  {:>5} {:>6}  {}   {}  {:>8}\n", layer.model_layer, layer.from_reference.rows,
                            cells(layer.from_reference), cells(layer.from_model),
                            layer.from_reference.rows_outside + layer.from_model.rows_outside);
    }
    for (const ReplayLayer& layer : report.layers) {
        if (!layer.from_sent) continue;
        text += fmt::format(
            "  layer {}: K and V in {} change the answers by {:.1f} % (root mean square), the worst row by {:.0f} %\n",
            layer.model_layer, name_of(report.kv_dtype), layer.from_sent->relative_rms() * 100,
            layer.from_sent->relative_max * 100);
    }
    text += report.passed() ? "  every row is within its tolerance\n" : "  FAILED: rows are outside their tolerance\n";
    return text;
}

std::string replay_json(const ReplayReport& report) {
    nlohmann::json layers = nlohmann::json::array();
    for (const ReplayLayer& layer : report.layers) {
        layers.push_back({{"model_layer", layer.model_layer},
                          {"from_reference", as_json(layer.from_reference)},
                          {"from_model", as_json(layer.from_model)}});
        if (layer.from_sent) layers.back()["from_sent"] = as_json(*layer.from_sent);
    }
    const nlohmann::json whole = {{"format", "kvgrid.replay"},
                                  {"format_version", 1},
                                  {"model", report.model},
                                  {"dtype", name_of(report.dtype)},
                                  {"kv_dtype", name_of(report.kv_dtype)},
                                  {"head_parts", report.grid.head_parts},
                                  {"sequence_parts", report.grid.sequence_parts},
                                  {"prefill_tokens", report.prefill_tokens},
                                  {"decode_tokens", report.decode_tokens},
                                  {"seconds", report.seconds},
                                  {"passed", report.passed()},
                                  {"layers", std::move(layers)}};
    return whole.dump(2) + "\n";
}

}  // namespace kvgrid::cli
