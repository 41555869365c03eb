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

// One layer of one or more open steps of the same model and kind, as this shard sees it.
struct ShardLayer {
    std::span<const StepId> steps;  // rows are in this order, and within a step in the order of its parts
    int layer;
    std::span<const std::byte> q;  // [tokens, local query heads, head_dim] in the model's dtype; empty in a write step
    std::span<const std::byte> k;  // [tokens, local KV heads, head_dim]; empty where the layer owns no KV
    std::span<const std::byte> v;
    // Out, not in a write step: [tokens, local query heads, head_dim] in the model's dtype, for a shard that holds all tokens of its heads; or
    // `partial` in f32 with `lse` [tokens, local query heads], for the join.
    std::span<std::byte> whole;
    std::span<float> partial;
    std::span<float> lse;
    bool is_output_on_device = false;
    SpanRecorder* spans = nullptr;  // may be left out
    std::uint64_t operation = 0;    // for them
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
//   Steps      begin -> layer ... layer -> commit, or abort at any point. A refused layer call changes nothing.
class Shard {
  public:
    // `memory_bytes`: budget for the page pools of all models, of the device's memory.
    Shard(int rank, std::uint64_t memory_bytes, Device& device);

    Device& device() { return device_; }

    // `pool_bytes` 0: all of the budget that no model has. Returns the bytes of the pool, whole pages.
    Result<std::uint64_t> add_model(ModelId id, const ModelSpec& spec, const GridShape& grid, std::uint64_t pool_bytes);
    void remove_model(ModelId id);  // with its sequences; no step of it may be open

    Status open(SequenceId id, ModelId model, const Window& window);
    Status fork(SequenceId source, SequenceId target);
    Status close(SequenceId id);
    Status truncate(SequenceId id, std::int64_t length);
    Status set_window(SequenceId id, const Window& window);

    Status begin(const BeginStep& request);
    int tokens_that_fit(const BeginStep& request) const;  // per part, for the message of a no_room
    Status layer(const ShardLayer& call);
    Status commit(StepId step);
    Status abort(StepId step);

    // The tokens of the range that live on this shard, in token order: k then v, [tokens, local KV heads, head_dim].
    Status check_readable(SequenceId id, int layer, std::int64_t first_token, std::int64_t token_count);
    void read_kv(SequenceId id, int layer, std::int64_t first_token, std::int64_t token_count,
                 std::span<std::byte> out);

    const ShardModel* find_model(ModelId id) const;
    const SequenceState* find_sequence(SequenceId id) const;
    ModelId model_of(SequenceId id) const;     // 0 if it is not open
    ModelId model_of_step(StepId step) const;  // 0 if it is not open
    StepSize size_of_step(StepId step) const;
    bool attends(StepId step) const;  // whether it is open and of that kind
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
        int next_layer = 0;  // layer_count when all are done
    };

    Result<ShardModel*> model_of_open(SequenceId id);
    Status check_begin(const BeginStep& request) const;
    Status check_layer(const ShardLayer& call) const;

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
};

}  // namespace kvgrid::worker
