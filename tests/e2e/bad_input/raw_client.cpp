#include "tests/e2e/bad_input/raw_client.h"

#include "comm/wire/kvgrid.pb.h"

namespace kvgrid::e2e {

using comm::MessageType;

RawClient::RawClient(const std::string& endpoint, Generation generation)
    : peer_(comm::parse_endpoint(endpoint).value()), generation_(generation) {}

void RawClient::send(MessageType type, const std::string& message, std::string_view payload) {
    peer_.send({.type = type,
                .generation = generation_.value,
                .request = ++last_request_,
                .message_bytes = static_cast<std::uint32_t>(message.size()),
                .payload_bytes = payload.size()},
               message);
    peer_.send(payload);
}

Result<comm::Frame> RawClient::answer() {
    auto frame = peer_.read_frame();
    if (!frame) return {Errc::unavailable, "the server closed the connection without an answer"};
    if (frame->header.type == MessageType::error) return comm::error_in(frame);
    return std::move(*frame);
}

Result<comm::Frame> RawClient::call(MessageType type, const std::string& message, std::string_view payload) {
    send(type, message, payload);
    auto frame = answer();
    if (!frame) return frame;
    EXPECT_EQ(frame->header.request, last_request_);
    return frame;
}

Error RawClient::refusal(MessageType type, const std::string& message, std::string_view payload) {
    const auto answered = call(type, message, payload);
    if (answered) return {Errc::internal, std::string("accepted: ") + comm::name_of(type)};
    return answered.error();
}

std::string lead_endpoint(const ClusterStatus& status) {
    for (const ClusterWorker& worker : status.workers) {
        if (worker.rank == 0) return worker.endpoint;
    }
    return "";
}

std::string begin_message(ModelId model, const std::vector<std::pair<SequenceId, int>>& parts) {
    wire::BeginStepRequest request;
    request.set_model(model.value);
    for (const auto& [sequence, tokens] : parts) {
        request.add_parts()->set_sequence(sequence.value);
        request.mutable_parts()->rbegin()->set_tokens(tokens);
    }
    return comm::pack(request);
}

std::string layer_message(StepId step, int layer) {
    wire::LayerRequest request;
    request.set_step(step.value);
    request.set_layer(layer);
    return comm::pack(request);
}

std::string step_message(StepId step) {
    wire::StepRequest request;
    request.set_step(step.value);
    return comm::pack(request);
}

std::string sequence_message(SequenceId sequence) {
    wire::SequenceRequest request;
    request.set_sequence(sequence.value);
    return comm::pack(request);
}

}  // namespace kvgrid::e2e
