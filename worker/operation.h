#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <variant>
#include <vector>

#include "comm/wire/frame.h"
#include "core/ids.h"
#include "core/sharding.h"
#include "core/window.h"
#include "worker/device_memory.h"
#include "worker/inventory.h"
#include "worker/recording_gather.h"
#include "worker/shard.h"

namespace kvgrid::worker {

// What a grid can be asked to do. The lead gives every operation a number; every rank applies them in that order.

struct AddModel {
    ModelId model;
    ModelSpec spec;
    GridShape grid;
    std::uint64_t pool_bytes = 0;
};
struct OpenSequence {
    SequenceId sequence;
    ModelId model;
    Window window;
};
struct ForkSequence {
    SequenceId source;
    SequenceId target;
    std::int64_t tokens = 0;  // the first so many; 0: all
};
struct CloseSequence {
    SequenceId sequence;
};
struct TruncateSequence {
    SequenceId sequence;
    std::int64_t length = 0;
};
struct SetWindow {
    SequenceId sequence;
    Window window;
};
struct RunLayer {
    std::vector<StepId> steps;  // of one model and kind; rows are in this order
    int layer = 0;
    LeftOut left_out = {};
    // For one step, instead of Operation::tensors: where those of all heads lie in a client's memory; of the lead, and for its peers.
    ClientTensors in_place = {};
    PlaceInMemory peers_place = {};
};
// GPU memory that a client shares with all ranks, or not with them: `unsupported`, and no rank has opened it. The lead has it from the client.
struct OpenClientMemory {
    std::uint64_t memory = 0;
    std::array<std::byte, DeviceMemory::kHandleBytes> handle = {};
    std::uint64_t bytes = 0;
};
// Done when no rank has it open any more, but for the lead.
struct CloseClientMemory {
    std::uint64_t memory = 0;
};
struct CommitStep {
    StepId step;
};
struct AbortStep {
    StepId step;
};
struct ReadKv {
    SequenceId sequence;
    int layer = 0;
    std::int64_t first_token = 0;
    std::int64_t token_count = 0;
};
// Operation::tensors: k, then v [token_count, KV heads, head_dim], for all ranks the same.
struct RewriteKv {
    SequenceId sequence;
    int layer = 0;
    std::int64_t first_token = 0;
    std::int64_t token_count = 0;
};
struct InspectSequence {
    SequenceId sequence;
};
struct ReportOccupancy {};
struct StartTrace {  // on every rank, from here in the order of operations
    std::uint32_t steps = 1;
    std::chrono::milliseconds duration{0};
    std::uint32_t spans_max = 0;
};
struct TakeTrace {};
struct TakeInventory {};

using OperationBody =
    std::variant<AddModel, OpenSequence, ForkSequence, CloseSequence, TruncateSequence, SetWindow, BeginStep, RunLayer,
                 OpenClientMemory, CloseClientMemory, CommitStep, AbortStep, ReadKv, RewriteKv, InspectSequence,
                 ReportOccupancy, StartTrace, TakeTrace, TakeInventory>;

struct Operation {
    std::uint64_t number = 0;  // consecutive within a generation, from 1
    OperationBody body;
    comm::Payload tensors;  // RunLayer: the receiving rank's heads of q, k, v, in that order
};

struct SequenceReport {
    ModelId model;
    std::int64_t length = 0;
    Window window;
    bool step_open = false;
    std::vector<std::uint64_t> pages_by_rank;
};

// What became of an operation. The fields beside `status` are those that the operation's kind fills, on the lead.
struct OperationResult {
    Status status;
    comm::Payload tensors;                          // RunLayer: o;  ReadKv: k, v
    std::vector<std::int64_t> lengths;              // BeginStep: before the step
    std::uint64_t pool_bytes = 0;                   // AddModel: as allotted, the same on each rank
    SequenceReport sequence;                        // InspectSequence
    std::vector<std::vector<ModelReport>> by_rank;  // ReportOccupancy
    std::vector<RankRecording> recordings;          // TakeTrace: by rank
    std::uint64_t join_bytes = 0;                   // ReportOccupancy: received by all ranks in layer joins so far
    Inventory inventory;                            // TakeInventory
    std::uint64_t compute_ns = 0;                   // RunLayer: in kernels of the lead
    std::uint64_t join_ns = 0;                      // RunLayer: gathering and merging
};

}  // namespace kvgrid::worker
