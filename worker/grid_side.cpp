#include "worker/grid_side.h"

#include <fmt/format.h>

#include <algorithm>

#include "comm/wire/kvgrid.pb.h"
#include "comm/wire/messages.h"
#include "core/log.h"
#include "worker/operation_wire.h"

namespace kvgrid::worker {

using comm::MessageType;

namespace {

constexpr std::chrono::milliseconds kLinkTimeout{5'000};
constexpr std::chrono::milliseconds kLinkRetry{20};
constexpr std::chrono::milliseconds kIdleCheckMin{10};
constexpr std::chrono::milliseconds kIdleCheckMax{1'000};

// What a draining grid refuses.
bool begins_something(MessageType type) {
    switch (type) {
        case MessageType::begin_step:
        case MessageType::grid_open:
        case MessageType::grid_fork:
        case MessageType::grid_add_model:
            return true;
        default:
            return false;
    }
}

std::vector<WorkerId> workers_of(const MembershipView& view) {
    std::vector<WorkerId> workers;
    for (const MemberAddress& member : view.members) workers.push_back(member.worker);
    return workers;
}

}  // namespace

// Sends rank 0's operations to the executor of this process, the others' over their channels.
struct GridSide::Links final : GridLinks {
    explicit Links(GridSide& side) : side_(side) {}

    int rank_count() const override { return static_cast<int>(side_.view_.members.size()); }

    Status send(int rank, const Operation& operation) override {
        if (rank == 0) {
            side_.executor_.apply(operation);
            return {};
        }
        if (packed_number_ != operation.number) {
            packed_ = pack_operation(operation);
            packed_number_ = operation.number;
        }
        Status sent =
            side_.peers_[rank - 1]->post(MessageType::operation, side_.generation().value, packed_, operation.tensors);
        if (!sent) give_up_soon(rank, sent.error());
        return sent;
    }

  private:
    // Not from inside the lead, which has failed by the time that this comes to run.
    void give_up_soon(int rank, const Error& error) {
        side_.io_.post([&side = side_, rank, why = error.message, alive = side_.alive_] {
            if (*alive) side.give_up(side.describe(rank) + " takes no operations: " + why);
        });
    }

    GridSide& side_;
    std::string packed_;  // of the operation sent last: its message is the same for all peers
    std::uint64_t packed_number_ = 0;
};

GridSide::GridSide(comm::IoThread& io, MembershipView view, int rank, std::chrono::milliseconds step_idle_max,
                   Executor executor, Observer* observer)
    : io_(io), view_(std::move(view)), rank_(rank), executor_(std::move(executor)) {
    if (rank_ != 0) return;
    for (std::size_t peer = 1; peer < view_.members.size(); ++peer) {
        peers_.push_back(
            std::make_unique<comm::Channel>(io_, view_.members[peer].endpoint, comm::Channel::Options{.ring = true}));
    }
    links_ = std::make_unique<Links>(*this);
    lead_ = std::make_unique<Lead>(*links_, observer);
    service_ = std::make_unique<Service>(*lead_, view_.generation, workers_of(view_), executor_.open_memory);
    service_->begin_term(view_.term);
    if (step_idle_max.count() == 0) return;
    idle_check_ = io_.every(std::clamp(step_idle_max / 8, kIdleCheckMin, kIdleCheckMax), [this, step_idle_max] {
        lead_->abort_idle_steps(std::chrono::steady_clock::now(), step_idle_max);
    });
}

GridSide::~GridSide() {
    *alive_ = false;
    if (lead_)
        lead_->fail({Errc::stale_generation, fmt::format("generation {} has ended: ask the coordinator for the new one",
                                                         view_.generation.value)});
}

void GridSide::formed(const Status& status) {
    if (!status) return give_up("the ranks could not form: " + status.error().to_string());
    formed_ = true;
    for (std::size_t peer = 0; peer < peers_.size(); ++peer) link(peer);
    if (ready())
        log_info(
            fmt::format("generation {}: ready as rank {} of {}", view_.generation.value, rank_, view_.members.size()));
}

// Asks a peer for its ear; again until it has formed, too.
void GridSide::link(std::size_t peer) {
    wire::LinkHello hello;
    hello.set_generation(view_.generation.value);
    comm::Channel& channel = *peers_[peer];
    channel.call(
        MessageType::link_hello, view_.generation.value, comm::pack(hello), {}, deadline_in(kLinkTimeout),
        [this, peer, alive = alive_](Result<comm::Frame> reply) {
            if (!*alive || is_broken()) return;
            if (!reply) {
                log_debug(fmt::format("rank {} is not ready to be linked: {}", peer + 1, reply.error().to_string()));
                retry_ = io_.every(kLinkRetry, [this, alive] {
                    if (!*alive) return;
                    retry_.reset();
                    linked_ = 0;
                    for (std::size_t again = 0; again < peers_.size(); ++again) link(again);
                });
                return;
            }
            peers_[peer]->on_disconnect([this, peer, alive] {
                if (*alive) give_up(describe(peer + 1) + " is lost: its link broke");
            });
            if (++linked_ == peers_.size()) {
                log_info(
                    fmt::format("generation {}: ready as lead of {}", view_.generation.value, view_.members.size()));
            }
        });
}

void GridSide::handle(comm::Request request, comm::Responder responder) {
    const MessageType type = request.frame.header.type;
    if (type == MessageType::link_hello) return link_hello(request, std::move(responder));
    if (type == MessageType::operation) return operation(request, std::move(responder));
    if (!lead_) {
        return responder.fail(
            {Errc::stale_generation, fmt::format("this worker is rank {} of generation {}: data requests go to the "
                                                 "lead",
                                                 rank_, view_.generation.value)});
    }
    if (!ready()) return responder.fail({is_broken() ? Errc::peer_lost : Errc::unavailable, problem()});
    if (draining_ && begins_something(type)) {
        return responder.fail({Errc::unavailable,
                               "the grid is draining, because one of its workers was asked to end: steps that are open "
                               "can be ended, new ones are not taken"});
    }
    service_->handle(std::move(request), std::move(responder));
}

void GridSide::link_hello(const comm::Request& request, comm::Responder responder) {
    if (request.frame.header.generation != view_.generation.value) {
        return responder.fail(
            {Errc::stale_generation, fmt::format("this worker is in generation {}", view_.generation.value)});
    }
    if (rank_ == 0) return responder.fail({Errc::unsupported, "this worker is the lead: it follows nobody"});
    if (!formed_) return responder.fail({Errc::unavailable, "this worker has not formed the generation yet"});
    if (is_broken()) return responder.fail({Errc::peer_lost, problem_});
    if (lead_connection_ != 0 && lead_connection_ != request.connection) {
        return responder.fail({Errc::busy, "this worker follows its lead on another connection"});
    }
    lead_connection_ = request.connection;
    responder.reply(MessageType::empty, {});
}

void GridSide::operation(const comm::Request& request, comm::Responder responder) {
    if (rank_ == 0 || request.connection != lead_connection_) {
        return responder.fail({Errc::wrong_state, "operations come from the lead alone, on its own connection"});
    }
    if (request.frame.header.generation != view_.generation.value || is_broken()) return;
    auto operation = unpack_operation(request.frame);
    if (!operation) return give_up("the lead sent what cannot be read: " + operation.error().to_string());
    const Status taken = order_.take(*std::move(operation), executor_.apply);
    if (!taken) give_up(taken.error().message);
}

void GridSide::connection_lost(comm::ConnectionId connection) {
    if (service_) service_->connection_lost(connection);
    if (lead_) return lead_->owner_lost(connection);
    if (connection != lead_connection_) return;
    lead_connection_ = 0;
    give_up(describe(0) + " is lost, or has given the generation up: its link broke");
}

void GridSide::completed(std::uint64_t number, OperationResult result) {
    if (!result.status && result.status.error() == Errc::peer_lost) give_up(result.status.error().message);
    if (lead_) lead_->completed(number, std::move(result));
}

void GridSide::hear(const MembershipView& view) {
    if (service_) service_->begin_term(view.term);
    if (view.draining) drain();
    if (!view.lost.empty()) give_up(view.lost);
}

void GridSide::give_up(const std::string& problem) {
    if (is_broken()) return;
    problem_ = problem;
    log_error(fmt::format("generation {} is broken: {}", view_.generation.value, problem));
    executor_.cancel();
    if (!lead_) return;
    lead_->fail({Errc::peer_lost, problem + ": its part of every sequence is lost until the grid is formed again"});
    release_peers();
}

// Peers see their link break, and wait for nobody any more. Later, since this may be a channel's own callback.
void GridSide::release_peers() {
    auto released = std::make_shared<decltype(peers_)>(std::move(peers_));
    peers_.clear();
    io_.post([released] { released->clear(); });
}

bool GridSide::is_drained() const {
    return is_broken() || (draining_ && lead_ && lead_->is_idle());
}

std::string GridSide::describe(std::size_t rank) const {
    const MemberAddress& member = view_.members[rank];
    return fmt::format("worker {} (rank {}, pid {} on host {})", member.worker.value, rank, member.process_id,
                       member.host);
}

std::string GridSide::problem() const {
    if (is_broken()) return problem_;
    if (!formed_) return "the ranks are forming";
    if (linked_ < peers_.size()) return fmt::format("{} of {} peers are linked", linked_, peers_.size());
    return {};
}

NodeState GridSide::state() const {
    NodeState state{.generation = view_.generation, .rank = rank_, .not_ready = problem()};
    if (lead_) {
        state.lead =
            LeadState{lead_->counters(), lead_->queue_depth(), lead_->under_way_count(), lead_->open_step_count()};
    }
    return state;
}

}  // namespace kvgrid::worker
