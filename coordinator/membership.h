#pragma once

#include <chrono>
#include <map>
#include <optional>
#include <set>
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
    std::vector<PoolOccupancy> pools = {};
    std::string version = {};
    std::string http_endpoint = {};  // of its metrics; empty: none
    bool broken = false;             // the generation that it has formed goes on no more
    bool draining = false;           // it was asked to end
    bool drained = false;            // of a lead that takes no more steps: none is open
    bool leaving = false;            // it ends: its last heartbeat
};

struct Worker {
    enum class State {
        alive,
        silent,        // dead: not heard of for `dead_after`
        disconnected,  // dead: its connection broke, and it did not come back
        left,          // it said so
    };

    WorkerId id;
    WorkerProcess process;
    TimePoint last_heard;
    State state = State::alive;
    std::optional<TimePoint> connection_lost;  // and not heard of since
    Heartbeat said;                            // last

    bool alive() const { return state == State::alive; }
};

// Which workers there are, which of them make up the grid, and whether the grid works. Decides only: whoever holds it makes
// the generation durable, answers the workers and logs.
//
//   Forming     `expected_workers` live workers of one launcher's world make a grid when there is none, or when the present one is
//               lost: ordered by MPI rank, then by id. The others are standbys. A worker that is draining, or that may be dying
//               (nothing was heard of it just now), is not taken: forming with it would hang the others. After a generation that never
//               worked the next one waits, twice as long each time.
//   Death       a worker is dead that was not heard of for `dead_after`, or not for a quarter of it after its connection broke.
//               A dead standby is forgotten. Silence counts only while somebody listened: a coordinator that was stopped for a while
//               finds nobody dead for that.
//   Lost        a generation is lost when a member dies or leaves, or says that it is broken. It stays lost: the survivors have
//               refused what was under way, so the shards are no longer alike. A member that was only slow has to register again,
//               and takes part in the next generation.
//   Restart     of the coordinator: the grid comes from the catalogue. Each member counts as heard of at the start, has to register
//               again and keeps its id, and the grid is ready when each has said that it still holds this generation.
class Membership {
  public:
    struct Options {
        int expected_workers = 1;
        std::chrono::milliseconds dead_after{2'000};

        // Silence that is longer than any that a living worker leaves as a rule. Not shorter than two heartbeats or so.
        std::chrono::milliseconds suspect_after() const { return dead_after / 4; }
    };
    static constexpr std::chrono::milliseconds kReformMin{500};
    static constexpr std::chrono::milliseconds kReformMax{30'000};

    Membership(Options options, Grid grid, TimePoint now);

    // The id of this very process, if it is known here.
    std::optional<WorkerId> find(std::uint64_t incarnation) const;
    // A new worker, or the same process again.
    void add(WorkerId id, WorkerProcess process, TimePoint now);
    // `not_found`: it has to register (again).
    Status hear(Heartbeat heartbeat, TimePoint now);
    // Its pages as the lead has just counted them; a heartbeat that is on its way may be older.
    void learn(WorkerId id, std::vector<PoolOccupancy> pools);
    // Its connection broke. It is dead soon, unless it is heard of.
    void disconnected(WorkerId id, TimePoint now);
    // Those that died since the last call. To be called at least twice in `suspect_after`.
    std::vector<Worker> tick(TimePoint now);

    // The members of the grid that should be formed now; empty if none should. The same until `form` is called.
    std::vector<Member> grid_to_form(TimePoint now) const;
    void form(Grid grid, TimePoint now);

    // Why the members do not work together now; nothing if they do.
    std::optional<std::string> obstacle(TimePoint now) const;
    const std::string& lost() const { return lost_; }            // why the generation goes on no more; empty: it does
    const std::string& last_loss() const { return last_loss_; }  // of the generation before; empty: not known here
    std::optional<std::string> draining() const;                 // who was asked to end; nothing if nobody was
    bool is_drained() const;                                     // and no step is open any more

    const Options& options() const { return options_; }
    const Grid& grid() const { return grid_; }
    int rank_of(WorkerId id) const;                    // -1: a standby
    std::vector<Worker> workers() const;               // members by rank, then standbys by id
    std::vector<Worker> members() const;               // by rank
    std::string describe(const Worker& worker) const;  // "worker 3 (rank 1, pid 77 on host x)"

  private:
    void excuse_absence(TimePoint now);
    void lose(std::string why);
    bool may_form(const Worker& worker, TimePoint now) const;
    int live_count() const;
    std::string obstacle_of(const Worker& member) const;
    std::string what_happened_to(const Worker& dead, TimePoint now) const;

    Options options_;
    Grid grid_;
    TimePoint last_tick_;
    std::map<WorkerId, Worker> workers_;  // each member of the grid is in here
    std::set<WorkerId> registered_;       // since this object was made
    std::string lost_;                    // why the generation goes on no more; empty: it does
    std::string last_loss_;
    bool has_worked_ = false;  // this generation
    int failure_count_ = 0;    // generations in a row that have not
    TimePoint reform_not_before_{};
};

}  // namespace kvgrid::coordinator
