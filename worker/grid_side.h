#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "comm/rpc/channel.h"
#include "comm/rpc/server.h"
#include "worker/lead.h"
#include "worker/node_state.h"
#include "worker/operation_order.h"
#include "worker/registration.h"
#include "worker/service.h"

namespace kvgrid::worker {

// The I/O thread's half of a grid, from the moment its membership is known: the lead's links and requests, or a peer's order of
// operations. One object for each generation.
class GridSide {
  public:
    struct Executor {
        std::function<void(Operation)> apply;  // hands it an operation
        std::function<void()> cancel;          // frees it from waiting for other ranks
        DeviceMemories::Open open_memory;      // for layer calls
    };

    // `step_idle_max`: how long a step may stay open without a call; 0: for ever.
    GridSide(comm::IoThread& io, MembershipView view, int rank, std::chrono::milliseconds step_idle_max,
             Executor executor, Observer* observer = nullptr);
    ~GridSide();  // what waits is answered with stale_generation

    void formed(const Status& status);  // the collective of this generation is there, or not
    void handle(comm::Request request, comm::Responder responder);
    void connection_lost(comm::ConnectionId connection);
    void completed(std::uint64_t number, OperationResult result);
    void hear(const MembershipView& view);  // of the same generation: another term, lost by now, draining

    // Ends the generation here: whatever waits or comes later is answered with peer_lost and this.
    void give_up(const std::string& problem);

    Generation generation() const { return view_.generation; }
    bool ready() const { return formed_ && (rank_ != 0 || linked_ == peers_.size()) && !is_broken(); }
    std::string problem() const;
    NodeState state() const;
    bool is_broken() const { return !problem_.empty(); }

    // The lead takes no new steps, sequences and models from now on.
    void drain() { draining_ = true; }
    // Nothing is left to be done here: a lead that drains has no step open, or the generation is over.
    bool is_drained() const;

  private:
    struct Links;

    void link(std::size_t peer);
    void link_hello(const comm::Request& request, comm::Responder responder);
    void operation(const comm::Request& request, comm::Responder responder);
    void release_peers();
    std::string describe(std::size_t rank) const;

    comm::IoThread& io_;
    const MembershipView view_;
    const int rank_;
    const Executor executor_;
    bool formed_ = false;
    std::string problem_;
    bool draining_ = false;
    // Of a peer.
    OperationOrder order_;
    comm::ConnectionId lead_connection_ = 0;  // the one that operations may come from

    std::vector<std::unique_ptr<comm::Channel>> peers_;  // of the lead: rank 1, 2, ...
    std::size_t linked_ = 0;
    std::unique_ptr<Links> links_;
    std::unique_ptr<Lead> lead_;
    std::unique_ptr<Service> service_;
    std::shared_ptr<comm::IoThread::Timer> retry_;
    std::shared_ptr<comm::IoThread::Timer> idle_check_;
    std::shared_ptr<bool> alive_ =
        std::make_shared<bool>(true);  // callbacks of channels check that this object still is
};

}  // namespace kvgrid::worker
