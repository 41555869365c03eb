#include "worker/registration.h"

#include <fmt/format.h>

#include <random>

#include "comm/wire/kvgrid.pb.h"
#include "comm/wire/messages.h"
#include "core/log.h"
#include "core/version.h"
#include "worker/report_wire.h"

namespace kvgrid::worker {

namespace {

constexpr std::chrono::milliseconds kFirstHeartbeat{100};
constexpr std::chrono::milliseconds kCallTimeout{2'000};
constexpr std::chrono::milliseconds kLeaveTimeout{500};
// A coordinator that was started again is found this fast.
constexpr comm::Channel::Options kChannel{.backoff_max = std::chrono::milliseconds(200)};

std::uint64_t random_incarnation() {
    std::random_device device;
    return (std::uint64_t{device()} << 32 | device()) | 1;
}

MembershipView view_of(const wire::Membership& message) {
    MembershipView view{
        .generation = Generation{message.generation()}, .members = {}, .term = message.term(), .lost = message.lost()};
    for (const auto& member : message.members()) {
        const auto endpoint = comm::parse_endpoint(member.endpoint());
        if (!endpoint) fatal("the coordinator sent a bad endpoint: " + endpoint.error().to_string());
        view.members.push_back({.worker = WorkerId{member.worker()},
                                .endpoint = *endpoint,
                                .mpi_rank = member.mpi_rank(),
                                .host = member.host(),
                                .process_id = member.process_id()});
    }
    return view;
}

}  // namespace

// One call at a time: register until it succeeds, then heartbeats. Kept alive by the calls that are under way.
struct Registration::Impl : std::enable_shared_from_this<Impl> {
    Impl(comm::IoThread& io_thread, comm::Endpoint coordinator, WorkerIdentity who, Callbacks told)
        : io(io_thread),
          channel(io_thread, std::move(coordinator), kChannel),
          identity(std::move(who)),
          callbacks(std::move(told)) {}

    void tick() {
        if (stopped || call_under_way) return;
        worker ? send_heartbeat() : send_registration();
    }

    void tick_soon() {
        io.post([weak = weak_from_this()] {
            if (const auto self = weak.lock()) self->tick();
        });
    }

    void send_registration() {
        wire::RegisterWorkerRequest request;
        request.set_incarnation(incarnation);
        request.set_endpoint(identity.endpoint);
        request.set_host(identity.host);
        request.set_process_id(identity.process_id);
        request.set_mpi_rank(identity.mpi_rank);
        request.set_memory_bytes(identity.memory_bytes);
        request.set_version(kVersion);
        request.set_world(identity.world != 0 ? identity.world : incarnation);
        call(comm::MessageType::register_worker, comm::pack(request), [](Impl& self, const comm::Frame& frame) {
            const auto reply = comm::unpack<wire::RegisterWorkerReply>(frame);
            if (!reply) return log_error("registration: " + reply.error().to_string());
            self.worker = WorkerId{reply->worker()};
            log_info(fmt::format("registered as worker {}", reply->worker()));
            self.start_timer(std::chrono::milliseconds(std::max(reply->heartbeat_ms(), 10u)));
            self.callbacks.on_membership(self.worker, view_of(reply->membership()));
            self.tick_soon();
        });
    }

    void send_heartbeat() {
        const WorkerHealth health = callbacks.health();
        wire::HeartbeatRequest request;
        request.set_worker(worker.value);
        request.set_generation(health.generation.value);
        request.set_ready(health.ready);
        request.set_problem(health.problem);
        request.set_version(kVersion);
        request.set_http_endpoint(identity.http_endpoint);
        request.set_broken(health.broken);
        request.set_draining(health.draining);
        request.set_drained(health.drained);
        request.set_leaving(leaving);
        for (const ModelReport& model : health.models) put_report(model, *request.add_models());
        call(comm::MessageType::heartbeat, comm::pack(request), [](Impl& self, const comm::Frame& frame) {
            const auto reply = comm::unpack<wire::HeartbeatReply>(frame);
            if (!reply) return log_error("heartbeat: " + reply.error().to_string());
            MembershipView view = view_of(reply->membership());
            view.draining = reply->draining();
            view.drained = reply->drained();
            self.callbacks.on_membership(self.worker, view);
        });
    }

    template <class OnReply>
    void call(comm::MessageType type, std::string message, OnReply on_reply) {
        call_under_way = true;
        channel.call(type, 0, std::move(message), {}, deadline_in(kCallTimeout),
                     [self = shared_from_this(), on_reply](Result<comm::Frame> frame) {
                         self->call_under_way = false;
                         if (self->stopped) return;
                         if (self->leaving) return self->leave_or_end();
                         if (frame) {
                             self->reachable = true;
                             return on_reply(*self, *frame);
                         }
                         self->failed(frame.error());
                     });
    }

    void failed(const Error& error) {
        if (worker && error == Errc::not_found) {  // the coordinator has forgotten this worker
            worker = {};
            return tick_soon();
        }
        if (reachable) log_warn("the coordinator does not answer: " + error.to_string());
        reachable = false;
    }

    // After a call has ended: the last heartbeat, and then nothing.
    void leave_or_end() {
        if (std::exchange(said_farewell, true) || !worker) return end();
        send_heartbeat();
    }

    void end() {
        stopped = true;
        timer.reset();
        if (on_left) io.post(std::exchange(on_left, nullptr));
    }

    void start_timer(std::chrono::milliseconds period) {
        timer = io.every(period, [weak = weak_from_this()] {
            if (const auto self = weak.lock()) self->tick();
        });
    }

    comm::IoThread& io;
    comm::Channel channel;
    WorkerIdentity identity;
    Callbacks callbacks;
    const std::uint64_t incarnation = random_incarnation();
    WorkerId worker;
    bool call_under_way = false;
    bool reachable = true;
    bool stopped = false;
    bool leaving = false;
    bool said_farewell = false;
    std::function<void()> on_left;
    std::shared_ptr<comm::IoThread::Timer> timer;
};

Registration::Registration(comm::IoThread& io, comm::Endpoint coordinator, WorkerIdentity identity, Callbacks callbacks)
    : impl_(std::make_shared<Impl>(io, std::move(coordinator), std::move(identity), std::move(callbacks))) {}

Registration::~Registration() {
    impl_->io.post([impl = impl_] {
        impl->stopped = true;
        impl->timer.reset();
    });
}

void Registration::start() {
    impl_->io.post([impl = impl_] {
        impl->start_timer(kFirstHeartbeat);
        impl->channel.on_disconnect([weak = impl->weak_from_this()] {
            if (const auto self = weak.lock()) self->tick_soon();
        });
        impl->tick();
    });
}

void Registration::beat_soon() {
    impl_->tick_soon();
}

void Registration::leave(std::function<void()> done) {
    impl_->leaving = true;
    impl_->on_left = std::move(done);
    if (!impl_->call_under_way) impl_->leave_or_end();
    impl_->timer = impl_->io.every(kLeaveTimeout, [weak = impl_->weak_from_this()] {
        if (const auto self = weak.lock()) self->end();
    });
}

}  // namespace kvgrid::worker
