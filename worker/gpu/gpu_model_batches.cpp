// The part of GpuModel that plans batches, ahead of their layer calls or at the first one of a class.

#include <fmt/format.h>

#include <algorithm>

#include "kernels/cuda/cuda_error.h"
#include "worker/gpu/gpu_model.h"

namespace kvgrid::worker {

namespace {

constexpr std::size_t kTensorAlignment = 16;

template <class T>
bool is_aligned(std::span<T> tensor) {
    return tensor.empty() || reinterpret_cast<std::uintptr_t>(tensor.data()) % kTensorAlignment == 0;
}

}  // namespace

Status GpuModel::check_not_captured() const {
    if (stream_.capture() == GpuStream::Capture::none) return {};
    return {Errc::wrong_state, "the stream is being captured, where only layers may be called: end the capture first"};
}

Status GpuModel::check(const DeviceLayer& layer, GpuStream::Capture capture) {
    const bool brings = layer.inputs_in == TensorMemory::host, takes = layer.outputs_in == TensorMemory::host;
    const bool are_inputs_aligned = brings || (is_aligned(layer.q) && is_aligned(layer.k) && is_aligned(layer.v));
    const bool are_outputs_aligned = takes || (is_aligned(layer.whole) && is_aligned(layer.partial));
    if (!are_inputs_aligned || !are_outputs_aligned) {
        return {Errc::invalid_argument, fmt::format("layer {}: tensors in the GPU's memory must begin at multiples of "
                                                    "{} bytes",
                                                    layer.layer, kTensorAlignment)};
    }
    if (capture == GpuStream::Capture::none) return {};
    if (capture == GpuStream::Capture::broken) {
        return {Errc::wrong_state, "the capture of the stream has failed: end it, and abort the step"};
    }
    if (brings || !layer.leaves_nothing_to_host()) {
        return {Errc::wrong_state,
                fmt::format("layer {} has tensors in the host's memory, which cannot be captured", layer.layer)};
    }
    if (layer.waits) {
        return {Errc::wrong_state, fmt::format("layer {} was told to wait, which cannot be captured", layer.layer)};
    }
    const Batch* const batch = find_batch(layer.steps);
    if (batch != nullptr && batch->graph_epoch != 0 && epoch_of(*batch) == batch->graph_epoch) return {};
    return {Errc::wrong_state, fmt::format("layer {} cannot be captured yet: end the capture, prepare the steps, and "
                                           "capture their layers then",
                                           layer.layer)};
}

GpuModel::Batch* GpuModel::find_batch(std::span<const StepId> steps) {
    const auto found =
        std::ranges::find_if(batches_, [&](const Batch& b) { return std::ranges::equal(b.steps, steps); });
    return found == batches_.end() ? nullptr : &*found;
}

// The batch of these steps; or the first free one, so that batches of one shape come to the same addresses; or the one that was not used for
// the longest time, to be made anew.
GpuModel::Batch& GpuModel::batch_of(std::span<const StepId> steps) {
    Batch* found = find_batch(steps);
    if (found == nullptr) {
        const auto free = std::ranges::find_if(batches_, [](const Batch& batch) { return batch.steps.empty(); });
        found = free != batches_.end() ? &*free : &*std::ranges::min_element(batches_, {}, &Batch::last_used);
        found->steps.assign(steps.begin(), steps.end());
        found->made.assign(found->plans.size(), false);
        found->graph_epoch = 0;
    }
    found->last_used = ++use_count_;
    return *found;
}

void GpuModel::end(StepId step) {
    for (Batch& batch : batches_) {
        if (std::ranges::find(batch.steps, step) != batch.steps.end()) batch.steps.clear();
    }
}

BatchPlan& GpuModel::plan_of(Batch& batch, std::span<const BatchPart> parts, int layer) {
    const int of_class = classes_.class_of[layer];
    if (!batch.made[of_class]) {
        settle();
        provide_blocks(parts, layer);
        make_plan(batch, parts, layer);
    }
    return *batch.plans[of_class];
}

void GpuModel::make_plan(Batch& batch, std::span<const BatchPart> parts, int layer) {
    const int of_class = classes_.class_of[layer];
    if (batch.made[of_class]) return;
    is_queued_ = true;
    batch.plans[of_class]->make(parts, {layer, classes_.kv_layer_of[layer], decode_blocks_}, lists_, stream_);
    batch.made[of_class] = true;
}

// Of a deterministic model, whose batches decide how many blocks they need: all plans are made for one number of them, since what calls
// leave in a workspace lies by it.
void GpuModel::provide_blocks(std::span<const BatchPart> parts, int layer) {
    if (!shape_.spec.deterministic) return;
    const int needed = BatchPlan::decode_blocks_needed(shape_, parts, layer);
    if (needed <= decode_blocks_) return;
    while (decode_blocks_ < needed) decode_blocks_ *= 2;
    for (Batch& batch : batches_) batch.made.assign(batch.plans.size(), false);
    ++own_moves_;
}

Result<std::uint64_t> GpuModel::prepare(const DeviceBatch& of) {
    if (Status free = check_not_captured(); !free) return free.error();
    settle();
    try {
        Batch& batch = batch_of(of.steps);
        for (int layer : classes_.representative) provide_blocks(of.parts, layer);
        for (int layer : classes_.representative) make_plan(batch, of.parts, layer);
        for (const auto& plan : batch.plans) {
            workspace_for(*plan);
            scratch_for(*plan);
        }
        for (int layer : classes_.representative) load_kernels(of, *batch.plans[classes_.class_of[layer]], layer);
        batch.rows = of.token_count;
        batch.attends = of.attends;
        return batch.graph_epoch = epoch_of(batch);
    } catch (const kernels::CudaError& error) {
        return no_room(error);
    }
}

// By a call of them that nobody sees, since nothing can be loaded during a capture. It appends nothing.
void GpuModel::load_kernels(const DeviceBatch& of, const BatchPlan& plan, int layer) {
    const kernels::DecodeShape& shape = plan.shape();
    const KernelKind kind{shape.unit_rows(), shape.cut.kind, plan.decode_count() > 0, plan.chunk_count() > 0};
    if (loaded_.contains(kind)) return;
    const std::size_t bytes = shape_.spec.row_bytes() * shape_.heads.query_heads * of.token_count;
    staging_moves_ += inputs_.grow(bytes) + outputs_.grow(bytes);
    Places places;
    places.q_copy = inputs_.span<std::byte>(0, bytes);
    places.q = places.q_copy;
    places.whole = outputs_.span<std::byte>(0, bytes);
    is_queued_ = true;
    queue({.steps = of.steps,
           .parts = of.parts,
           .token_count = of.token_count,
           .layer = layer,
           .q = {inputs_.data(), bytes},
           .k = {},
           .v = {},
           .whole = {},
           .partial = {},
           .lse = {}},
          plan, places, stream_.get());
    loaded_.insert(kind);
}

std::uint64_t GpuModel::epoch_of(const Batch& batch) {
    GraphShape shape{.batch = static_cast<std::size_t>(&batch - batches_.data()),
                     .rows = batch.rows,
                     .attends = batch.attends,
                     .plans = {}};
    for (const auto& plan : batch.plans) shape.plans.push_back(plan->size());
    return epochs_.of(shape, move_count());
}

Status GpuModel::replay(std::span<const StepId> steps, std::span<const int> layers, std::uint64_t graph_epoch) {
    if (Status free = check_not_captured(); !free) return free;
    const Batch* const batch = find_batch(steps);
    const std::uint64_t prepared = batch == nullptr ? 0 : batch->graph_epoch;
    if (prepared == 0 || prepared != graph_epoch || epoch_of(*batch) != prepared) {
        return {Errc::wrong_state,
                fmt::format("graph epoch {} is void for these steps: prepare them, and capture their layers again if "
                            "the number is another one",
                            graph_epoch)};
    }
    is_queued_ = true;
    for (int layer : layers) count(batch->attends, *batch->plans[classes_.class_of[layer]]);
    return {};
}

}  // namespace kvgrid::worker
