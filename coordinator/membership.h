#pragma once

#include <chrono>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "coordinator/grid.h"
#include "core/clock.h"
#include "core/result.h"

namespace kvgrid::coordinator {

struct Heartbeat {
    WorkerId worker;
    Generation formed;  // whose collective and links the worker has made; 0: none
    bool ready = false;
    std::string problem;  // why not
    std::vector<PoolOccupancy> pools;
    std::string version;
    std::string http_endpoint;  // of its metrics; empty: none
};

struct Worker {
    WorkerId id;
    WorkerProcess process;
    TimePoint last_heard;
    bool alive = true;
    Heartbeat said;  // last
};

// Which workers there are, which of them make up the grid, and whether the grid works. Decides only: whoever holds it makes
// the generation durable, answers the workers and logs.
//
//   Forming   `expected_workers` live workers make a grid when there is none: ordered by MPI rank, then by id. A grid stays
//             what it is while one of its members lives; the other workers are standbys.
//   Death     a worker that was not heard of for `dead_after` is dead until it is heard of again: it lost nothing if it
//             was only slow, and it says itself whether its links still work. A dead standby is forgotten. Silence counts
//             only while somebody listened: a coordinator that was stopped for a while finds nobody dead for that.
//   Restart   of the coordinator: the grid comes from the catalogue, and its members keep their ids. Each counts as heard
//             of at the start, and the grid is ready when each has said that it still holds this generation.
class Membership {
  public:
    struct Options {
        int expected_workers = 1;
        std::chrono::milliseconds dead_after{2'000};
    };

    Membership(Options options, Grid grid, TimePoint now);

    // The id of this very process, if it is known here.
    std::optional<WorkerId> find(std::uint64_t incarnation) const;
    // A new worker, or the same process again.
    void add(WorkerId id, WorkerProcess process, TimePoint now);
    // True: the worker was dead before. `not_found`: it has to register (again).
    Result<bool> hear(Heartbeat heartbeat, TimePoint now);
    // Those that died since the last call. To be called at least twice in `dead_after`.
    std::vector<Worker> tick(TimePoint now);

    // The members of the grid that should be formed now; empty if none should. The same until `form` is called.
    std::vector<Member> grid_to_form() const;
    void form(Grid grid);

    // Why the members do not work together now; nothing if they do.
    std::optional<std::string> obstacle(TimePoint now) const;

    const Options& options() const { return options_; }
    const Grid& grid() const { return grid_; }
    int rank_of(WorkerId id) const;                    // -1: a standby
    std::vector<Worker> workers() const;               // members by rank, then standbys by id
    std::vector<Worker> members() const;               // by rank
    std::string describe(const Worker& worker) const;  // "worker 3 (rank 1, pid 77 on host x)"

  private:
    void excuse_absence(TimePoint now);
    int live_count() const;
    bool has_live_member() const;
    std::string obstacle_of(const Worker& member, TimePoint now) const;

    Options options_;
    Grid grid_;
    TimePoint last_tick_;
    std::map<WorkerId, Worker> workers_;  // each member of the grid is in here
};

}  // namespace kvgrid::coordinator
