// The part of Executor that runs layers, and opens the GPU memory in which clients may have their tensors.

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "worker/executor.h"
#include "worker/head_slices.h"

namespace kvgrid::worker {

namespace {

std::uint64_t ns_since(TimePoint start) {
    return static_cast<std::uint64_t>((std::chrono::steady_clock::now() - start).count());
}

Phase phase_of(bool attends, const StepSize& size) {
    if (!attends) return Phase::write;
    return size.tokens == size.sequences ? Phase::decode : Phase::prefill;
}

}  // namespace

OperationResult Executor::run(const OpenClientMemory& open) {
    bool is_open = true;
    if (!is_lead()) {
        auto memory = shard_.device().open_memory(open.handle, open.bytes);
        is_open = memory.ok();
        if (memory) client_memories_[open.memory] = *std::move(memory);
    }
    std::int64_t verdict[] = {is_open ? 1 : 0};
    if (Status agreed = collective_.all_reduce(verdict, comm::ReduceOp::min, deadline()); !agreed)
        return broken(agreed.error());
    if (verdict[0] == 1) return {};
    client_memories_.erase(open.memory);
    return only({Errc::unsupported, "not all workers of the grid reach this GPU memory"});
}

OperationResult Executor::run(const CloseClientMemory& close) {
    client_memories_.erase(close.memory);
    if (Status all = collective_.barrier(deadline()); !all) return broken(all.error());
    return {};
}

// Of all heads: the lead's, or a peer's, where the lead has checked all of it already.
Result<ClientTensors> Executor::tensors_in_memory(const RunLayer& layer, const ShardModel& model, int tokens,
                                                  Brings brings) const {
    if (layer.in_place.memory) return layer.in_place;
    const auto memory = client_memories_.find(layer.peers_place.memory);
    if (memory == client_memories_.end()) return {Errc::internal, "the memory of a layer call is not open here"};
    const ModelSpec& spec = model.spec;
    return client_tensors(memory->second, layer.peers_place.at,
                          {.q = call_tensor_bytes(spec, brings.q, false, tokens),
                           .k = call_tensor_bytes(spec, false, brings.kv, tokens) / 2});
}

Status Executor::place_tensors(const RunLayer& layer, const ShardModel& model, int tokens, Brings brings,
                               ShardLayer& call) const {
    if (layer.peers_place.memory != 0 || layer.in_place.memory) {
        const auto tensors = tensors_in_memory(layer, model, tokens, brings);
        if (!tensors) return tensors.error();
        call.q = tensors->q;
        call.k = tensors->k;
        call.v = tensors->v;
        const bool is_alone = collective_.size() == 1;
        call.has_all_heads = !is_alone;
        call.inputs_in = TensorMemory::device;
        call.waits = is_alone || !brings.q;  // where there is a join, that waits
        return {};
    }
    const std::span<const std::byte> tensors = current_->tensors.bytes();
    const std::size_t row = model.spec.row_bytes() * tokens;
    const std::size_t q_bytes = brings.q ? row * model.heads.query_heads : 0;
    const std::size_t kv_bytes = brings.kv ? row * model.heads.kv_heads : 0;
    if (tensors.size() != q_bytes + 2 * kv_bytes) {
        return {Errc::invalid_argument, fmt::format("layer {} of {} tokens: got {} bytes of tensors, must be {}",
                                                    layer.layer, tokens, tensors.size(), q_bytes + 2 * kv_bytes)};
    }
    call.q = tensors.subspan(0, q_bytes);
    call.k = tensors.subspan(q_bytes, kv_bytes);
    call.v = tensors.subspan(q_bytes + kv_bytes, kv_bytes);
    return {};
}

OperationResult Executor::run(const RunLayer& layer) {
    const StepId first = layer.steps.empty() ? StepId{} : layer.steps[0];
    const ShardModel* model = shard_.find_model(shard_.model_of_step(first));
    const bool attends = shard_.attends(first) && !layer.left_out.q;
    ShardLayer call{.steps = layer.steps,
                    .layer = layer.layer,
                    .q = {},
                    .k = {},
                    .v = {},
                    .whole = {},
                    .partial = {},
                    .lse = {},
                    .spans = &observer_.spans,
                    .operation = current_->number};
    StepSize size;
    for (StepId step : layer.steps) size += shard_.size_of_step(step);
    const int tokens = size.tokens;
    // With one rank nothing is joined in a client's memory: the kernels write o there, and nothing goes back but that it is done.
    const bool is_whole = layer.in_place.memory && collective_.size() == 1;
    std::span<std::byte> output = layer.in_place.o;  // to which the join's outcome is copied in the end
    if (model && layer.layer >= 0 && layer.layer < model->spec.layer_count()) {
        const Brings brings{.q = attends, .kv = model->spec.owns_kv(layer.layer) && !layer.left_out.kv};
        if (Status placed = place_tensors(layer, *model, tokens, brings, call); !placed) {
            return placed.error() == Errc::internal ? broken(placed.error()) : only(placed);
        }
        if (attends && is_whole) {
            call.whole = layer.in_place.o;
            call.outputs_in = TensorMemory::device;
        } else if (attends) {
            join_->prepare(model->spec, model->grid, tokens, current_->number);
            if (!output.empty() && join_->joins_into(output)) output = {};
            call.whole = join_->whole();
            call.partial = join_->partial();
            call.lse = join_->lse();
            call.tail = join_->tail();
            call.outputs_in = join_->is_on_device() ? TensorMemory::device : TensorMemory::host;
        }
    }
    const TimePoint start = std::chrono::steady_clock::now();
    if (Status done = shard_.layer(call); !done) {
        const bool others_are_missing = done.error() == Errc::peer_lost || done.error() == Errc::deadline_exceeded;
        return others_are_missing ? broken(done.error()) : only(done);
    }
    OperationResult result;
    result.compute_ns = ns_since(start);
    LayerWork work{.phase = phase_of(attends, size), .kernels = std::chrono::nanoseconds(result.compute_ns)};
    if (attends) work.tokens_attended = size.context_tokens;
    if (!attends || is_whole) {
        // The client may write to its memory again when it has an answer, which no join holds back until all ranks have read it.
        const bool others_read = call.has_all_heads;
        if (Status all = others_read ? collective_.barrier(deadline()) : Status(); !all) return broken(all.error());
        observer_.layer_done(work);
        return result;
    }
    const std::uint64_t joined_before = join_->bytes_received();
    const TimePoint join_start = std::chrono::steady_clock::now();
    auto whole = join_->finish(deadline());
    if (!whole) return broken(whole.error());
    if (layer.in_place.memory) {
        if (!output.empty()) result.status = layer.in_place.memory->write(output, whole->bytes());
    } else {
        result.tensors = std::move(*whole);
    }
    result.join_ns = ns_since(join_start);
    work.join_bytes = join_->bytes_received() - joined_before;
    work.join = std::chrono::nanoseconds(result.join_ns);
    observer_.layer_done(work);
    return result;
}

}  // namespace kvgrid::worker
