#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

#include "comm/collective/collective.h"
#include "worker/join.h"
#include "worker/observer.h"
#include "worker/operation.h"
#include "worker/shard.h"

namespace kvgrid::worker {

// Applies operations to one rank's shard, in the lead's order, and makes whole what the ranks did in parts.
//
//   Threads    one: the collective's.
//   Agreement  where ranks may differ (AddModel, BeginStep: room), they agree by an all-reduce and all take the operation back if one
//              of them refused. Everything else is refused by all or by none, without a message; TakeInventory checks that this has
//              held so far.
//   Errors     after a collective has failed, this grid is broken: every further operation is refused with peer_lost. The shard stays
//              as it is, readable by its owner.
class Executor {
  public:
    static constexpr int kLeadRank = 0;

    // `operation_timeout` bounds how long the ranks wait for one another in one operation.
    Executor(Shard& shard, comm::Collective& collective, std::chrono::milliseconds operation_timeout,
             Observer* observer = nullptr);

    OperationResult apply(const Operation& operation);

    // Of the shard's device, and of the join that it takes part in here.
    DeviceStatus device_status() const;

  private:
    OperationResult run(const AddModel& add);
    OperationResult run(const OpenSequence& open);
    OperationResult run(const ForkSequence& fork);
    OperationResult run(const CloseSequence& close);
    OperationResult run(const TruncateSequence& truncate);
    OperationResult run(const SetWindow& set);
    OperationResult run(const BeginStep& begin);
    OperationResult run(const RunLayer& layer);
    OperationResult run(const OpenClientMemory& open);
    OperationResult run(const CloseClientMemory& close);
    Result<ClientTensors> tensors_in_memory(const RunLayer& layer, const ShardModel& model, int tokens,
                                            Brings brings) const;
    Status place_tensors(const RunLayer& layer, const ShardModel& model, int tokens, Brings brings,
                         ShardLayer& call) const;
    OperationResult run(const CommitStep& commit);
    OperationResult run(const AbortStep& abort);
    OperationResult run(const ReadKv& read);
    OperationResult run(const RewriteKv& rewrite);
    OperationResult run(const InspectSequence& inspect);
    OperationResult run(const ReportOccupancy& report);
    OperationResult run(const StartTrace& start);
    OperationResult run(const TakeTrace& take);
    OperationResult run(const TakeInventory& take);

    bool is_lead() const { return collective_.rank() == kLeadRank; }
    static OperationResult only(Status status);
    OperationResult broken(const Error& cause);
    Deadline deadline() const { return deadline_in(operation_timeout_); }

    Shard& shard_;
    comm::Collective& collective_;
    const std::chrono::milliseconds operation_timeout_;
    Observer nobody_;
    Observer& observer_;
    std::unique_ptr<Join> join_;                                                        // from the first model on
    std::unordered_map<std::uint64_t, std::shared_ptr<DeviceMemory>> client_memories_;  // of a peer
    const Operation* current_ = nullptr;
    bool broken_ = false;
};

}  // namespace kvgrid::worker
