#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "core/ids.h"
#include "core/sharding.h"
#include "worker/device.h"
#include "worker/inventory.h"
#include "worker/page_pool.h"
#include "worker/span_recorder.h"
#include "worker/step.h"
#include "worker/stream_table.h"

namespace kvgrid::worker {

// A model on this shard: its geometry, how it is split, its pages and sequences.
struct ShardModel {
    ModelSpec spec;
    GridShape grid;
    kernels::HeadShape heads;  // of this shard
    std::unique_ptr<PagePool> pool;
    std::unique_ptr<DeviceModel> device;  // the pages' memory
    std::unique_ptr<StreamTable> streams;
    std::uint64_t pool_bytes = 0;
};

struct BeginStep {
    StepId step;
    ModelId model;
    StepKind kind = StepKind::attend;
    std::vector<StreamTable::Part> parts;  // each sequence once
};

// One layer of one or more open steps of the same model and kind, as this shard sees it. In an iterate step q may be empty, or k and v.
struct ShardLayer {
    std::span<const StepId> steps;  // rows are in this order, and within a step in the order of its parts
    int layer;
    std::span<const std::byte> q;  // [tokens, local query heads, head_dim] in the model's dtype; empty in a write step
    std::span<const std::byte> k;  // [tokens, local KV heads, head_dim]; empty where the layer owns no KV
    std::span<const std::byte> v;
    bool has_all_heads = false;  // q, k and v are of all heads of the grid, and cut here
    // Out, not in a write step: [tokens, local query heads, head_dim] in the model's dtype, for a shard that holds all tokens of its heads; or
    // `partial` in f32 with `lse` [tokens, local query heads], for the join.
    std::span<std::byte> whole;
    std::span<float> partial;
    std::span<float> lse;
    // On a GPU, tensors in the device's memory are read and written where they are, from 16-byte borders on (lse: 4); spans then hold device
    // pointers. A CPU's memory is the host's.
    TensorMemory inputs_in = TensorMemory::host;   // q, k and v
    TensorMemory outputs_in = TensorMemory::host;  // whole, partial and lse
    bool waits = false;                            // for the outcome, wherever the tensors lie
    TailJoin* tail = nullptr;                      // the join that partial and lse are of, where it has one
    SpanRecorder* spans = nullptr;                 // may be left out
    std::uint64_t operation = 0;                   // for them
};

struct ModelReport {
    ModelId model;
    std::uint64_t page_bytes = 0;
    PageCounts pages;
    std::uint64_t sequences = 0;
    std::uint64_t stored_tokens = 0;
    std::int64_t committed_tokens = 0;  // sum of the sequences' lengths
};

// Of an open step; all 0 if it is not open.
struct StepSize {
    int sequences = 0;
    int tokens = 0;                   // new ones
    std::int64_t context_tokens = 0;  // the sequences' lengths with them

    StepSize& operator+=(const StepSize& other) {
        sequences += other.sequences;
        tokens += other.tokens;
        context_tokens += other.context_tokens;
        return *this;
    }
};

// What one worker holds, without any I/O: its heads' streams, its pages of them, and the steps that are open. An engine's own ranks
// can embed it; a worker process wraps it. The outputs are partial: the join makes them whole.
//
//   Threads    one at a time.
//   Refusals   given the same calls in the same order, all shards of a grid refuse alike, except for no_room (add_model, begin), on
//              which the ranks have to agree: whoever got through takes the call back (remove_model, abort).
//   Steps      begin -> layer ... layer -> commit, or abort at any point. A refused layer call changes nothing. Those of kind iterate are
//              not for graphs (unsupported).
//   Waiting    a layer call with outputs in the device's memory (of a write step: with inputs there) is queued on the device's stream and
//              returns, unless it is told to wait; every other call returns when its outcome is there. Tensors of a queued call stay as they are until the stream
//              has passed it. begin waits for all that is queued.
//   Graphs     begin -> prepare -> the program captures its stream with the layer calls in it -> launches the graph -> commit; in a later
//              step, as long as prepare gives the same number, begin -> prepare -> replay -> launches the graph -> commit. The graph is
//              launched on the device's stream, once, with no call of the shard between its capture, or replay, and that. Where a capture
//              fails, the step has computed nothing: abort it. docs/embedded.md shows it all.
class Shard {
  public:
    // `memory_bytes`: budget for the page pools of all models, of the device's memory.
    Shard(int rank, std::uint64_t memory_bytes, Device& device);

    Device& device() { return device_; }

    // `pool_bytes` 0: all of the budget that no model has. Returns the bytes of the pool, whole pages.
    Result<std::uint64_t> add_model(ModelId id, const ModelSpec& spec, const GridShape& grid, std::uint64_t pool_bytes);
    void remove_model(ModelId id);  // with its sequences; no step of it may be open

    Status open(SequenceId id, ModelId model, const Window& window);
    Status fork(SequenceId source, SequenceId target, std::int64_t tokens = 0);  // as StreamTable's
    Status close(SequenceId id);
    Status truncate(SequenceId id, std::int64_t length);
    Status set_window(SequenceId id, const Window& window);

    Status begin(const BeginStep& request);
    int tokens_that_fit(const BeginStep& request) const;  // per part, for the message of a no_room
    Status layer(const ShardLayer& call);

    // Does now whatever the layer calls of these steps, together, would do besides queueing kernels: plans, page lists, memory. Needed only before
    // layer calls are captured. Returns the graph epoch: layer calls that were captured at the same number, with the same tensors, would be
    // queued just so again; 0 on a CPU. Numbers come back as batches do, so that a program may keep a graph for each.
    //
    //   Errors  not_found, invalid_argument: as layer. no_room: the GPU has no memory for it. wrong_state: the stream is being captured.
    //   Cost    waits for the stream; then a copy and the schedules' launches for each class of layers are queued. The first time that a kernel is
    //           needed, one call of it.
    Result<std::uint64_t> prepare(std::span<const StepId> steps);

    // Says that the program's graph now does the layers of these steps that are left: to be called right before it is launched. wrong_state if
    // it was captured at another number than prepare has given for these steps, and nothing has changed then. unsupported on a CPU.
    Status replay(std::span<const StepId> steps, std::uint64_t graph_epoch);

    Status commit(StepId step);
    Status abort(StepId step);

    // The tokens of the range that live on this shard, in token order: k then v, [tokens, local KV heads, head_dim].
    Status check_readable(SequenceId id, int layer, std::int64_t first_token, std::int64_t token_count);
    void read_kv(SequenceId id, int layer, std::int64_t first_token, std::int64_t token_count,
                 std::span<std::byte> out);

    // Puts other K and V in the place of committed tokens; `rows` has k, then v [token_count, KV heads of the model, head_dim]. First `unshare`, on which
    // the ranks have to agree (no_room); what it has done may stay.
    Status check_writable(SequenceId id, int layer, std::int64_t first_token, std::int64_t token_count);
    Status unshare(SequenceId id, int layer, std::int64_t first_token, std::int64_t token_count);
    void rewrite_kv(SequenceId id, int layer, std::int64_t first_token, std::int64_t token_count,
                    std::span<const std::byte> rows);

    const ShardModel* find_model(ModelId id) const;
    const SequenceState* find_sequence(SequenceId id) const;
    ModelId model_of(SequenceId id) const;     // 0 if it is not open
    ModelId model_of_step(StepId step) const;  // 0 if it is not open
    StepSize size_of_step(StepId step) const;
    bool attends(StepId step) const;  // whether it is open, and its layers are called with q
    std::int64_t length_of(SequenceId id) const;
    std::vector<ModelReport> report() const;  // by model
    Inventory inventory() const;
    std::uint64_t memory_bytes() const { return memory_bytes_; }
    std::uint64_t memory_left() const { return memory_left_; }  // that no model has

  private:
    struct Step {
        ModelId model;
        StepKind kind;
        std::vector<StreamTable::Part> parts;
        StepSize size;
        StepProgress progress;
    };

    Result<ShardModel*> model_of_open(SequenceId id);
    int list_runs(SequenceId id, int layer, std::int64_t first_token, std::int64_t token_count);  // in runs_; the rows
    Status check_begin(const BeginStep& request) const;
    static LeftOut left_out_of(const ShardLayer& call, const Step& step);
    Status check_batch(std::span<const StepId> steps) const;
    Status check_layer(const ShardLayer& call) const;
    DeviceBatch batch_of(std::span<const StepId> steps);  // its parts are in parts_

    const int rank_;
    const std::uint64_t memory_bytes_;
    std::uint64_t memory_left_;
    Device& device_;
    std::unordered_map<ModelId, ShardModel> models_;
    std::unordered_map<SequenceId, ModelId> model_of_sequence_;
    std::unordered_map<StepId, Step> steps_;

    // Scratch of a layer call, kept so that decoding does not allocate.
    std::vector<kernels::PageRun> runs_;
    std::vector<BatchPart> parts_;
    std::vector<int> layers_;
};

}  // namespace kvgrid::worker
