#include "worker/lead.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "worker/finite_check.h"
#include "worker/head_slices.h"

namespace kvgrid::worker {

namespace {

OperationResult refused(Error error) {
    OperationResult result;
    result.status = std::move(error);
    return result;
}

TimePoint now() {
    return std::chrono::steady_clock::now();
}

}  // namespace

Lead::Lead(GridLinks& links, Observer* observer) : links_(links), observer_(observer ? *observer : nobody_) {}

void Lead::submit(OperationBody body, Done done) {
    if (const auto* add = std::get_if<AddModel>(&body)) {
        // Known from here on, so that a begin right behind it finds the model; taken back if the grid refuses.
        const ModelId id = add->model;
        const bool known = !models_.try_emplace(id, Model{add->spec, add->grid}).second;
        done = [this, id, known, done = std::move(done)](OperationResult result) {
            if (!result.status && !known) models_.erase(id);
            done(std::move(result));
        };
    }
    enqueue({.body = std::move(body), .done = std::move(done), .step = {}, .model = {}, .tensors = {}});
}

void Lead::submit(OperationBody body, comm::Payload tensors, Done done) {
    enqueue({.body = std::move(body),
             .done = std::move(done),
             .step = {},
             .model = {},
             .tensors = {std::move(tensors), 0}});
}

void Lead::begin(BeginStep begin, Owner owner, std::function<void(StepId, OperationResult)> done) {
    const auto model = models_.find(begin.model);
    if (model == models_.end()) {
        return done({}, refused({Errc::not_found, fmt::format("model {} is not registered", begin.model.value)}));
    }
    begin.step = StepId{++last_step_};
    OpenStep step{.model = begin.model,
                  .kind = begin.kind,
                  .tokens = 0,
                  .progress = StepProgress(model->second.spec, begin.kind),
                  .owner = owner,
                  .begun = now()};
    std::int64_t tokens = 0;  // a stranger's numbers: the shards have not looked at them yet
    for (const auto& part : begin.parts) tokens += part.tokens;
    step.tokens = static_cast<int>(tokens);
    ++begins_under_way_[owner];
    auto finish = [this, step, id = begin.step, done = std::move(done)](OperationResult result) {
        const bool last = --begins_under_way_[step.owner] == 0;
        if (last) begins_under_way_.erase(step.owner);
        const bool orphan = lost_owners_with_begins_.contains(step.owner);
        if (orphan && last) lost_owners_with_begins_.erase(step.owner);
        if (result.status) steps_.emplace(id, step);
        const bool begun = result.status.ok();
        done(id, std::move(result));
        if (!orphan || !begun) return;
        ++counters_.steps_abandoned;
        abort(id, [](OperationResult) {});
    };
    enqueue({.body = std::move(begin), .done = std::move(finish), .step = {}, .model = {}, .tensors = {}});
}

Result<Lead::OpenStep*> Lead::find_step(StepId id) {
    const auto found = steps_.find(id);
    if (found == steps_.end()) return why_not_open(id);
    return &found->second;
}

Result<Brings> Lead::check_layer(const OpenStep& step, StepId id, const LayerOfStep& layer,
                                 std::size_t tensor_bytes) const {
    const ModelSpec& spec = models_.at(step.model).spec;
    const auto brings = step.progress.check(spec, id, layer.layer, layer.left_out);
    if (!brings) return brings.error();
    const std::size_t expected = call_tensor_bytes(spec, brings->q, brings->kv, step.tokens);
    if (tensor_bytes != expected) {
        return {Errc::invalid_argument, fmt::format("layer {} of {} tokens: got {} bytes of tensors, must be {}",
                                                    layer.layer, step.tokens, tensor_bytes, expected)};
    }
    return brings;
}

Status Lead::check_values(const OpenStep& step, int layer, const comm::Payload& tensors) {
    const ModelSpec& spec = models_.at(step.model).spec;
    if (spec.allows_non_finite) return {};
    Status finite = check_finite({spec, layer, step.tokens, tensors.bytes()});
    if (!finite) ++counters_.non_finite_refusals;
    return finite;
}

void Lead::layer(StepId id, LayerOfStep layer, comm::Payload tensors, Done done) {
    const auto step = find_step(id);
    if (!step) return done(refused(step.error()));
    (*step)->called = true;
    const auto brings = check_layer(**step, id, layer, tensors.size());
    if (!brings) return done(refused(brings.error()));
    if (brings->kv) {
        if (Status finite = check_values(**step, layer.layer, tensors); !finite) return done(refused(finite.error()));
    }
    enqueue_layer(**step, RunLayer{{id}, layer.layer, layer.left_out}, *brings, std::move(tensors), std::move(done));
}

void Lead::layer_in_place(StepId id, LayerOfStep layer, const DeviceRegion& region, const DeviceOffsets& at,
                          Done done) {
    const auto step = find_step(id);
    if (!step) return done(refused(step.error()));
    (*step)->called = true;
    const ModelSpec& spec = models_.at((*step)->model).spec;
    const auto brings = (*step)->progress.check(spec, id, layer.layer, layer.left_out);
    if (!brings) return done(refused(brings.error()));
    auto tensors = client_tensors(region.memory, at,
                                  {.q = call_tensor_bytes(spec, brings->q, false, (*step)->tokens),
                                   .k = call_tensor_bytes(spec, false, brings->kv, (*step)->tokens) / 2});
    if (!tensors) return done(refused(tensors.error()));
    RunLayer run{{id}, layer.layer, layer.left_out};
    if (links_.rank_count() > 1 && !region.is_open_everywhere) {
        return layer_through_host(**step, std::move(run), *brings, *std::move(tensors), std::move(done));
    }
    run.in_place = *std::move(tensors);
    run.peers_place = {region.number, at};
    enqueue_layer(**step, std::move(run), *brings, {}, std::move(done));
}

// As other calls: the tensors are cut, and sent on.
void Lead::layer_through_host(OpenStep& step, RunLayer layer, Brings brings, ClientTensors tensors, Done done) {
    std::vector<std::byte> host(tensors.q.size() + tensors.k.size() + tensors.v.size());
    std::span<std::byte> left = host;
    for (const auto part : {tensors.q, tensors.k, tensors.v}) {
        if (part.empty()) continue;
        if (Status read = tensors.memory->read(part, left.first(part.size())); !read)
            return done(refused(read.error()));
        left = left.subspan(part.size());
    }
    const auto bring_back = [tensors = std::move(tensors), done = std::move(done)](OperationResult result) {
        if (result.status && !tensors.o.empty()) {
            result.status = tensors.memory->write(tensors.o, result.tensors.bytes());
            result.tensors = {};
        }
        done(std::move(result));
    };
    enqueue_layer(step, std::move(layer), brings, comm::Payload::own(std::move(host)), bring_back);
}

void Lead::enqueue_layer(OpenStep& step, RunLayer layer, Brings brings, comm::Payload tensors, Done done) {
    step.progress.pass(models_.at(step.model).spec, layer.layer, brings);
    const StepId id = layer.steps[0];
    enqueue({.body = std::move(layer),
             .done = std::move(done),
             .step = id,
             .model = step.model,
             .kind = step.kind,
             .brings = brings,
             .tensors = {std::move(tensors), step.tokens}});
}

Status Lead::check_owner(StepId id, Owner owner) const {
    const auto found = steps_.find(id);
    if (found == steps_.end() || found->second.owner == owner) return {};
    return {Errc::not_found,
            fmt::format("step {} was begun on another connection: only that one can go on with it", id.value)};
}

void Lead::commit(StepId id, Done done) {
    const auto step = find_step(id);
    if (!step) return done(refused(step.error()));
    const Status complete = (*step)->progress.check_complete(models_.at((*step)->model).spec, id);
    if (!complete) return done(refused(complete.error()));
    done = ending(**step, true, std::move(done));
    steps_.erase(id);
    enqueue({.body = CommitStep{id}, .done = std::move(done), .step = id, .model = {}, .tensors = {}});
}

void Lead::abort(StepId id, Done done) {
    const auto step = find_step(id);
    if (!step) return done(refused(step.error()));
    done = ending(**step, false, std::move(done));
    steps_.erase(id);
    enqueue({.body = AbortStep{id}, .done = std::move(done), .step = id, .model = {}, .tensors = {}});
}

// Tells the observer, beside `done`, when the step has ended.
Lead::Done Lead::ending(const OpenStep& step, bool committed, Done done) {
    return [this, begun = step.begun, committed, done = std::move(done)](OperationResult result) {
        if (result.status) observer_.step_ended(committed, now() - begun);
        done(std::move(result));
    };
}

void Lead::owner_lost(Owner owner) {
    if (begins_under_way_.contains(owner)) lost_owners_with_begins_.insert(owner);
    std::vector<StepId> orphans;
    for (const auto& [id, step] : steps_) {
        if (step.owner == owner) orphans.push_back(id);
    }
    counters_.steps_abandoned += orphans.size();
    for (StepId id : orphans) abort(id, [](OperationResult) {});
}

void Lead::enqueue(Pending pending) {
    if (failed_) return pending.done(refused(*failed_));
    // Ends of steps always find a place: they free what others wait for.
    const bool ends_step =
        std::holds_alternative<CommitStep>(pending.body) || std::holds_alternative<AbortStep>(pending.body);
    if (queue_.size() >= kQueueMax && !ends_step) {
        return pending.done(
            refused({Errc::busy, fmt::format("{} requests are waiting already: retry later", kQueueMax)}));
    }
    pending.queued = now();
    queue_.push_back(std::move(pending));
    pump();
}

void Lead::pump() {
    if (pumping_) return;  // a callback of `dispatch` has enqueued more: the loop below sees it
    pumping_ = true;
    while (!failed_ && !queue_.empty() && under_way_.size() < kInFlightMax) {
        Pending next = std::move(queue_.front());
        queue_.pop_front();
        if (std::holds_alternative<RunLayer>(next.body)) {
            dispatch_layers(std::move(next));
        } else {
            dispatch(std::move(next));
        }
    }
    pumping_ = false;
}

void Lead::left_queue(const Pending& pending, std::uint64_t operation) {
    const TimePoint left = now();
    observer_.waited_in_queue(left - pending.queued);
    if (observer_.spans.on()) observer_.spans.add(SpanKind::queue, pending.queued, left, operation);
}

void Lead::dispatch(Pending pending) {
    left_queue(pending, ++counters_.operations);
    under_way_[counters_.operations].push_back({0, std::move(pending.done), pending.step});
    send_to_all({counters_.operations, std::move(pending.body), std::move(pending.tensors.bytes)}, {}, {});
}

// The queued layer calls that can run together with `first`: same model, kind, layer and tensors, and nothing of their step waits before them.
std::vector<Lead::Pending> Lead::take_mergeable(const Pending& first) {
    std::vector<Pending> taken;
    if (std::get<RunLayer>(first.body).in_place.memory) return taken;
    std::unordered_set<StepId> passed{first.step};  // steps with an earlier request
    int tokens = first.tensors.tokens;
    for (auto at = queue_.begin(); at != queue_.end() && tokens < kMergedTokensMax;) {
        const auto* layer = std::get_if<RunLayer>(&at->body);
        const bool mergeable = layer && !layer->in_place.memory && !passed.contains(at->step) &&
                               at->model == first.model && at->kind == first.kind && at->brings == first.brings &&
                               layer->layer == std::get<RunLayer>(first.body).layer &&
                               tokens + at->tensors.tokens <= kMergedTokensMax;
        if (!mergeable) {
            if (at->step) passed.insert(at->step);
            ++at;
            continue;
        }
        tokens += at->tensors.tokens;
        taken.push_back(std::move(*at));
        at = queue_.erase(at);
    }
    return taken;
}

void Lead::dispatch_layers(Pending first) {
    const Model& model = models_.at(first.model);
    const auto [has_q, has_kv] = first.brings;
    const std::size_t output_row = has_q ? model.spec.query_heads * model.spec.row_bytes() : 0;
    std::vector<Pending> merged = take_mergeable(first);
    merged.insert(merged.begin(), std::move(first));
    if (merged.size() > 1) counters_.merged_layer_calls += merged.size();
    ++counters_.layer_calls;

    RunLayer& leading = std::get<RunLayer>(merged[0].body);
    RunLayer together{{}, leading.layer, leading.left_out, std::move(leading.in_place), leading.peers_place};
    std::vector<CallTensors> calls;
    std::vector<Share>& shares = under_way_[++counters_.operations];
    for (Pending& call : merged) {
        left_queue(call, counters_.operations);
        together.steps.push_back(call.step);
        calls.push_back(call.tensors);
        shares.push_back({call.tensors.tokens * output_row, std::move(call.done), call.step});
    }
    std::vector<comm::Payload> slices;
    if (!together.in_place.memory) {
        const ScopedSpan span(&observer_.spans, SpanKind::slice, counters_.operations);
        slices = slice_by_head_part(model.spec, model.grid, has_q, has_kv, calls);
    }
    send_to_all({counters_.operations, std::move(together), {}}, slices, model.grid);
}

void Lead::send_to_all(Operation operation, const std::vector<comm::Payload>& tensors_by_head_part,
                       const GridShape& grid) {
    const ScopedSpan span(&observer_.spans, SpanKind::send, operation.number);
    // Peers first: their way is longer than the lead's own.
    for (int rank = links_.rank_count() - 1; rank >= 0; --rank) {
        if (!tensors_by_head_part.empty()) operation.tensors = tensors_by_head_part[grid.head_part(rank)];
        if (Status sent = links_.send(rank, operation); !sent) {
            return fail({Errc::peer_lost, fmt::format("operation {} did not reach rank {}: {}", operation.number, rank,
                                                      sent.error().message)});
        }
    }
}

void Lead::completed(std::uint64_t number, OperationResult result) {
    const auto found = under_way_.find(number);
    if (found == under_way_.end()) return;  // failed before
    std::vector<Share> shares = std::move(found->second);
    under_way_.erase(found);
    if (!result.status && result.status.error() == Errc::peer_lost) fail(result.status.error());
    pump();  // the ranks have work again before the replies are written
    if (shares.size() == 1) return shares[0].done(std::move(result));
    std::size_t offset = 0;
    for (Share& share : shares) {
        OperationResult own;
        own.status = result.status;
        own.compute_ns = result.compute_ns;
        own.join_ns = result.join_ns;
        if (result.status) own.tensors = result.tensors.slice(offset, share.bytes);
        offset += share.bytes;
        share.done(std::move(own));
    }
}

void Lead::fail(const Error& cause) {
    if (failed_) return;
    failed_ = cause;
    auto under_way = std::exchange(under_way_, {});
    auto queue = std::exchange(queue_, {});
    steps_.clear();
    for (auto& [number, shares] : under_way) {
        for (Share& share : shares) share.done(refused(cause));
    }
    for (Pending& pending : queue) pending.done(refused(cause));
}

}  // namespace kvgrid::worker
