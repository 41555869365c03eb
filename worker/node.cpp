#include "worker/node.h"

#include <fmt/format.h>
#include <unistd.h>

#include <future>
#include <limits>

#include "core/log.h"

namespace kvgrid::worker {

namespace {

std::string host_name() {
    char name[256] = {};
    gethostname(name, sizeof name - 1);
    return name;
}

constexpr std::chrono::milliseconds kDrainCheck{10};

// Whether an operation may have changed what a report says.
bool changes_report(const OperationBody& body) {
    return !std::holds_alternative<RunLayer>(body) && !std::holds_alternative<ReadKv>(body);
}

}  // namespace

Node::Node(NodeOptions options, FormCollective form, std::unique_ptr<Device> device)
    : options_(std::move(options)), form_(std::move(form)), executor_loop_(io_), device_(std::move(device)) {
    if (device_->set_idle_work([this] { executor_loop_.while_waiting(); })) executor_loop_.waits_do_io();
}

Node::~Node() {
    monitor_.reset();
    // Everything of the I/O thread dies on it, before the thread and the rest of the node do.
    std::promise<void> done;
    io_.post([&] {
        drain_timer_.reset();
        registration_.reset();
        side_.reset();
        done.set_value();
    });
    done.get_future().wait();
    server_.reset();
}

Status Node::run() {
    server_ = std::make_unique<comm::Server>(
        io_,
        comm::Server::Handlers{
            .on_request = [this](comm::Request request,
                                 comm::Responder responder) { on_request(std::move(request), std::move(responder)); },
            .on_disconnect =
                [this](comm::ConnectionId connection) {
                    if (side_) side_->connection_lost(connection);
                },
            .on_answer = [this](const comm::Answered& answered) { on_answer(answered); }},
        options_.limits);
    const auto bound = server_->listen(options_.listen, options_.allow_remote);
    if (!bound) return bound.error();
    log_info("listening on " + bound->to_string());
    metrics_.device().publish(device_->status());
    const auto http = start_monitor();
    if (!http) return http.error();
    WorkerIdentity identity{.endpoint = bound->to_string(),
                            .host = host_name(),
                            .process_id = getpid(),
                            .mpi_rank = options_.mpi_rank,
                            .memory_bytes = options_.memory_bytes,
                            .http_endpoint = *http,
                            .world = options_.world};
    io_.post([this, identity = std::move(identity)] {
        registration_ = std::make_unique<Registration>(
            io_, options_.coordinator, identity,
            Registration::Callbacks{
                .on_membership = [this](WorkerId self, const MembershipView& view) { on_membership(self, view); },
                .health = [this] { return health(); }});
        registration_->start();
    });
    executor_loop_.run();
    drop_grid();  // on this thread: the collective's
    return {};
}

// The endpoint; empty if none is wanted.
Result<std::string> Node::start_monitor() {
    if (!options_.http_listen) return std::string();
    monitor_ = std::make_unique<WorkerMonitor>(
        WorkerMonitor::Sources{.io = io_,
                               .state = [this] { return state(); },
                               .server = *server_,
                               .metrics = metrics_,
                               .abandoned_mpi_requests = options_.abandoned_mpi_requests});
    const auto bound = monitor_->listen(*options_.http_listen, options_.allow_remote);
    if (!bound) return bound.error();
    log_info("metrics at http://" + bound->to_string() + "/metrics");
    return bound->to_string();
}

void Node::drain() {
    io_.post([this] { begin_drain(); });
}

void Node::stop() {
    executor_loop_.stop();
    collective_.cancel(Generation{std::numeric_limits<std::uint64_t>::max()});
}

void Node::begin_drain() {
    if (draining_) return;
    draining_ = true;
    drain_deadline_ = deadline_in(options_.drain_timeout);
    log_info(
        fmt::format("asked to end: waiting for the grid's open steps, {} ms at most", options_.drain_timeout.count()));
    if (side_) side_->drain();
    if (registration_) registration_->beat_soon();
    drain_timer_ = io_.every(kDrainCheck, [this] { advance_drain(); });
}

// Of a process that was asked to end, and of a lead whose grid drains because another one was.
void Node::advance_drain() {
    if (leaving_) return;
    const bool drained = !side_ || side_->is_drained();
    if (drained && side_ && !told_drained_) {
        told_drained_ = true;
        registration_->beat_soon();
    }
    if (!draining_) return;
    if (drained || grid_is_drained_) return leave();
    if (std::chrono::steady_clock::now() < drain_deadline_) return;
    log_warn("steps are still open at the end of the time for draining: they are given up");
    side_->give_up("a worker of the grid was asked to end, and the time for open steps is over");
    leave();
}

void Node::leave() {
    leaving_ = true;
    if (!registration_) return stop();
    registration_->leave([this] { stop(); });
}

void Node::on_membership(WorkerId self, const MembershipView& view) {
    grid_is_drained_ = view.drained;
    if (side_ && view.generation == side_->generation()) {
        side_->hear(view);
        if (view.draining && !drain_timer_) drain_timer_ = io_.every(kDrainCheck, [this] { advance_drain(); });
        return;
    }
    if (!view.generation || (side_ && side_->generation() > view.generation)) return;
    leave_generation();
    const auto mine = std::ranges::find(view.members, self, &MemberAddress::worker);
    if (mine == view.members.end() || draining_) return;  // a standby, or about to end
    join(view, static_cast<int>(mine - view.members.begin()));
}

// Whatever this worker held belongs to a generation that is over: nobody may be answered from it, and its pages go back.
void Node::leave_generation() {
    if (!side_) return;
    const Generation over = side_->generation();
    side_.reset();
    collective_.cancel(over);
    executor_loop_.post([this] { drop_grid(); });
    log_info(fmt::format("generation {} is over: its shard is let go", over.value));
}

void Node::join(const MembershipView& view, int rank) {
    const Generation generation = view.generation;
    const auto apply_later = [this, generation](Operation operation) {
        executor_loop_.post(
            [this, generation, arrived = std::chrono::steady_clock::now(), operation = std::move(operation)]() mutable {
                const TimePoint begun = std::chrono::steady_clock::now();
                metrics_.waited_for_executor(begun - arrived);
                if (metrics_.spans.on()) metrics_.spans.add(SpanKind::wake_up, arrived, begun, operation.number);
                apply(generation, std::move(operation));
            });
    };
    const auto cancel = [this, generation] { collective_.cancel(generation); };
    const auto open_memory = [this](std::span<const std::byte> handle, std::uint64_t bytes) {
        return device_->open_memory(handle, bytes);
    };
    side_ = std::make_unique<GridSide>(
        io_, view, rank, options_.step_idle_max,
        GridSide::Executor{.apply = apply_later, .cancel = cancel, .open_memory = open_memory}, &metrics_);
    if (!draining_) drain_timer_.reset();
    told_drained_ = false;
    executor_loop_.post([this, view, rank] { form(view, rank); });
}

void Node::form(const MembershipView& view, int rank) {
    drop_grid();
    std::vector<int> world_ranks;
    for (const MemberAddress& member : view.members) world_ranks.push_back(member.mpi_rank);
    const Deadline deadline = deadline_in(options_.form_timeout);
    auto collective = form_(world_ranks, view.generation, deadline);
    Status status = collective ? Status() : Status(collective.error());
    if (status) {
        grid_.collective = std::move(*collective);
        collective_.hold(grid_.collective.get());
        status = grid_.collective->barrier(deadline);
    }
    if (status) {
        grid_.shard = std::make_unique<Shard>(rank, options_.memory_bytes, *device_);
        grid_.executor =
            std::make_unique<Executor>(*grid_.shard, *grid_.collective, options_.operation_timeout, &metrics_);
        publish_report();
    }
    executor_loop_.report([this, generation = view.generation, status] { formed(generation, status); });
}

void Node::formed(Generation generation, const Status& status) {
    if (side_ && side_->generation() == generation) side_->formed(status);
}

void Node::apply(Generation generation, Operation operation) {
    if (!grid_.executor || grid_.collective->generation() != generation) return;  // of a generation that is over
    OperationResult result = grid_.executor->apply(operation);
    const bool is_broken = !result.status && result.status.error() == Errc::peer_lost;
    if (is_broken || changes_report(operation.body)) publish_report();
    const bool tell = is_broken || grid_.collective->rank() == Executor::kLeadRank;
    if (!tell) return;
    executor_loop_.report([this, generation, number = operation.number, done = std::chrono::steady_clock::now(),
                           result = std::move(result)]() mutable {
        if (metrics_.spans.on())
            metrics_.spans.add(SpanKind::hand_back, done, std::chrono::steady_clock::now(), number);
        const ScopedSpan span(&metrics_.spans, SpanKind::reply, number);
        if (side_ && side_->generation() == generation) side_->completed(number, std::move(result));
    });
}

void Node::drop_grid() {
    metrics_.occupancy().withdraw();
    collective_.hold(nullptr);
    grid_ = {};
    metrics_.device().publish(device_->status());
    const std::lock_guard lock(report_mutex_);
    report_.clear();
}

void Node::publish_report() {
    metrics_.device().publish(grid_.executor->device_status());
    metrics_.occupancy().publish(*grid_.shard);
    auto report = grid_.shard->report();
    const std::lock_guard lock(report_mutex_);
    report_ = std::move(report);
}

void Node::on_answer(const comm::Answered& answered) {
    metrics_.answered(answered);
    if (answered.request != comm::MessageType::layer || !metrics_.spans.on()) return;
    const TimePoint now = std::chrono::steady_clock::now();
    metrics_.spans.add(SpanKind::request, now - answered.took, now, 0);
}

void Node::on_request(comm::Request request, comm::Responder responder) {
    const ScopedSpan span(&metrics_.spans, SpanKind::receive, 0);
    if (!side_) {
        return responder.fail(
            {Errc::unavailable, "this worker is not part of a grid yet: ask the coordinator for the lead"});
    }
    side_->handle(std::move(request), std::move(responder));
}

NodeState Node::state() const {
    if (side_) return side_->state();
    return {.not_ready = "this worker is in no grid: it waits for the coordinator to name one", .lead = {}};
}

WorkerHealth Node::health() {
    WorkerHealth health;
    if (side_) {
        health.generation = side_->generation();
        health.ready = side_->ready();
        health.problem = side_->problem();
        health.broken = side_->is_broken();
        health.drained = side_->is_drained();
    }
    health.draining = draining_;
    const std::lock_guard lock(report_mutex_);
    health.models = report_;
    return health;
}

}  // namespace kvgrid::worker
