#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "comm/wire/frame.h"
#include "core/clock.h"
#include "worker/head_slices.h"
#include "worker/observer.h"
#include "worker/operation.h"

namespace kvgrid::worker {

// Where a lead's operations go: rank 0 is the lead's own executor, the others are peers.
class GridLinks {
  public:
    virtual ~GridLinks() = default;
    virtual int rank_count() const = 0;
    // In order for each rank; does not wait.
    virtual Status send(int rank, const Operation& operation) = 0;
};

// Counts since the generation began.
struct LeadCounters {
    std::uint64_t operations = 0;
    std::uint64_t layer_calls = 0;          // layer operations; merged ones count once
    std::uint64_t merged_layer_calls = 0;   // clients' calls that shared an operation with another client's
    std::uint64_t non_finite_refusals = 0;  // layer calls refused for a NaN or infinity in k or v
    std::uint64_t steps_abandoned = 0;      // aborted because their client's connection was lost
    std::uint64_t steps_timed_out = 0;      // aborted because no call of them came for long
};

// Gives the grid's operations one order. Requests wait in a queue; a few operations at a time are numbered, their tensors cut to each
// head part's heads, and sent to all ranks. Small layer calls of different clients at the same layer of the same model leave the
// queue together, as one operation.
//
//   Threads  one (a worker's I/O thread). Decides only: sockets and kernels are behind GridLinks.
//   Owners   a step belongs to the connection that began it; when that is lost, the step is aborted.
//   Bounds   kQueueMax requests wait; beyond that: busy.
class Lead {
  public:
    using Done = std::function<void(OperationResult)>;
    using Owner = std::uint64_t;  // of a step: a connection; 0 for nobody

    static constexpr std::size_t kQueueMax = 4096;
    static constexpr int kInFlightMax = 2;        // one runs, one is ready when it ends
    static constexpr int kMergedTokensMax = 256;  // larger calls fill the machine alone

    explicit Lead(GridLinks& links, Observer* observer = nullptr);

    // Everything but layers and steps; `done` is called once, from `completed` or `fail`, or at once with `busy`.
    void submit(OperationBody body, Done done);

    // The same for an operation that has tensors, all of which every rank gets.
    void submit(OperationBody body, comm::Payload tensors, Done done);

    // The lead chooses the step's id: in `begin.step` of what `done` is told.
    void begin(BeginStep begin, Owner owner, std::function<void(StepId, OperationResult)> done);

    // One of a step's layers, as a client calls it.
    struct LayerOfStep {
        LayerOfStep(int number, LeftOut left = {}) : layer(number), left_out(left) {}
        int layer;
        LeftOut left_out;
    };
    // `tensors`: q, k, v of all heads, as in wire.LayerRequest. Wrong sizes, a wrong layer, a step that is not open, and a NaN or
    // infinity in k or v (where the model does not allow them) are refused at once, and the same layer can be called again.
    void layer(StepId step, LayerOfStep layer, comm::Payload tensors, Done done);
    // The same with the tensors in GPU memory of the client's, where only sizes and places can be checked; alone, never merged with others. Through
    // the host's memory where several ranks have not all opened it.
    void layer_in_place(StepId step, LayerOfStep layer, const DeviceRegion& region, const DeviceOffsets& at, Done done);
    void commit(StepId step, Done done);
    void abort(StepId step, Done done);

    // not_found if the step is open and another owner's. Ids of steps can be guessed.
    Status check_owner(StepId step, Owner owner) const;

    // The executor of rank 0 has applied an operation.
    void completed(std::uint64_t number, OperationResult result);

    // Aborts the steps of an owner that is gone.
    void owner_lost(Owner owner);

    // Aborts the steps of which no call has come, and none was under way, for `idle_max`. To be called again and again: a step is idle
    // from the first of these calls that finds it so.
    void abort_idle_steps(TimePoint now, std::chrono::milliseconds idle_max);

    // The grid is broken: everything that waits or comes later ends with this error.
    void fail(const Error& cause);

    int rank_count() const { return links_.rank_count(); }
    LeadCounters counters() const { return counters_; }
    std::size_t open_step_count() const { return steps_.size(); }
    std::size_t queue_depth() const { return queue_.size(); }
    std::size_t under_way_count() const { return under_way_.size(); }
    // No step is open, and nothing waits or is under way.
    bool is_idle() const { return steps_.empty() && queue_.empty() && under_way_.empty(); }

  private:
    struct Model {
        ModelSpec spec;
        GridShape grid;
    };
    struct OpenStep {
        ModelId model;
        StepKind kind;
        int tokens;
        StepProgress progress;
        Owner owner;
        TimePoint begun;     // asked for
        bool called = true;  // since abort_idle_steps looked last
        TimePoint idle_since{};
    };
    struct Pending {
        OperationBody body;
        Done done;
        StepId step;  // that it acts on, if any
        // Of layer calls; kept here because the step may be aborted while the call waits.
        ModelId model;
        StepKind kind = StepKind::attend;
        Brings brings;
        CallTensors tensors;
        TimePoint queued{};
    };
    // One client's part of an operation that is under way.
    struct Share {
        std::size_t bytes;  // of the result's tensors
        Done done;
        StepId step;  // that it acts on, if any
    };
    struct TimedOut {
        StepId step;
        std::chrono::milliseconds idle_max;
    };

    void enqueue(Pending pending);
    void pump();
    void dispatch(Pending pending);
    void dispatch_layers(Pending first);
    std::vector<Pending> take_mergeable(const Pending& first);
    void send_to_all(Operation operation, const std::vector<comm::Payload>& tensors_by_head_part,
                     const GridShape& grid);
    Result<OpenStep*> find_step(StepId step);
    Error why_not_open(StepId step) const;
    std::unordered_set<StepId> steps_with_calls() const;
    Result<Brings> check_layer(const OpenStep& step, StepId id, const LayerOfStep& layer,
                               std::size_t tensor_bytes) const;
    void layer_through_host(OpenStep& step, RunLayer layer, Brings brings, ClientTensors tensors, Done done);
    void enqueue_layer(OpenStep& step, RunLayer layer, Brings brings, comm::Payload tensors, Done done);
    Status check_values(const OpenStep& step, int layer, const comm::Payload& tensors);

    void left_queue(const Pending& pending, std::uint64_t operation);
    Done ending(const OpenStep& step, bool committed, Done done);

    GridLinks& links_;
    Observer nobody_;
    Observer& observer_;
    std::unordered_map<ModelId, Model> models_;
    std::unordered_map<StepId, OpenStep> steps_;
    std::unordered_set<Owner> lost_owners_with_begins_;
    std::unordered_map<Owner, int> begins_under_way_;
    std::deque<Pending> queue_;
    std::map<std::uint64_t, std::vector<Share>> under_way_;
    std::deque<TimedOut> timed_out_;  // the last ones, for the message
    std::optional<Error> failed_;
    LeadCounters counters_;
    std::uint64_t last_step_ = 0;
    bool pumping_ = false;
};

}  // namespace kvgrid::worker
