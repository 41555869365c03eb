#include <fmt/format.h>

#include <algorithm>

#include "client/cli/demo/demo_acts.h"
#include "client/cli/demo/long_context.h"
#include "client/cli/occupancy_text.h"

namespace kvgrid::cli {

namespace {

constexpr int kTrunkTokens = 3;            // new tokens of the context itself
constexpr int kBranchTokens = 5;           // and of the branch
constexpr std::uint64_t kRun = 1'000'000;  // apart from the decoded tokens

// Both branches grow in one step, a ragged batch: the branch's rows follow the trunk's.
Status extend_both(DemoStage& stage, const Sequence& branch) {
    const ModelSpec& spec = stage.long_model->spec;
    const StepPart parts[] = {{&*stage.context, kTrunkTokens}, {&branch, kBranchTokens}};
    auto step = stage.client.begin(parts);
    if (!step) return step.error();
    for (int layer = 0; layer < spec.layer_count(); ++layer) {
        if (Status go_on = stage.check_not_interrupted(); !go_on) return go_on;
        const NewTokens tokens = new_tokens(spec, kRun, layer, kTrunkTokens + kBranchTokens);
        if (auto output = step->layer(layer, tokens.input()); !output) return output.error();
    }
    return step->commit();
}

// Whether a sequence ends, in one layer, with the keys that were sent for it: rows first ... first + count - 1 of the step.
Result<bool> ends_with(const Sequence& sequence, const ModelSpec& spec, int first, int count) {
    const int layer = spec.layer_count() - 1;
    const auto info = sequence.inspect();
    if (!info) return info.error();
    const auto kept = sequence.read_kv(layer, info->length - count, count);
    if (!kept) return kept.error();
    const NewTokens sent = new_tokens(spec, kRun, layer, kTrunkTokens + kBranchTokens);
    const std::size_t row = spec.row_bytes() * spec.kv_heads;
    return std::ranges::equal(kept->k, std::span(sent.k).subspan(first * row, count * row)) &&
           std::ranges::equal(kept->v, std::span(sent.v).subspan(first * row, count * row));
}

Status check_branches(DemoStage& stage, const Sequence& branch) {
    const ModelSpec& spec = stage.long_model->spec;
    const auto trunk_right = ends_with(*stage.context, spec, 0, kTrunkTokens);
    if (!trunk_right) return trunk_right.error();
    const auto branch_right = ends_with(branch, spec, kTrunkTokens, kBranchTokens);
    if (!branch_right) return branch_right.error();
    if (!*trunk_right || !*branch_right)
        return {Errc::internal, "a branch does not end with the tokens that it was given"};
    return {};
}

Result<PageTotals> pages_now(DemoStage& stage) {
    const auto occupancy = stage.client.occupancy();
    if (!occupancy) return occupancy.error();
    return page_totals(*occupancy, stage.long_model->id);
}

Status close_all(DemoStage& stage, Sequence& branch) {
    if (Status closed = branch.close(); !closed) return closed;
    if (Status closed = stage.context->close(); !closed) return closed;
    const auto occupancy = stage.client.occupancy();
    if (!occupancy) return occupancy.error();
    say("  both are closed:\n" + occupancy_table(*occupancy, stage.long_model->id));
    if (!all_free(*occupancy)) return {Errc::internal, "pages did not come back"};
    const PageTotals pages = page_totals(*occupancy, stage.long_model->id);
    say(fmt::format("  every page came back: {} of {} are free\n", pages.free, pages.capacity));
    stage.summary.emplace_back("pages after closing", fmt::format("{} of {} free", pages.free, pages.capacity));
    stage.summary.emplace_back(
        "grid", fmt::format("{} operations, {} of them layer calls", occupancy->operations, occupancy->layer_calls));
    return {};
}

}  // namespace

Status demo_fork(DemoStage& stage) {
    say("\n3. Two branches of the context\n");
    const auto before = pages_now(stage);
    if (!before) return before.error();
    auto branch = stage.context->fork();
    if (!branch) return branch.error();
    const auto forked = pages_now(stage);
    if (!forked) return forked.error();
    say(fmt::format("  forked: {} pages in use before, {} after; {} of them shared\n", before->used, forked->used,
                    forked->shared));

    if (Status extended = extend_both(stage, *branch); !extended) return extended;
    if (Status right = check_branches(stage, *branch); !right) return right;
    const auto extended = pages_now(stage);
    if (!extended) return extended.error();
    say(fmt::format(
        "  extended by {} and {} different tokens: {} pages in use, {} shared; each branch ends with its own\n",
        kTrunkTokens, kBranchTokens, extended->used, extended->shared));
    stage.summary.emplace_back("forked", fmt::format("{} pages shared, {} added by both branches", forked->shared,
                                                     extended->used - forked->used));
    return close_all(stage, *branch);
}

}  // namespace kvgrid::cli
