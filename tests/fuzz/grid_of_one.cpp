#include "tests/fuzz/grid_of_one.h"

#include "comm/collective/thread_collective.h"
#include "comm/wire/messages.h"
#include "tests/fuzz/fuzz_target.h"

namespace kvgrid::fuzz {

using comm::MessageType;

GridOfOne::GridOfOne(std::uint64_t memory_bytes)
    : collective_(std::move(comm::make_thread_collectives(1, kGeneration)[0])),
      shard_(0, memory_bytes, device_),
      executor_(shard_, *collective_, std::chrono::seconds(60)) {}

void GridOfOne::handle(comm::Frame frame) {
    ++handled_;
    comm::Responder responder([this](MessageType type, const std::string& message, const comm::Payload&) {
        ++answered_;
        if (type != MessageType::error) return;
        const comm::Frame answer{{.type = type}, message, {}};
        const auto reply = comm::unpack<wire::ErrorReply>(answer);
        require(reply.ok(), "an error can be read");
        const Error error = comm::from_wire(*reply);
        require(!(error == Errc::internal) && !(error == Errc::peer_lost),
                "a request shows no defect and breaks no grid");
        require(!error.message.empty(), "an error says something");
    });
    service_.handle({std::move(frame), kConnection, Deadline::max()}, std::move(responder));
    tell_completed();
    require(answered_ == handled_, "each request is answered once");
}

Status GridOfOne::Links::send(int, const worker::Operation& operation) {
    grid_.apply(operation);
    return {};
}

void GridOfOne::apply(const worker::Operation& operation) {
    worker::OperationResult result = executor_.apply(operation);
    if (result.status) {
        if (const auto* open = std::get_if<worker::OpenSequence>(&operation.body)) open_.insert(open->sequence);
        if (const auto* fork = std::get_if<worker::ForkSequence>(&operation.body)) open_.insert(fork->target);
        if (const auto* close = std::get_if<worker::CloseSequence>(&operation.body)) open_.erase(close->sequence);
    }
    completed_.push_back({operation.number, std::move(result)});
}

void GridOfOne::tell_completed() {
    while (!completed_.empty()) {
        Completed first = std::move(completed_.front());
        completed_.pop_front();
        lead_.completed(first.number, std::move(first.result));
    }
    require_pages_in_order();
}

void GridOfOne::require_pages_in_order() const {
    for (const worker::ModelReport& report : shard_.report()) {
        require(report.pages.conserved(), "free + used + reserved make up the pool");
    }
}

void GridOfOne::end() {
    lead_.owner_lost(kConnection);
    tell_completed();
    require(lead_.open_step_count() == 0, "a client that is gone has no step");
    for (const SequenceId sequence : std::set<SequenceId>(open_)) {
        lead_.submit(worker::CloseSequence{sequence}, [](const worker::OperationResult& result) {
            require(result.status.ok(), "a sequence without a step can be closed");
        });
        tell_completed();
    }
    for (const worker::ModelReport& report : shard_.report()) {
        require(report.pages.free == report.pages.capacity && report.sequences == 0, "every page comes back");
        require(shard_.find_model(report.model)->pool->recount_agrees(), "the counts agree with a recount");
    }
}

}  // namespace kvgrid::fuzz
