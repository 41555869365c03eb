#include "coordinator/membership.h"

#include <fmt/format.h>

#include <algorithm>
#include <tuple>
#include <utility>

namespace kvgrid::coordinator {

Membership::Membership(Options options, Grid grid, TimePoint now)
    : options_(options), grid_(std::move(grid)), last_tick_(now) {
    for (const Member& member : grid_.members) add(member.worker, member.process, now);
    registered_.clear();
}

std::optional<WorkerId> Membership::find(std::uint64_t incarnation) const {
    for (const auto& [id, worker] : workers_) {
        if (worker.process.incarnation == incarnation) return id;
    }
    return std::nullopt;
}

void Membership::add(WorkerId id, WorkerProcess process, TimePoint now) {
    Worker& worker = workers_[id];
    worker.id = id;
    worker.process = std::move(process);
    worker.last_heard = now;
    worker.state = Worker::State::alive;
    worker.connection_lost.reset();
    registered_.insert(id);
}

Status Membership::hear(Heartbeat heartbeat, TimePoint now) {
    const auto found = workers_.find(heartbeat.worker);
    if (found == workers_.end() || !found->second.alive() || !registered_.contains(heartbeat.worker)) {
        return {Errc::not_found,
                fmt::format("worker {} is not known here (it was silent for too long, or the coordinator was "
                            "restarted): register again",
                            heartbeat.worker.value)};
    }
    Worker& worker = found->second;
    worker.said = std::move(heartbeat);
    worker.last_heard = now;
    worker.connection_lost.reset();
    if (rank_of(worker.id) >= 0 && worker.said.formed == grid_.generation && worker.said.broken) {
        lose(fmt::format("{} says: {}", describe(worker), worker.said.problem));
    }
    if (worker.said.leaving) {
        worker.state = Worker::State::left;
        if (rank_of(worker.id) >= 0) lose(what_happened_to(worker, now));
    }
    if (!obstacle(now)) has_worked_ = true;
    return {};
}

void Membership::learn(WorkerId id, std::vector<PoolOccupancy> pools) {
    if (const auto found = workers_.find(id); found != workers_.end()) found->second.said.pools = std::move(pools);
}

void Membership::disconnected(WorkerId id, TimePoint now) {
    const auto found = workers_.find(id);
    if (found != workers_.end() && found->second.alive()) found->second.connection_lost = now;
}

std::vector<Worker> Membership::tick(TimePoint now) {
    excuse_absence(now);
    std::vector<Worker> died;
    for (auto& [id, worker] : workers_) {
        if (!worker.alive()) continue;
        if (now - worker.last_heard >= options_.dead_after) {
            worker.state = Worker::State::silent;
        } else if (worker.connection_lost && now - *worker.connection_lost >= options_.suspect_after()) {
            worker.state = Worker::State::disconnected;
        } else {
            continue;
        }
        died.push_back(worker);
        if (rank_of(id) >= 0) lose(what_happened_to(worker, now));
    }
    std::erase_if(workers_, [this](const auto& entry) { return !entry.second.alive() && rank_of(entry.first) < 0; });
    return died;
}

// Heartbeats that came while nobody listened are about to be read; they must not find their workers dead.
void Membership::excuse_absence(TimePoint now) {
    const auto absence = now - std::exchange(last_tick_, now);
    if (absence <= options_.dead_after / 2) return;
    for (auto& [id, worker] : workers_) {
        if (worker.alive()) worker.last_heard = std::min(now, worker.last_heard + absence);
    }
}

void Membership::lose(std::string why) {
    if (lost_.empty()) lost_ = std::move(why);
}

bool Membership::may_form(const Worker& worker, TimePoint now) const {
    return worker.alive() && registered_.contains(worker.id) && !worker.connection_lost && !worker.said.draining &&
           now - worker.last_heard < options_.suspect_after();
}

std::vector<Member> Membership::grid_to_form(TimePoint now) const {
    if ((!grid_.members.empty() && lost_.empty()) || now < reform_not_before_) return {};
    std::map<std::uint64_t, std::vector<Member>> by_world;
    for (const auto& [id, worker] : workers_) {
        if (may_form(worker, now)) by_world[worker.process.world].push_back({id, worker.process});
    }
    std::erase_if(by_world, [this](const auto& entry) {
        return static_cast<int>(entry.second.size()) < options_.expected_workers;
    });
    if (by_world.empty()) return {};
    // Of several worlds the one that has been here longest.
    std::vector<Member> members =
        std::ranges::min_element(by_world, {}, [](const auto& entry) { return entry.second.front().worker; })->second;
    std::sort(members.begin(), members.end(), [](const Member& one, const Member& other) {
        return std::tie(one.process.mpi_rank, one.worker) < std::tie(other.process.mpi_rank, other.worker);
    });
    members.resize(options_.expected_workers);
    return members;
}

void Membership::form(Grid grid, TimePoint now) {
    failure_count_ = has_worked_ || grid_.members.empty() ? 0 : failure_count_ + 1;
    reform_not_before_ =
        now + std::min<std::chrono::milliseconds>(kReformMax, kReformMin * (1 << std::min(failure_count_, 10)));
    has_worked_ = false;
    last_loss_ = std::exchange(lost_, {});
    grid_ = std::move(grid);
    std::erase_if(workers_, [this](const auto& entry) { return !entry.second.alive() && rank_of(entry.first) < 0; });
}

std::optional<std::string> Membership::obstacle(TimePoint now) const {
    if (grid_.members.empty()) {
        return fmt::format("{} of {} workers have registered", live_count(), options_.expected_workers);
    }
    if (!lost_.empty()) {
        std::string why = lost_;
        for (const Worker& member :
             members()) {  // of the dead, what is true now; they are why the others have problems
            if (member.alive()) continue;
            why = what_happened_to(member, now);
            break;
        }
        return fmt::format(
            "generation {} is lost, with all its sequences: {}; {} of the {} workers that the next one needs are here",
            grid_.generation.value, why, live_count(), options_.expected_workers);
    }
    for (const Worker& member : members()) {
        if (std::string why = obstacle_of(member); !why.empty()) return why;
    }
    return std::nullopt;
}

std::string Membership::what_happened_to(const Worker& dead, TimePoint now) const {
    const std::chrono::duration<double> since = now - dead.last_heard;
    switch (dead.state) {
        case Worker::State::disconnected:
            return fmt::format("{} died: its connection broke and nothing was heard of it for {:.1f} s", describe(dead),
                               since.count());
        case Worker::State::left:
            return fmt::format("{} was asked to end and has left", describe(dead));
        default:
            return fmt::format("{} has not been heard of for {:.1f} s", describe(dead), since.count());
    }
}

std::string Membership::obstacle_of(const Worker& member) const {
    const auto explained = [&](std::string what) {
        if (!member.said.problem.empty()) what += ": " + member.said.problem;
        return what;
    };
    if (member.said.formed != grid_.generation) {
        return explained(fmt::format("{} has not formed generation {} yet", describe(member), grid_.generation.value));
    }
    if (!member.said.ready) return explained(describe(member) + " is not ready");
    return {};
}

std::optional<std::string> Membership::draining() const {
    for (const Worker& member : members()) {
        if (member.said.draining)
            return describe(member) + " is draining: it was asked to end, and nothing new is begun";
    }
    return std::nullopt;
}

bool Membership::is_drained() const {
    return draining() && members().front().said.drained;
}

int Membership::rank_of(WorkerId id) const {
    for (int rank = 0; rank < grid_.size(); ++rank) {
        if (grid_.members[rank].worker == id) return rank;
    }
    return -1;
}

std::vector<Worker> Membership::members() const {
    std::vector<Worker> members;
    for (const Member& member : grid_.members) members.push_back(workers_.at(member.worker));
    return members;
}

std::vector<Worker> Membership::workers() const {
    std::vector<Worker> all = members();
    for (const auto& [id, worker] : workers_) {
        if (rank_of(id) < 0) all.push_back(worker);
    }
    return all;
}

std::string Membership::describe(const Worker& worker) const {
    const int rank = rank_of(worker.id);
    return fmt::format("worker {} ({}, pid {} on host {})", worker.id.value,
                       rank < 0 ? "standby" : fmt::format("rank {}", rank), worker.process.process_id,
                       worker.process.host);
}

int Membership::live_count() const {
    return static_cast<int>(
        std::count_if(workers_.begin(), workers_.end(), [](const auto& entry) { return entry.second.alive(); }));
}

}  // namespace kvgrid::coordinator
