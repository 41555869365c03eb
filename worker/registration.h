#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "comm/rpc/channel.h"
#include "comm/rpc/io_thread.h"
#include "core/ids.h"
#include "worker/shard.h"

namespace kvgrid::worker {

struct MemberAddress {
    WorkerId worker;
    comm::Endpoint endpoint;
    int mpi_rank = 0;
    std::string host;
    int process_id = 0;
};

// Who makes up the grid, by rank; the first is the lead. Generation 0: there is no grid yet.
struct MembershipView {
    Generation generation;
    std::vector<MemberAddress> members;
    std::uint64_t term = 0;  // the coordinator's: grows with each start of one
    std::string lost = {};   // why it goes on no more, as the coordinator knows; empty: it does
    bool draining = false;   // a member was asked to end: the lead takes no more steps
    bool drained = false;    // no step is open
};

// What a worker tells the coordinator about itself when it registers.
struct WorkerIdentity {
    std::string endpoint;
    std::string host;
    int process_id = 0;
    int mpi_rank = 0;
    std::uint64_t memory_bytes = 0;
    std::string http_endpoint = {};  // empty: none
    std::uint64_t world = 0;         // random, one per launcher's job; 0: a job of this process alone
};

// What it tells with each heartbeat.
struct WorkerHealth {
    Generation generation;  // formed; 0 if none
    bool ready = false;
    std::string problem;
    bool broken = false;    // the generation goes on no more
    bool draining = false;  // asked to end
    bool drained = false;   // of a lead: no step is open, and none will be
    std::vector<ModelReport> models;
};

// A worker's side of membership: registers with the coordinator, again whenever the coordinator does not know it, and sends
// heartbeats, at once when the connection was lost and is there again. Everything runs on the I/O thread.
class Registration {
  public:
    struct Callbacks {
        std::function<void(WorkerId, const MembershipView&)> on_membership;  // each time it is told of one, new or not
        std::function<WorkerHealth()> health;
    };

    Registration(comm::IoThread& io, comm::Endpoint coordinator, WorkerIdentity identity, Callbacks callbacks);
    ~Registration();

    void start();      // from any thread
    void beat_soon();  // a heartbeat now, because what it says has changed

    // Tells the coordinator that this process ends, and nothing afterwards. `done` is called once: when it knows, or when it has not
    // answered in half a second.
    void leave(std::function<void()> done);

  private:
    struct Impl;
    std::shared_ptr<Impl> impl_;
};

}  // namespace kvgrid::worker
