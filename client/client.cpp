#include <fmt/core.h>

#include <unordered_set>

#include "client/client_impl.h"
#include "client/from_wire.h"
#include "client/sequence_impl.h"
#include "client/step_impl.h"
#include "comm/rpc/endpoint.h"

namespace kvgrid {
namespace {

using comm::MessageType;

constexpr int kStepTokensMax = 1 << 20;  // of all parts; keeps sums and sizes far from overflow

// Number of new tokens, or the part that may not be begun.
Result<int> count_tokens(const Client::Impl* client, const std::vector<std::pair<const Sequence::Impl*, int>>& parts) {
    if (parts.empty()) return {Errc::invalid_argument, "a step needs at least one part"};
    std::unordered_set<SequenceId> seen;
    int total = 0;
    for (const auto& [sequence, tokens] : parts) {
        auto refuse = [&](const std::string& why) {
            return Error{Errc::invalid_argument, fmt::format("part {}: {}", seen.size(), why)};
        };
        if (!sequence) return refuse("it has no sequence");
        if (sequence->client.get() != client) return refuse("its sequence belongs to another Client");
        if (sequence->model != parts.front().first->model)
            return refuse("all sequences of a step must be of one model");
        if (tokens < 1 || tokens > kStepTokensMax - total)
            return refuse(fmt::format("{} tokens; at least 1, and {} in one step", tokens, kStepTokensMax));
        if (!seen.insert(sequence->id).second)
            return refuse(fmt::format("sequence {} stands there twice", sequence->id.value));
        total += tokens;
    }
    return total;
}

wire::StepKind wire_kind(StepKind kind) {
    switch (kind) {
        case StepKind::attend:
            return wire::ATTEND;
        case StepKind::write:
            return wire::WRITE;
        case StepKind::iterate:
            break;
    }
    return wire::ITERATE;
}

wire::BeginStepRequest begin_request(const std::vector<std::pair<const Sequence::Impl*, int>>& parts, StepKind kind) {
    wire::BeginStepRequest request;
    request.set_model(parts.front().first->model.value);
    request.set_kind(wire_kind(kind));
    for (const auto& [sequence, tokens] : parts) {
        auto* part = request.add_parts();
        part->set_sequence(sequence->id.value);
        part->set_tokens(tokens);
    }
    return request;
}

}  // namespace

Result<Client> Client::connect(const std::string& endpoint, ClientOptions options) {
    if (options.timeout <= std::chrono::milliseconds(0))
        return {Errc::invalid_argument, "ClientOptions::timeout must be above 0"};
    auto coordinator = comm::parse_endpoint(endpoint);
    if (!coordinator) return coordinator.error();
    auto impl = std::make_shared<Impl>(std::move(*coordinator), options);
    if (options.wait_until_ready) {
        auto lead = impl->link.lead(impl->deadline());
        if (!lead) return lead.error();
    }
    return Client(std::move(impl));
}

Client::Client(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}
Client::Client(Client&&) noexcept = default;
Client& Client::operator=(Client&&) noexcept = default;
Client::~Client() = default;

Result<ClusterStatus> Client::status() {
    auto reply = impl_->link.status(impl_->deadline());
    if (!reply) return reply.error();
    return from_wire(*reply);
}

Result<RegisteredModel> Client::register_model(const ModelSpec& spec, ModelOptions options) {
    auto good = validated(spec);
    if (!good) return good.error();
    wire::RegisterModelRequest request;
    request.set_spec_json(to_json(*good));
    request.set_head_parts(options.grid.head_parts);
    request.set_sequence_parts(options.grid.sequence_parts);
    request.set_pool_bytes_per_worker(options.pool_bytes_per_worker);
    auto reply = unpacked<wire::ModelReply>(impl_->link.call_coordinator(
        {.type = MessageType::register_model, .reply = MessageType::model_reply, .message = comm::pack(request)},
        impl_->deadline()));
    if (!reply) return reply.error();
    return from_wire(*reply);
}

Result<std::vector<RegisteredModel>> Client::models() {
    return impl_->list_models(impl_->deadline());
}

Result<Sequence> Client::open(const RegisteredModel& model, OpenOptions options) {
    wire::OpenSequenceRequest request;
    request.set_model(model.id.value);
    request.set_tenant(options.tenant);
    request.set_expected_tokens(options.expected_tokens);
    request.set_window(options.window);
    request.set_sinks(options.sinks);
    put(options.prefix, *request.mutable_prefix());
    const Deadline deadline = impl_->deadline();
    auto reply = impl_->with_room(model.id, deadline, [&] {
        return unpacked<wire::SequenceReply>(impl_->link.call_coordinator(
            {.type = MessageType::open_sequence, .reply = MessageType::sequence_reply, .message = comm::pack(request)},
            deadline));
    });
    if (!reply) return reply.error();
    return Sequence(std::make_unique<Sequence::Impl>(impl_, SequenceId{reply->sequence()}, model.id,
                                                     impl_->keep(model.id, model.spec), reply->prefix_tokens()));
}

Result<Sequence> Client::attach(SequenceId sequence) {
    Deadline deadline = impl_->deadline();
    wire::SequenceRequest request;
    request.set_sequence(sequence.value);
    auto reply =
        unpacked<wire::InspectSequenceReply>(impl_->link.call_lead({.type = MessageType::inspect_sequence,
                                                                    .reply = MessageType::inspect_sequence_reply,
                                                                    .message = comm::pack(request),
                                                                    .repeat = Repeat::if_lost},
                                                                   deadline));
    if (!reply) return reply.error();
    auto spec = impl_->spec_of({reply->model()}, deadline);
    if (!spec) return spec.error();
    return Sequence(std::make_unique<Sequence::Impl>(impl_, sequence, ModelId{reply->model()}, *spec));
}

Result<SequencePage> Client::list_sequences(const SequencePageOptions& options) {
    if (options.limit < 0) return {Errc::invalid_argument, "SequencePageOptions::limit must not be negative"};
    return impl_->list_sequences(options, impl_->deadline());
}

Result<std::vector<SequenceId>> Client::sequences(ModelId model) {
    const Deadline deadline = impl_->deadline();
    std::vector<SequenceId> ids;
    for (SequencePageOptions next{.model = model};; next.after = ids.back()) {
        const auto page = impl_->list_sequences(next, deadline);
        if (!page) return page.error();
        for (const ListedSequence& each : page->sequences) ids.push_back(each.id);
        if (!page->more || page->sequences.empty()) return ids;
    }
}

Status Client::close(SequenceId sequence) {
    wire::SequenceRequest request;
    request.set_sequence(sequence.value);
    return status_of(impl_->link.call_coordinator(
        {.type = MessageType::close_sequence, .reply = MessageType::empty, .message = comm::pack(request)},
        impl_->deadline()));
}

Result<Step> Client::begin(std::span<const StepPart> parts, StepKind kind) {
    std::vector<std::pair<const Sequence::Impl*, int>> checked;
    for (const StepPart& part : parts)
        checked.emplace_back(part.sequence ? part.sequence->impl_.get() : nullptr, part.tokens);
    auto tokens = count_tokens(impl_.get(), checked);
    if (!tokens) return tokens.error();

    Deadline deadline = impl_->deadline();
    auto lead = impl_->link.lead(deadline);
    if (!lead) return lead.error();
    auto reply = impl_->with_room(checked.front().first->model, deadline, [&] {
        return unpacked<wire::BeginStepReply>(
            impl_->link.call_lead(*lead,
                                  {.type = MessageType::begin_step,
                                   .reply = MessageType::begin_step_reply,
                                   .message = comm::pack(begin_request(checked, kind))},
                                  deadline));
    });
    if (!reply) return reply.error();

    auto step = std::make_unique<Step::Impl>();
    step->client = impl_;
    step->lead = *lead;
    step->id = {reply->step()};
    step->spec = checked.front().first->spec;
    step->kind = kind;
    step->tokens = *tokens;
    step->lengths.assign(reply->lengths().begin(), reply->lengths().end());
    if (step->lengths.size() != parts.size())
        return {Errc::corrupt,
                fmt::format("the lead answered {} lengths for {} parts", step->lengths.size(), parts.size())};
    return Step(std::move(step));
}

Result<GridOccupancy> Client::occupancy() {
    auto reply = unpacked<wire::OccupancyReply>(impl_->link.call_lead({.type = MessageType::occupancy,
                                                                       .reply = MessageType::occupancy_reply,
                                                                       .message = comm::pack(wire::Empty()),
                                                                       .repeat = Repeat::if_lost},
                                                                      impl_->deadline()));
    if (!reply) return reply.error();
    return from_wire(*reply);
}

Status Client::share_device_memory(std::span<const std::byte, 64> ipc_handle, std::uint64_t bytes, int memory) {
    if (bytes == 0)
        return {Errc::invalid_argument, "0 bytes of GPU memory were to be shared: share at least one tensor's"};
    return impl_->share_device_memory(ipc_handle, bytes, memory);
}

Status Client::unshare_device_memory(int memory) {
    return impl_->share_device_memory({}, 0, memory);
}

Status Client::Impl::share_device_memory(std::span<const std::byte> handle, std::uint64_t bytes, int memory) {
    wire::ShareDeviceMemoryRequest request;
    request.set_memory(static_cast<std::uint32_t>(memory));
    request.set_handle(handle.data(), handle.size());
    request.set_bytes(bytes);
    return status_of(link.call_lead(
        {.type = MessageType::share_device_memory, .reply = MessageType::empty, .message = comm::pack(request)},
        deadline()));
}

Status Client::start_trace(TraceOptions options) {
    if (options.steps < 1 || options.duration.count() < 1 || options.spans_max < 1)
        return {Errc::invalid_argument, "TraceOptions: steps, duration and spans_max must be above 0"};
    wire::StartTraceRequest request;
    request.set_steps(static_cast<std::uint32_t>(options.steps));
    request.set_duration_ms(static_cast<std::uint32_t>(options.duration.count()));
    request.set_spans_max(static_cast<std::uint32_t>(options.spans_max));
    return status_of(impl_->link.call_lead(
        {.type = MessageType::start_trace, .reply = MessageType::empty, .message = comm::pack(request)},
        impl_->deadline()));
}

Result<GridTrace> Client::take_trace() {
    auto reply = unpacked<wire::TraceReply>(impl_->link.call_lead({.type = MessageType::take_trace,
                                                                   .reply = MessageType::trace_reply,
                                                                   .message = comm::pack(wire::Empty()),
                                                                   .repeat = Repeat::if_lost},
                                                                  impl_->deadline()));
    if (!reply) return reply.error();
    return from_wire(*reply);
}

}  // namespace kvgrid
