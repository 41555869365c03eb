#include "coordinator/server.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <future>

#include "comm/monitor/monitor_routes.h"
#include "comm/wire/messages.h"
#include "coordinator/call.h"
#include "coordinator/requests/requests.h"

namespace kvgrid::coordinator {

namespace {

using comm::MessageType;

using Handle = void (*)(Coordinator&, const comm::Frame&, const CallPtr&);

// For requests that are done at once.
template <auto function, class Request, MessageType reply_type>
void answer(Coordinator& coordinator, const comm::Frame& frame, const CallPtr& call) {
    auto request = comm::unpack<Request>(frame);
    if (!request) return call->fail(request.error());
    auto reply = function(coordinator, *request);
    if (!reply) return call->fail(reply.error());
    call->reply(reply_type, *reply);
}

// The same, where it matters over which connection they come.
template <auto function, class Request, MessageType reply_type>
void answer_worker(Coordinator& coordinator, const comm::Frame& frame, const CallPtr& call) {
    auto request = comm::unpack<Request>(frame);
    if (!request) return call->fail(request.error());
    auto reply = function(coordinator, *request, call->connection());
    if (!reply) return call->fail(reply.error());
    call->reply(reply_type, *reply);
}

// For requests that answer later.
template <auto function, class Request>
void begin(Coordinator& coordinator, const comm::Frame& frame, const CallPtr& call) {
    auto request = comm::unpack<Request>(frame);
    if (!request) return call->fail(request.error());
    function(coordinator, *request, call);
}

struct Row {
    MessageType type;
    Handle handle;
};

constexpr std::array kRows{
    Row{MessageType::status, answer<status, wire::StatusRequest, MessageType::status_reply>},
    Row{MessageType::register_model, begin<register_model, wire::RegisterModelRequest>},
    Row{MessageType::list_models, answer<list_models, wire::Empty, MessageType::list_models_reply>},
    Row{MessageType::open_sequence, begin<open_sequence, wire::OpenSequenceRequest>},
    Row{MessageType::fork_sequence, begin<fork_sequence, wire::SequenceRequest>},
    Row{MessageType::close_sequence, begin<close_sequence, wire::SequenceRequest>},
    Row{MessageType::keep_sequence, begin<keep_sequence, wire::KeepSequenceRequest>},
    Row{MessageType::give_up_prefix, begin<give_up_prefix, wire::GiveUpPrefixRequest>},
    Row{MessageType::list_sequences,
        answer<list_sequences, wire::ListSequencesRequest, MessageType::list_sequences_reply>},
    Row{MessageType::register_worker,
        answer_worker<register_worker, wire::RegisterWorkerRequest, MessageType::register_worker_reply>},
    Row{MessageType::heartbeat, answer_worker<heartbeat, wire::HeartbeatRequest, MessageType::heartbeat_reply>},
};

}  // namespace

void serve(Coordinator& coordinator, comm::Request request, comm::Responder responder) {
    const MessageType type = request.frame.header.type;
    const auto call = std::make_shared<Call>(type, request, std::move(responder));
    const auto row = std::find_if(kRows.begin(), kRows.end(), [type](const Row& entry) { return entry.type == type; });
    if (row == kRows.end()) {
        return call->fail(
            {Errc::unsupported, fmt::format("a coordinator does not take {} requests: data requests go to the lead, "
                                            "whose endpoint is in the status",
                                            comm::name_of(type))});
    }
    row->handle(coordinator, request.frame, call);
}

CoordinatorServer::CoordinatorServer(comm::IoThread& io, std::unique_ptr<Coordinator> coordinator)
    : io_(io),
      coordinator_(std::move(coordinator)),
      server_(std::make_unique<comm::Server>(
          io, comm::Server::Handlers{
                  .on_request =
                      [this](comm::Request request, comm::Responder responder) {
                          serve(*coordinator_, std::move(request), std::move(responder));
                      },
                  .on_disconnect = [this](comm::ConnectionId connection) { coordinator_->connection_lost(connection); },
                  .on_answer = [this](const comm::Answered& answered) { metrics_.answered(answered); }})),
      http_(std::make_unique<comm::HttpServer>(
          io, comm::monitor_routes({.program = "kvgrid-coordinator",
                                    .not_live = [] { return std::string(); },  // it has just answered
                                    .not_ready = [this] { return coordinator_->obstacle().value_or(""); },
                                    .metrics = [this] { return metrics_.text(*coordinator_, *server_); }}))),
      ticks_(io.every(coordinator_->options().heartbeat, [this] { coordinator_->tick(); })) {
    io.post([this] {
        coordinator_->catalogue().on_write([this](std::chrono::nanoseconds took) { metrics_.catalogue_written(took); });
    });
}

Result<comm::Endpoint> CoordinatorServer::listen_http(const comm::Endpoint& endpoint, bool allow_remote) {
    auto bound = http_->listen(endpoint, allow_remote);
    if (bound) io_.post([this, text = bound->to_string()] { coordinator_->set_http_endpoint(text); });
    return bound;
}

CoordinatorServer::~CoordinatorServer() {
    http_.reset();
    server_.reset();
    ticks_.reset();
    std::promise<void> stopped;
    io_.post([this, &stopped] {
        coordinator_->stop();
        // The lead's channel ends in work that `stop` has posted.
        io_.post([&stopped] { stopped.set_value(); });
    });
    stopped.get_future().wait();
}

}  // namespace kvgrid::coordinator
