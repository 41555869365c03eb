#pragma once

#include <atomic>
#include <chrono>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "comm/collective/collective.h"
#include "comm/rpc/server.h"
#include "worker/collective_slot.h"
#include "worker/executor.h"
#include "worker/executor_loop.h"
#include "worker/grid_side.h"
#include "worker/monitor.h"
#include "worker/registration.h"

namespace kvgrid::worker {

// Forms the collective of the ranks listed (world ranks of the launcher), under a generation. On the executor thread.
using FormCollective = std::function<Result<std::unique_ptr<comm::Collective>>(const std::vector<int>& world_ranks,
                                                                               Generation generation, Deadline)>;

struct NodeOptions {
    comm::Endpoint coordinator;
    comm::Endpoint listen;
    std::optional<comm::Endpoint> http_listen;  // for /metrics and the like; nothing: none
    bool allow_remote = false;
    int mpi_rank = 0;
    std::uint64_t world = 0;  // of the launcher; 0: started alone
    std::uint64_t memory_bytes = 0;
    std::chrono::milliseconds operation_timeout{60'000};
    std::chrono::milliseconds form_timeout{30'000};
    std::chrono::milliseconds step_idle_max{60'000};  // 0: for ever
    std::chrono::milliseconds drain_timeout{10'000};
    comm::ServerLimits limits = {};
    std::function<std::uint64_t()> abandoned_mpi_requests = {};  // so far; from any thread
};

// One worker of a cluster, with threads of its own; a process has one as a rule (NodeGroup). Registers, forms its grid when the coordinator names one, and then serves as lead or peer.
//
//   I/O thread       sockets, registration, the lead's decisions (GridSide)
//   executor thread  the one that calls `run`: forms collectives, applies operations to the shard, stands in for the I/O thread between
//                    two short ones
//
//   Generations     a new one begins with an empty shard. When one ends here (a member is lost, or the coordinator has formed another
//                   one), whoever waits in it is freed at once; its pages stay counted until the coordinator names another generation.
//   Draining        a worker that was asked to end takes part until no step of the grid is open, or its deadline; then it tells
//                   the coordinator and ends.
class Node {
  public:
    Node(NodeOptions options, FormCollective form, std::unique_ptr<Device> device);
    ~Node();

    // Listens, registers and applies operations until `stop`. Returns the reason if it could not listen.
    Status run();
    void drain();  // from any thread: ends `run` soon, in order
    void stop();   // from any thread: ends it now

  private:
    // The executor thread's half of a grid.
    struct Grid {
        std::unique_ptr<comm::Collective> collective;
        std::unique_ptr<Shard> shard;
        std::unique_ptr<Executor> executor;
    };

    void on_membership(WorkerId self, const MembershipView& view);
    void join(const MembershipView& view, int rank);
    void leave_generation();
    void begin_drain();
    void advance_drain();
    void leave();
    void form(const MembershipView& view, int rank);
    void formed(Generation generation, const Status& status);
    void apply(Generation generation, Operation operation);
    void on_request(comm::Request request, comm::Responder responder);
    void on_answer(const comm::Answered& answered);
    WorkerHealth health();
    NodeState state() const;
    Result<std::string> start_monitor();
    void publish_report();
    void drop_grid();

    const NodeOptions options_;
    const FormCollective form_;
    WorkerMetrics metrics_;
    ExecutorLoop executor_loop_;
    const std::unique_ptr<Device> device_;
    Grid grid_;
    CollectiveSlot collective_;  // grid_'s

    std::mutex report_mutex_;
    std::vector<ModelReport> report_;

    comm::IoThread io_;
    // On the I/O thread only.
    bool draining_ = false;
    bool grid_is_drained_ = false;  // the coordinator says so
    bool told_drained_ = false;
    bool leaving_ = false;
    Deadline drain_deadline_;
    std::shared_ptr<comm::IoThread::Timer> drain_timer_;
    std::unique_ptr<GridSide> side_;
    std::unique_ptr<comm::Server> server_;
    std::unique_ptr<Registration> registration_;

    std::unique_ptr<WorkerMonitor> monitor_;  // looks at all of the above
};

}  // namespace kvgrid::worker
