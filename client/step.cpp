#include <fmt/core.h>

#include "client/layer_payload.h"
#include "client/step_impl.h"
#include "core/log.h"

namespace kvgrid {
namespace {

using comm::MessageType;
using namespace std::chrono_literals;
using Output = Result<std::vector<std::byte>>;

constexpr auto kAbortWait = 500ms;  // of a destructor

ClientRequest layer_request(StepId step, int layer, comm::Payload payload) {
    wire::LayerRequest request;
    request.set_step(step.value);
    request.set_layer(layer);
    return {.type = MessageType::layer,
            .reply = MessageType::layer_reply,
            .message = comm::pack(request),
            .payload = std::move(payload)};
}

Output output_of(const LayerCall& call, const Result<comm::Frame>& reply) {
    if (!reply) return reply.error();
    return layer_output(call, reply->payload);
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

int Step::token_count() const {
    return impl_->tokens;
}

std::span<const std::int64_t> Step::lengths() const {
    return impl_->lengths;
}

Output Step::layer(int layer, const LayerInput& input) {
    if (auto error = impl_->refusal()) return *error;
    LayerCall call{*impl_->spec, impl_->kind, impl_->tokens, layer};
    auto payload = layer_payload(call, input);
    if (!payload) return payload.error();
    auto request = layer_request(impl_->id, layer, std::move(*payload));
    auto reply = impl_->call(request, impl_->client->deadline());
    return output_of(call, reply);
}

std::future<Output> Step::layer_async(int layer, const LayerInput& input) {
    if (auto error = impl_->refusal()) return ready(*error);
    auto payload = layer_payload({*impl_->spec, impl_->kind, impl_->tokens, layer}, input);
    if (!payload) return ready(payload.error());
    auto request = layer_request(impl_->id, layer, std::move(*payload));

    // The callback runs on the I/O thread: it must not hold the client, whose end would wait for that thread.
    auto promise = std::make_shared<std::promise<Output>>();
    auto output = promise->get_future();
    impl_->lead.channel->call(
        request.type, impl_->lead.generation.value, std::move(request.message), std::move(request.payload),
        impl_->client->deadline(),
        [promise, spec = impl_->spec, kind = impl_->kind, tokens = impl_->tokens, layer](Result<comm::Frame> reply) {
            promise->set_value(
                output_of({*spec, kind, tokens, layer}, checked_type(std::move(reply), MessageType::layer_reply)));
        });
    return output;
}

Status Step::commit() {
    return impl_->finish(MessageType::commit_step, Impl::State::committed, impl_->client->deadline());
}

Status Step::abort() {
    return impl_->finish(MessageType::abort_step, Impl::State::aborted, impl_->client->deadline());
}

}  // namespace kvgrid
