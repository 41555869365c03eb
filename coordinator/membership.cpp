#include "coordinator/membership.h"

#include <fmt/format.h>

#include <algorithm>
#include <tuple>
#include <utility>

namespace kvgrid::coordinator {

Membership::Membership(Options options, Grid grid, TimePoint now)
    : options_(options), grid_(std::move(grid)), last_tick_(now) {
    for (const Member& member : grid_.members) add(member.worker, member.process, now);
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
    worker.alive = true;
}

Result<bool> Membership::hear(Heartbeat heartbeat, TimePoint now) {
    const auto found = workers_.find(heartbeat.worker);
    if (found == workers_.end()) {
        return {
            Errc::not_found,
            fmt::format("worker {} is not known here (it was silent for too long, or the coordinator was restarted): "
                        "register again",
                        heartbeat.worker.value)};
    }
    Worker& worker = found->second;
    const bool was_dead = !worker.alive;
    worker.said = std::move(heartbeat);
    worker.last_heard = now;
    worker.alive = true;
    return was_dead;
}

std::vector<Worker> Membership::tick(TimePoint now) {
    excuse_absence(now);
    std::vector<Worker> died;
    for (auto& [id, worker] : workers_) {
        if (!worker.alive || now - worker.last_heard < options_.dead_after) continue;
        worker.alive = false;
        died.push_back(worker);
    }
    std::erase_if(workers_, [this](const auto& entry) { return !entry.second.alive && rank_of(entry.first) < 0; });
    return died;
}

// Heartbeats that came while nobody listened are about to be read; they must not find their workers dead.
void Membership::excuse_absence(TimePoint now) {
    const auto absence = now - std::exchange(last_tick_, now);
    if (absence <= options_.dead_after / 2) return;
    for (auto& [id, worker] : workers_) {
        if (worker.alive) worker.last_heard = std::min(now, worker.last_heard + absence);
    }
}

std::vector<Member> Membership::grid_to_form() const {
    if (has_live_member() || live_count() < options_.expected_workers) return {};
    std::vector<Member> members;
    for (const auto& [id, worker] : workers_) {
        if (worker.alive) members.push_back({id, worker.process});
    }
    std::sort(members.begin(), members.end(), [](const Member& one, const Member& other) {
        return std::tie(one.process.mpi_rank, one.worker) < std::tie(other.process.mpi_rank, other.worker);
    });
    members.resize(options_.expected_workers);
    return members;
}

void Membership::form(Grid grid) {
    grid_ = std::move(grid);
}

std::optional<std::string> Membership::obstacle(TimePoint now) const {
    if (grid_.members.empty()) {
        return fmt::format("{} of {} workers have registered", live_count(), options_.expected_workers);
    }
    const std::vector<Worker> by_rank = members();
    for (const Worker& member : by_rank) {  // first of all the dead: they are why the others have problems
        if (!member.alive) return obstacle_of(member, now);
    }
    for (const Worker& member : by_rank) {
        if (std::string why = obstacle_of(member, now); !why.empty()) return why;
    }
    return std::nullopt;
}

std::string Membership::obstacle_of(const Worker& member, TimePoint now) const {
    const auto explained = [&](std::string what) {
        if (!member.said.problem.empty()) what += ": " + member.said.problem;
        return what;
    };
    if (!member.alive) {
        const std::chrono::duration<double> silent = now - member.last_heard;
        return fmt::format(
            "{} has not been heard of for {:.1f} s: its part of every sequence is lost until the grid is formed again",
            describe(member), silent.count());
    }
    if (member.said.formed != grid_.generation) {
        return explained(fmt::format("{} has not formed generation {} yet", describe(member), grid_.generation.value));
    }
    if (!member.said.ready) return explained(describe(member) + " is not ready");
    return {};
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
        std::count_if(workers_.begin(), workers_.end(), [](const auto& entry) { return entry.second.alive; }));
}

bool Membership::has_live_member() const {
    return std::any_of(grid_.members.begin(), grid_.members.end(),
                       [this](const Member& member) { return workers_.at(member.worker).alive; });
}

}  // namespace kvgrid::coordinator
