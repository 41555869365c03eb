#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "comm/collective/collective.h"
#include "core/clock.h"
#include "core/result.h"
#include "core/sharding.h"
#include "kernels/head_shape.h"
#include "kernels/page_pair.h"
#include "kernels/page_run.h"
#include "worker/device_memory.h"
#include "worker/device_status.h"
#include "worker/join.h"
#include "worker/join_choice.h"
#include "worker/span_recorder.h"
#include "worker/stream_table.h"

namespace kvgrid::worker {

// The position of the KV that `layer` reads among the layers that own KV.
int kv_layer_index(const ModelSpec& spec, int layer);

// One worker's share of a model, as its device has to know it.
struct DeviceModelShape {
    ModelSpec spec;
    kernels::HeadShape heads;  // of this share
    GridShape grid;
    int head_part = 0, sequence_part = 0;

    // Where the streams of the KV that `layer` reads begin among a sequence's.
    std::size_t first_stream(int layer) const;
};

// New tokens of one sequence in an open step; its page lists hold them already.
struct BatchPart {
    SequenceState* sequence;  // `changed_from` is the device's
    int tokens;
};

// In whose memory tensors lie. A CPU device's memory is the host's, and both are the same to it.
enum class TensorMemory { host, device };

// Open steps of one kind whose layers are called together.
struct DeviceBatch {
    std::span<const StepId> steps;     // they name the batch: all else follows from them
    std::span<const BatchPart> parts;  // rows are in this order
    int token_count;                   // of all parts
    bool attends;                      // their layer calls bring q, not k and v alone
};

// One layer of a batch: append where the layer owns KV, attend where there is a q.
struct DeviceLayer {
    std::span<const StepId> steps;  // as in the batch
    std::span<const BatchPart> parts;
    int token_count;
    int layer;
    std::span<const std::byte> q;  // [token_count, query heads, head_dim] in the model's dtype; empty in a write step
    std::span<const std::byte> k;  // [token_count, KV heads, head_dim]; empty where the layer owns no KV
    std::span<const std::byte> v;
    bool has_all_heads = false;  // q, k and v are of the whole grid's heads; these are cut here
    std::span<std::byte> whole;  // out [token_count, query heads, head_dim] in the model's dtype; or empty
    std::span<float> partial;    // out [token_count, query heads, head_dim], where `whole` is not wanted
    std::span<float> lse;        // out [token_count, query heads], with `partial`
    TensorMemory inputs_in = TensorMemory::host;   // q, k and v
    TensorMemory outputs_in = TensorMemory::host;  // whole, partial and lse
    bool waits = false;                            // until it is done, where it might be queued only
    TailJoin* tail = nullptr;  // with partial and lse: the rows may be joined in the kernel's tail instead
    SpanRecorder* spans = nullptr;
    std::uint64_t operation = 0;  // for them

    bool leaves_nothing_to_host() const { return (q.empty() ? inputs_in : outputs_in) == TensorMemory::device; }
};

// Pages of one model in a device's memory, and what is computed over them. Page indices are a PagePool's, below the capacity that the
// model was made with.
//
//   Threads  one at a time. All calls return when their outcome is there, but for a layer that leaves nothing to the host: it may be queued
//            only, in the order of the calls, unless it is told to wait.
class DeviceModel {
  public:
    virtual ~DeviceModel() = default;

    // A step begins: the sequences' page lists hold its new tokens now. `no_room` where the device has no memory for them or for the step's
    // layer calls.
    virtual Status begin(std::span<const BatchPart> parts) = 0;
    virtual void copy_pages(std::span<const kernels::PagePair> pairs) = 0;
    // Sizes are right already. Whatever is refused has done nothing.
    virtual Status run(const DeviceLayer& layer) = 0;
    // As Shard's, which finds the batch and the layers that are left.
    virtual Result<std::uint64_t> prepare(const DeviceBatch& batch) = 0;
    virtual Status replay(std::span<const StepId> steps, std::span<const int> layers, std::uint64_t graph_epoch) = 0;
    // wrong_state while the program captures the stream on which the device queues: then only layers may be called.
    virtual Status check_not_captured() const { return {}; }
    // The step was committed or aborted.
    virtual void end(StepId step) = 0;
    // k then v, [row_count, KV heads, head_dim] each.
    virtual void read(std::span<const kernels::PageRun> runs, int row_count, std::span<std::byte> out) = 0;
    // Over tokens that are there: k and v [row_count, KV heads, head_dim], in the host's memory. Not for fp8 pages.
    virtual void write(std::span<const kernels::PageRun> runs, int row_count, std::span<const std::byte> k,
                       std::span<const std::byte> v) = 0;
    // The sequence is closed.
    virtual void forget(SequenceId sequence) = 0;
};

// What a join is made of.
struct JoinPlace {
    comm::Collective& collective;  // of the ranks that join
    int root;
    SpanRecorder* spans;
    Deadline deadline;
};

// Where a worker keeps its pages, and what computes there: a share of a host's cores, or a GPU.
class Device {
  public:
    virtual ~Device() = default;

    virtual DeviceStatus status() const = 0;
    // Pages are spec.page_bytes() each. `unsupported` where the device cannot compute the model, `no_room` with the figures where it has
    // not the memory.
    virtual Result<std::unique_ptr<DeviceModel>> make_model(const DeviceModelShape& shape,
                                                            std::uint32_t page_count) = 0;
    // What joins the outputs of this device with those of the other ranks; called by all of them, which agree on the way and log it.
    // Lives no longer than the device and the collective.
    Result<std::unique_ptr<Join>> make_join(const JoinPlace& place);
    // GPU memory of another process, by its CUDA IPC handle, for the layer calls of this device's models. From any thread. `unsupported` where
    // this is no GPU, or one that cannot reach that memory; invalid_argument where it is smaller, or the handle opens nothing.
    virtual Result<std::shared_ptr<DeviceMemory>> open_memory(std::span<const std::byte> handle,
                                                              std::uint64_t bytes) const;
    // What the calling thread does, again and again, while a call waits for the device: something short, which does not call it. False: no call
    // waits, since it is this thread that computes.
    virtual bool set_idle_work(std::function<void()>) { return false; }
    void set_join_wish(JoinWish wish) { join_wish_ = wish; }  // for the joins that are made from then on

  protected:
    virtual JoinIdentity join_identity() const { return {}; }
    // Only where all ranks can. `share_process`: some are threads of one process. Pushing: for outputs that it has room for.
    virtual Result<std::unique_ptr<Join>> make_gathering_join(const JoinPlace& place, bool share_process);
    virtual Result<std::unique_ptr<Join>> make_pushing_join(const JoinPlace& place, bool share_process);

  private:
    Result<std::vector<JoinIdentity>> identities(const JoinPlace& place) const;
    static Result<std::unique_ptr<Join>> agree_on(const JoinPlace& place, Result<std::unique_ptr<Join>> made);

    JoinWish join_wish_ = JoinWish::best;
};

}  // namespace kvgrid::worker
