#include <fmt/core.h>

#include <algorithm>

#include "client/layer_payload.h"
#include "client/step_impl.h"
#include "core/log.h"

namespace kvgrid {
namespace {

using comm::MessageType;
using namespace std::chrono_literals;
using Output = Result<std::vector<std::byte>>;

constexpr auto kAbortWait = 500ms;  // of a destructor

// A layer call on its way: in memory that the lead shares, where there is some, else in the request's payload.
struct LayerRequest {
    ClientRequest request;
    std::shared_ptr<SharedTensors::Block> block;
    std::size_t output_bytes;
};

LayerRequest make_request(const Lead& lead, StepId step, const LayerCall& call, const LayerInput& input,
                          Deadline deadline) {
    const std::size_t input_bytes = layer_input_bytes(call), output_bytes = layer_output_bytes(call);
    wire::LayerRequest message;
    message.set_step(step.value);
    message.set_layer(call.layer);
    message.set_without_q(!call.has_q);
    message.set_without_kv(!call.has_kv);
    auto block = lead.tensors->take(*lead.channel, lead.generation.value,
                                    comm::SharedRegion::aligned(input_bytes) + output_bytes, deadline);
    comm::Payload payload;
    if (block) {
        copy_layer_input(input, block->bytes().first(input_bytes));
        message.set_shared_offset(block->offset());
        message.set_shared_bytes(input_bytes);
        message.set_shared_output_bytes(output_bytes);
    } else {
        payload = layer_payload(input);
    }
    return {{.type = MessageType::layer,
             .reply = MessageType::layer_reply,
             .message = comm::pack(message),
             .payload = std::move(payload)},
            std::move(block),
            output_bytes};
}

// o where it arrived: in the reply, or in the block that the call gave.
Result<std::span<const std::byte>> answered(const LayerCall& call, const LayerRequest& sent,
                                            const Result<comm::Frame>& reply) {
    if (!reply) {
        if (sent.block && may_be_under_way(reply.error())) sent.block->give_up();
        return reply.error();
    }
    const auto message = comm::unpack<wire::LayerReply>(*reply);
    if (!message) return message.error();
    if (message->shared() && !sent.block)
        return Error{Errc::corrupt, "the lead says that o is in memory that was not given to it"};
    const std::span<const std::byte> bytes =
        message->shared() ? sent.block->bytes().last(sent.output_bytes) : reply->payload.bytes();
    if (Status status = check_layer_output(call, bytes); !status) return status.error();
    return bytes;
}

Output output_of(const LayerCall& call, const LayerRequest& sent, const Result<comm::Frame>& reply) {
    const auto bytes = answered(call, sent, reply);
    if (!bytes) return bytes.error();
    return std::vector<std::byte>(bytes->begin(), bytes->end());
}

std::future<Output> ready(Error error) {
    std::promise<Output> promise;
    promise.set_value(std::move(error));
    return promise.get_future();
}

}  // namespace

Step::Impl::~Impl() {
    if (!client || state != State::open) return;
    Status status = finish(MessageType::abort_step, State::aborted, client->deadline_within(kAbortWait));
    bool gone = !status && (status.error() == Errc::not_found || status.error() == Errc::stale_generation);
    if (!status && !gone)
        log_warn(fmt::format("step {} could not be aborted: {}", id.value, status.error().to_string()));
}

std::optional<Error> Step::Impl::refusal() const {
    switch (state.load()) {
        case State::open:
            return std::nullopt;
        case State::committed:
            return Error{Errc::wrong_state, fmt::format("step {} is committed", id.value)};
        case State::aborted:
            return Error{Errc::wrong_state, fmt::format("step {} is aborted", id.value)};
        case State::lost:
            break;
    }
    return Error{Errc::wrong_state,
                 fmt::format("step {} was lost with generation {}: begin again from the sequences' lengths", id.value,
                             lead.generation.value)};
}

Status Step::Impl::finish(MessageType type, State success, Deadline deadline) {
    if (auto error = refusal()) return *error;
    wire::StepRequest request;
    request.set_step(id.value);
    auto reply = call({.type = type, .reply = MessageType::empty, .message = comm::pack(request)}, deadline);
    if (reply) state = success;
    return status_of(reply);
}

Result<comm::Frame> Step::Impl::call(const ClientRequest& request, Deadline deadline) {
    auto reply = client->link.call_lead(lead, request, deadline);
    if (!reply && reply.error() == Errc::stale_generation) state = State::lost;
    return reply;
}

Step::Step(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Step::Step(Step&&) noexcept = default;
Step& Step::operator=(Step&&) noexcept = default;
Step::~Step() = default;

StepId Step::id() const {
    return impl_->id;
}

const ModelSpec& Step::spec() const {
    return *impl_->spec;
}

StepKind Step::kind() const {
    return impl_->kind;
}

int Step::token_count() const {
    return impl_->tokens;
}

std::span<const std::int64_t> Step::lengths() const {
    return impl_->lengths;
}

Status Step::layer_into(int layer, const LayerInput& input, std::span<std::byte> o) {
    if (auto error = impl_->refusal()) return *error;
    const LayerCall call = layer_call(*impl_->spec, impl_->kind, impl_->tokens, layer, input);
    if (Status status = check_layer_input(call, input); !status) return status;
    if (o.size() != layer_output_bytes(call))
        return {Errc::invalid_argument,
                fmt::format("the place for o has {} bytes; o has {}", o.size(), layer_output_bytes(call))};
    const Deadline deadline = impl_->client->deadline();
    const LayerRequest sent = make_request(impl_->lead, impl_->id, call, input, deadline);
    const auto reply = impl_->call(sent.request, deadline);
    const auto bytes = answered(call, sent, reply);
    if (!bytes) return bytes.error();
    std::ranges::copy(*bytes, o.begin());
    return {};
}

Output Step::layer(int layer, const LayerInput& input) {
    if (auto error = impl_->refusal()) return *error;
    const LayerCall call = layer_call(*impl_->spec, impl_->kind, impl_->tokens, layer, input);
    if (Status status = check_layer_input(call, input); !status) return status.error();
    const Deadline deadline = impl_->client->deadline();
    const LayerRequest sent = make_request(impl_->lead, impl_->id, call, input, deadline);
    return output_of(call, sent, impl_->call(sent.request, deadline));
}

std::future<Output> Step::layer_async(int layer, const LayerInput& input) {
    if (auto error = impl_->refusal()) return ready(*error);
    const LayerCall call = layer_call(*impl_->spec, impl_->kind, impl_->tokens, layer, input);
    if (Status status = check_layer_input(call, input); !status) return ready(status.error());
    const Deadline deadline = impl_->client->deadline();
    auto sent = std::make_shared<const LayerRequest>(make_request(impl_->lead, impl_->id, call, input, deadline));

    // The callback runs on the I/O thread: it must not hold the client, whose end would wait for that thread.
    auto promise = std::make_shared<std::promise<Output>>();
    auto output = promise->get_future();
    impl_->lead.channel->call(
        MessageType::layer, impl_->lead.generation.value, sent->request.message, sent->request.payload, deadline,
        [promise, sent, spec = impl_->spec, call](Result<comm::Frame> reply) {
            promise->set_value(output_of(call, *sent, checked_type(std::move(reply), MessageType::layer_reply)));
        });
    return output;
}

Status Step::layer_on_device(int layer, const DeviceTensors& tensors) {
    if (auto error = impl_->refusal()) return *error;
    wire::LayerRequest request;
    request.set_step(impl_->id.value);
    request.set_layer(layer);
    request.set_without_q(tensors.without_q);
    request.set_without_kv(tensors.without_kv);
    wire::DeviceOffsets& at = *request.mutable_on_device();
    at.set_q(tensors.q);
    at.set_k(tensors.k);
    at.set_v(tensors.v);
    at.set_o(tensors.o);
    request.set_device_memory(static_cast<std::uint32_t>(tensors.memory));
    return status_of(
        impl_->call({.type = MessageType::layer, .reply = MessageType::layer_reply, .message = comm::pack(request)},
                    impl_->client->deadline()));
}

Status Step::commit() {
    return impl_->finish(MessageType::commit_step, Impl::State::committed, impl_->client->deadline());
}

Status Step::abort() {
    return impl_->finish(MessageType::abort_step, Impl::State::aborted, impl_->client->deadline());
}

}  // namespace kvgrid
