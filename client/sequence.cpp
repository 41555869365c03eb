#include <fmt/core.h>

#include "client/from_wire.h"
#include "client/sequence_impl.h"
#include "core/log.h"

namespace kvgrid {
namespace {

using comm::MessageType;
using namespace std::chrono_literals;

constexpr auto kCloseWait = 2'000ms;  // of a destructor

std::string request_for(SequenceId sequence) {
    wire::SequenceRequest request;
    request.set_sequence(sequence.value);
    return comm::pack(request);
}

Result<KvRows> rows_from(const comm::Payload& payload, std::size_t bytes_of_each) {
    auto bytes = payload.bytes();
    if (bytes.size() != 2 * bytes_of_each)
        return {Errc::corrupt,
                fmt::format("the lead answered {} bytes of K and V where {} belong", bytes.size(), 2 * bytes_of_each)};
    auto k = bytes.first(bytes_of_each), v = bytes.last(bytes_of_each);
    return KvRows{{k.begin(), k.end()}, {v.begin(), v.end()}};
}

}  // namespace

Sequence::Impl::~Impl() {
    if (!owns) return;
    Status status = close(client->deadline_within(kCloseWait));
    if (!status && !(status.error() == Errc::not_found))
        log_warn(fmt::format("sequence {} could not be closed and may still hold pages: {}", id.value,
                             status.error().to_string()));
}

Status Sequence::Impl::close(Deadline deadline) {
    Status status = status_of(client->link.call_coordinator(
        {.type = MessageType::close_sequence, .reply = MessageType::empty, .message = request_for(id)}, deadline));
    if (status || status.error() == Errc::not_found) owns = false;
    return status;
}

Sequence::Sequence(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Sequence::Sequence(Sequence&&) noexcept = default;
Sequence& Sequence::operator=(Sequence&&) noexcept = default;
Sequence::~Sequence() = default;

SequenceId Sequence::id() const {
    return impl_->id;
}

ModelId Sequence::model() const {
    return impl_->model;
}

const ModelSpec& Sequence::spec() const {
    return *impl_->spec;
}

Result<Sequence> Sequence::fork() {
    auto reply = unpacked<wire::SequenceReply>(impl_->client->link.call_coordinator(
        {.type = MessageType::fork_sequence, .reply = MessageType::sequence_reply, .message = request_for(impl_->id)},
        impl_->client->deadline()));
    if (!reply) return reply.error();
    return Sequence(std::make_unique<Impl>(impl_->client, SequenceId{reply->sequence()}, impl_->model, impl_->spec));
}

Status Sequence::truncate(std::int64_t length) {
    wire::TruncateRequest request;
    request.set_sequence(impl_->id.value);
    request.set_length(length);
    return status_of(impl_->client->link.call_lead(
        {.type = MessageType::truncate, .reply = MessageType::empty, .message = comm::pack(request)},
        impl_->client->deadline()));
}

std::int64_t Sequence::prefix_length() const {
    return impl_->prefix_length;
}

Status Sequence::keep(std::span<const PrefixHash> prefix) {
    wire::KeepSequenceRequest request;
    request.set_sequence(impl_->id.value);
    put(prefix, *request.mutable_prefix());
    return status_of(impl_->client->link.call_coordinator(
        {.type = MessageType::keep_sequence, .reply = MessageType::empty, .message = comm::pack(request)},
        impl_->client->deadline()));
}

Status Sequence::set_window(std::int64_t window, std::int64_t sinks) {
    wire::SetWindowRequest request;
    request.set_sequence(impl_->id.value);
    request.set_window(window);
    request.set_sinks(sinks);
    return status_of(impl_->client->link.call_lead(
        {.type = MessageType::set_window, .reply = MessageType::empty, .message = comm::pack(request)},
        impl_->client->deadline()));
}

Result<SequenceInfo> Sequence::inspect() const {
    auto reply = unpacked<wire::InspectSequenceReply>(
        impl_->client->link.call_lead({.type = MessageType::inspect_sequence,
                                       .reply = MessageType::inspect_sequence_reply,
                                       .message = request_for(impl_->id),
                                       .repeat = Repeat::if_lost},
                                      impl_->client->deadline()));
    if (!reply) return reply.error();
    return from_wire(*reply);
}

namespace {

Status check_tokens(const ModelSpec& spec, int layer, std::int64_t first_token, std::int64_t token_count) {
    if (layer < 0 || layer >= spec.layer_count() || !spec.owns_kv(layer))
        return {Errc::invalid_argument, fmt::format("layer {} of model '{}' owns no KV", layer, spec.name)};
    if (first_token < 0 || token_count < 0)
        return {Errc::invalid_argument, fmt::format("{} tokens from token {}", token_count, first_token)};
    return {};
}

// A ReadKvRequest or a RewriteKvRequest.
template <class Request>
std::string tokens_of(SequenceId sequence, int layer, std::int64_t first_token, std::int64_t token_count) {
    Request request;
    request.set_sequence(sequence.value);
    request.set_layer(layer);
    request.set_first_token(first_token);
    request.set_token_count(token_count);
    return comm::pack(request);
}

}  // namespace

Result<KvRows> Sequence::read_kv(int layer, std::int64_t first_token, std::int64_t token_count) const {
    const ModelSpec& spec = *impl_->spec;
    if (Status valid = check_tokens(spec, layer, first_token, token_count); !valid) return valid.error();
    auto reply = impl_->client->link.call_lead(
        {.type = MessageType::read_kv,
         .reply = MessageType::read_kv_reply,
         .message = tokens_of<wire::ReadKvRequest>(impl_->id, layer, first_token, token_count),
         .repeat = Repeat::if_lost},
        impl_->client->deadline());
    if (!reply) return reply.error();
    return rows_from(reply->payload, static_cast<std::size_t>(token_count) * spec.kv_heads * spec.row_bytes());
}

Status Sequence::rewrite_kv(int layer, std::int64_t first_token, std::int64_t token_count, std::span<const std::byte> k,
                            std::span<const std::byte> v) {
    const ModelSpec& spec = *impl_->spec;
    if (Status valid = check_tokens(spec, layer, first_token, token_count); !valid) return valid;
    const std::size_t bytes = static_cast<std::size_t>(token_count) * spec.kv_heads * spec.row_bytes();
    if (k.size() != bytes || v.size() != bytes) {
        return {Errc::invalid_argument, fmt::format("k has {} bytes and v {}: {} tokens of {} KV heads have {}",
                                                    k.size(), v.size(), token_count, spec.kv_heads, bytes)};
    }
    std::vector<std::byte> rows(k.begin(), k.end());
    rows.insert(rows.end(), v.begin(), v.end());
    const auto payload = comm::Payload::own(std::move(rows));
    const Deadline deadline = impl_->client->deadline();
    return status_of(impl_->client->with_room(impl_->model, deadline, [&] {
        return impl_->client->link.call_lead(
            {.type = MessageType::rewrite_kv,
             .reply = MessageType::empty,
             .message = tokens_of<wire::RewriteKvRequest>(impl_->id, layer, first_token, token_count),
             .payload = payload},
            deadline);
    }));
}

Status Sequence::close() {
    return impl_->close(impl_->client->deadline());
}

SequenceId Sequence::release() {
    impl_->owns = false;
    return impl_->id;
}

}  // namespace kvgrid
