#include "tests/unit/client/fake_cluster.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>

namespace kvgrid {

using comm::MessageType;

FakeServer::FakeServer() {
    static std::atomic<int> next{0};
    endpoint_ = "unix:/tmp/kvgrid_client_test_" + std::to_string(::getpid()) + "_" + std::to_string(next++);
    start();
}

FakeServer::~FakeServer() {
    stop();
}

void FakeServer::start() {
    server_ = std::make_unique<comm::Server>(
        io_, comm::Server::Handlers{.on_request = [this](comm::Request request,
                                                         comm::Responder r) { take(std::move(request), std::move(r)); },
                                    .on_disconnect = [](comm::ConnectionId) {}});
    server_->listen(comm::parse_endpoint(endpoint_).value()).value();
}

void FakeServer::stop() {
    server_.reset();
    std::lock_guard lock(mutex_);
    hanging_.clear();
}

void FakeServer::take(comm::Request request, comm::Responder responder) {
    Answer answer;
    {
        std::lock_guard lock(mutex_);
        MessageType type = request.frame.header.type;
        requests_[type].push_back(request.frame);
        if (auto found = answers_.find(type); found != answers_.end()) answer = found->second;
    }
    arrived_.notify_all();
    if (answer)
        answer(request.frame, std::move(responder));
    else
        responder.fail({Errc::unsupported, "this test has no answer"});
}

void FakeServer::on(MessageType type, Answer answer) {
    std::lock_guard lock(mutex_);
    answers_[type] = std::move(answer);
}

void FakeServer::reply(MessageType type, MessageType with, const google::protobuf::MessageLite& message,
                       comm::Payload payload) {
    on(type, [with, bytes = comm::pack(message), payload](const comm::Frame&, comm::Responder responder) {
        responder.reply(with, bytes, payload);
    });
}

void FakeServer::fail(MessageType type, Error error) {
    on(type, [error](const comm::Frame&, comm::Responder responder) { responder.fail(error); });
}

void FakeServer::hang(MessageType type) {
    on(type, [this](const comm::Frame&, comm::Responder responder) {
        std::lock_guard lock(mutex_);
        hanging_.push_back(std::move(responder));
    });
}

int FakeServer::count(MessageType type) const {
    std::lock_guard lock(mutex_);
    auto found = requests_.find(type);
    return found == requests_.end() ? 0 : static_cast<int>(found->second.size());
}

comm::Frame FakeServer::last(MessageType type) const {
    std::lock_guard lock(mutex_);
    return requests_.at(type).back();
}

void FakeServer::wait_for(MessageType type, int count) {
    std::unique_lock lock(mutex_);
    bool came = arrived_.wait_for(lock, std::chrono::seconds(10),
                                  [&] { return static_cast<int>(requests_[type].size()) >= count; });
    ASSERT_TRUE(came) << "no " << comm::name_of(type) << " came";
}

FakeCluster::FakeCluster() {
    set_status(5, lead.endpoint());
    coordinator.on(MessageType::register_model, [](const comm::Frame& frame, comm::Responder responder) {
        auto request = comm::unpack<wire::RegisterModelRequest>(frame).value();
        wire::ModelReply reply;
        reply.set_model(3);
        reply.set_spec_json(request.spec_json());
        reply.set_head_parts(2);
        reply.set_sequence_parts(1);
        reply.set_pool_bytes_per_worker(request.pool_bytes_per_worker());
        responder.reply(MessageType::model_reply, comm::pack(reply));
    });
    auto next_sequence = std::make_shared<std::atomic<int>>(11);
    auto give_sequence = [next_sequence](const comm::Frame&, comm::Responder responder) {
        wire::SequenceReply reply;
        reply.set_sequence((*next_sequence)++);
        reply.set_model(3);
        responder.reply(MessageType::sequence_reply, comm::pack(reply));
    };
    coordinator.on(MessageType::open_sequence, give_sequence);
    coordinator.on(MessageType::fork_sequence, give_sequence);
    coordinator.reply(MessageType::close_sequence, MessageType::empty, wire::Empty());

    lead.on(MessageType::begin_step, [](const comm::Frame& frame, comm::Responder responder) {
        auto request = comm::unpack<wire::BeginStepRequest>(frame).value();
        wire::BeginStepReply reply;
        reply.set_step(7);
        for (int i = 0; i < request.parts_size(); ++i) reply.add_lengths(100 + i);
        responder.reply(MessageType::begin_step_reply, comm::pack(reply));
    });
    lead.on(MessageType::layer, [](const comm::Frame& frame, comm::Responder responder) {
        bool owns_kv = comm::unpack<wire::LayerRequest>(frame).value().layer() < 2;
        std::size_t tokens = frame.payload.size() / (kQueryRowBytes + (owns_kv ? 2 * kKvRowBytes : 0));
        responder.reply(MessageType::layer_reply, comm::pack(wire::LayerReply()),
                        frame.payload.slice(0, tokens * kQueryRowBytes));
    });
    for (MessageType type :
         {MessageType::commit_step, MessageType::abort_step, MessageType::truncate, MessageType::set_window})
        lead.reply(type, MessageType::empty, wire::Empty());
}

void FakeCluster::set_status(std::uint64_t generation, const std::string& lead_endpoint) {
    wire::StatusReply reply;
    reply.set_generation(generation);
    reply.set_ready(!lead_endpoint.empty());
    reply.set_lead_endpoint(lead_endpoint);
    if (lead_endpoint.empty()) reply.set_not_ready_because("waiting for worker 2 of 3");
    auto& worker = *reply.add_workers();
    worker.set_worker(kLeadWorker);
    worker.set_process_id(77);
    worker.set_host("x");
    worker.set_alive(true);
    coordinator.reply(MessageType::status, MessageType::status_reply, reply);
}

Client FakeCluster::connect(std::chrono::milliseconds timeout) {
    return Client::connect(coordinator.endpoint(), {.timeout = timeout}).value();
}

ModelSpec test_spec() {
    ModelSpec spec{.name = "test", .layers = {{.kv_layer = 0}, {.kv_layer = 1}, {.kv_layer = 1}}};
    spec.query_heads = 4;
    spec.kv_heads = 2;
    spec.head_dim = 32;
    spec.scale = 0.25;
    return spec;
}

std::vector<std::byte> filled(std::size_t count, int value) {
    return std::vector<std::byte>(count, static_cast<std::byte>(value));
}

}  // namespace kvgrid
