#pragma once

#include <functional>
#include <vector>

#include "comm/rpc/server.h"
#include "core/ids.h"
#include "worker/device_memories.h"
#include "worker/lead.h"
#include "worker/shared_memory.h"

namespace kvgrid::wire {
class LayerRequest;
}

namespace kvgrid::worker {

// Turns frames of clients and of the coordinator into operations of the lead, and results into replies. On the I/O thread.
//
//   Terms  a coordinator that was killed may have left requests on the way. Its successor tells the worker its own term when that
//          registers; from then on a request that changes the grid and comes with another term is refused. The term is never taken from
//          such a request: anybody can send one.
class Service {
  public:
    Service(Lead& lead, Generation generation, std::vector<WorkerId> workers_by_rank, DeviceMemories::Open open_memory);

    // Every request type that a lead serves; another type is answered with `unsupported`, another generation with
    // `stale_generation`.
    void handle(comm::Request request, comm::Responder responder);
    void connection_lost(comm::ConnectionId connection);

    // As the coordinator says over the worker's own connection to it.
    void begin_term(std::uint64_t term) { term_ = term; }

  private:
    bool is_of_this_term(std::uint64_t term, comm::Responder& responder) const;
    void inventory(const comm::Request& request, comm::Responder responder);
    void add_model(const comm::Request& request, comm::Responder responder);
    void open_sequence(const comm::Request& request, comm::Responder responder);
    void fork_sequence(const comm::Request& request, comm::Responder responder);
    void close_sequence(const comm::Request& request, comm::Responder responder);
    void begin_step(const comm::Request& request, comm::Responder responder);
    void layer(const comm::Request& request, comm::Responder responder);
    void layer_in_place(const comm::Request& request, const wire::LayerRequest& message, comm::Responder responder);
    void share_memory(const comm::Request& request, comm::Responder responder);
    void share_device_memory(const comm::Request& request, comm::Responder responder);
    void share_with_peers(comm::ConnectionId connection, OpenClientMemory open, comm::Responder responder);
    void let_go(const DeviceRegion& region, Lead::Done done);
    bool owns(const comm::Request& request, std::uint64_t step, comm::Responder& responder) const;
    void commit_step(const comm::Request& request, comm::Responder responder);
    void abort_step(const comm::Request& request, comm::Responder responder);
    void read_kv(const comm::Request& request, comm::Responder responder);
    void rewrite_kv(const comm::Request& request, comm::Responder responder);
    void truncate(const comm::Request& request, comm::Responder responder);
    void set_window(const comm::Request& request, comm::Responder responder);
    void inspect_sequence(const comm::Request& request, comm::Responder responder);
    void occupancy(const comm::Request& request, comm::Responder responder);
    void start_trace(const comm::Request& request, comm::Responder responder);
    void take_trace(const comm::Request& request, comm::Responder responder);

    Lead& lead_;
    SharedMemory shared_memory_;
    DeviceMemories device_memories_;
    const Generation generation_;
    std::uint64_t term_ = 0;
    const std::vector<WorkerId> workers_by_rank_;
};

}  // namespace kvgrid::worker
