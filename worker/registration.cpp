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

std::uint64_t random_incarnation() {
    std::random_device device;
    return (std::uint64_t{device()} << 32 | device()) | 1;
}

MembershipView view_of(const wire::Membership& message) {
    MembershipView view{Generation{message.generation()}, {}};
    for (const auto& member : message.members()) {
        const auto endpoint = comm::parse_endpoint(member.endpoint());
        if (!endpoint) fatal("the coordinator sent a bad endpoint: " + endpoint.error().to_string());
        view.members.push_back({WorkerId{member.worker()}, *endpoint, member.mpi_rank()});
    }
    return view;
}

}  // namespace

// One call at a time: register until it succeeds, then heartbeats. Kept alive by the calls that are under way.
struct Registration::Impl : std::enable_shared_from_this<Impl> {
    Impl(comm::IoThread& io_thread, comm::Endpoint coordinator, WorkerIdentity who, Callbacks told)
        : io(io_thread),
          channel(io_thread, std::move(coordinator)),
          identity(std::move(who)),
          callbacks(std::move(told)) {}

    void tick() {
        if (stopped || call_under_way) return;
        worker ? send_heartbeat() : send_registration();
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
        call(comm::MessageType::register_worker, comm::pack(request), [](Impl& self, const comm::Frame& frame) {
            const auto reply = comm::unpack<wire::RegisterWorkerReply>(frame);
            if (!reply) return log_error("registration: " + reply.error().to_string());
            self.worker = WorkerId{reply->worker()};
            log_info(fmt::format("registered as worker {}", reply->worker()));
            self.start_timer(std::chrono::milliseconds(std::max(reply->heartbeat_ms(), 10u)));
            self.callbacks.on_membership(self.worker, view_of(reply->membership()));
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
        for (const ModelReport& model : health.models) put_report(model, *request.add_models());
        call(comm::MessageType::heartbeat, comm::pack(request), [](Impl& self, const comm::Frame& frame) {
            const auto reply = comm::unpack<wire::HeartbeatReply>(frame);
            if (!reply) return log_error("heartbeat: " + reply.error().to_string());
            self.callbacks.on_membership(self.worker, view_of(reply->membership()));
        });
    }

    template <class OnReply>
    void call(comm::MessageType type, std::string message, OnReply on_reply) {
        call_under_way = true;
        channel.call(type, 0, std::move(message), {}, deadline_in(kCallTimeout),
                     [self = shared_from_this(), on_reply](Result<comm::Frame> frame) {
                         self->call_under_way = false;
                         if (self->stopped) return;
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
            return;
        }
        if (reachable) log_warn("the coordinator does not answer: " + error.to_string());
        reachable = false;
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
        impl->tick();
    });
}

}  // namespace kvgrid::worker
