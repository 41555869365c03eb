#include "worker/operation_wire.h"

#include <fmt/format.h>

#include <algorithm>
#include <span>

#include "comm/wire/kvgrid.pb.h"
#include "comm/wire/messages.h"
#include "worker/trace_wire.h"

namespace kvgrid::worker {

namespace {

// ---- to the wire: one overload for each kind

void put(const AddModel& add, wire::OperationMessage& message) {
    auto& body = *message.mutable_add_model();
    body.set_model(add.model.value);
    body.set_spec_json(to_json(add.spec));
    body.set_head_parts(add.grid.head_parts);
    body.set_sequence_parts(add.grid.sequence_parts);
    body.set_pool_bytes_per_worker(add.pool_bytes);
}

void put(const OpenSequence& open, wire::OperationMessage& message) {
    auto& body = *message.mutable_open();
    body.set_sequence(open.sequence.value);
    body.set_model(open.model.value);
    body.set_window(open.window.tokens);
    body.set_sinks(open.window.sinks);
}

void put(const ForkSequence& fork, wire::OperationMessage& message) {
    message.mutable_fork()->set_source(fork.source.value);
    message.mutable_fork()->set_target(fork.target.value);
    message.mutable_fork()->set_tokens(fork.tokens);
}

void put(const CloseSequence& close, wire::OperationMessage& message) {
    message.mutable_close()->set_sequence(close.sequence.value);
}

void put(const TruncateSequence& truncate, wire::OperationMessage& message) {
    message.mutable_truncate()->set_sequence(truncate.sequence.value);
    message.mutable_truncate()->set_length(truncate.length);
}

void put(const SetWindow& set, wire::OperationMessage& message) {
    auto& body = *message.mutable_set_window();
    body.set_sequence(set.sequence.value);
    body.set_window(set.window.tokens);
    body.set_sinks(set.window.sinks);
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

StepKind kind_from(wire::StepKind kind) {
    if (kind == wire::ITERATE) return StepKind::iterate;
    return kind == wire::WRITE ? StepKind::write : StepKind::attend;
}

void put(const BeginStep& begin, wire::OperationMessage& message) {
    auto& body = *message.mutable_begin();
    body.set_step(begin.step.value);
    body.mutable_request()->set_model(begin.model.value);
    body.mutable_request()->set_kind(wire_kind(begin.kind));
    for (const auto& part : begin.parts) {
        auto& added = *body.mutable_request()->add_parts();
        added.set_sequence(part.sequence.value);
        added.set_tokens(part.tokens);
    }
}

void put(const RunLayer& layer, wire::OperationMessage& message) {
    for (StepId step : layer.steps) message.mutable_layer()->add_steps(step.value);
    message.mutable_layer()->set_layer(layer.layer);
    message.mutable_layer()->set_without_q(layer.left_out.q);
    message.mutable_layer()->set_without_kv(layer.left_out.kv);
    if (layer.peers_place.memory == 0) return;
    message.mutable_layer()->set_memory(layer.peers_place.memory);
    wire::DeviceOffsets& at = *message.mutable_layer()->mutable_at();
    at.set_q(layer.peers_place.at.q);
    at.set_k(layer.peers_place.at.k);
    at.set_v(layer.peers_place.at.v);
    at.set_o(layer.peers_place.at.o);
}

void put(const OpenClientMemory& open, wire::OperationMessage& message) {
    auto& body = *message.mutable_open_memory();
    body.set_memory(open.memory);
    body.set_handle(open.handle.data(), open.handle.size());
    body.set_bytes(open.bytes);
}

void put(const CloseClientMemory& close, wire::OperationMessage& message) {
    message.mutable_close_memory()->set_memory(close.memory);
}

void put(const CommitStep& commit, wire::OperationMessage& message) {
    message.mutable_commit()->set_step(commit.step.value);
}

void put(const AbortStep& abort, wire::OperationMessage& message) {
    message.mutable_abort()->set_step(abort.step.value);
}

void put(const ReadKv& read, wire::OperationMessage& message) {
    auto& body = *message.mutable_read_kv();
    body.set_sequence(read.sequence.value);
    body.set_layer(read.layer);
    body.set_first_token(read.first_token);
    body.set_token_count(read.token_count);
}

void put(const RewriteKv& rewrite, wire::OperationMessage& message) {
    auto& body = *message.mutable_rewrite_kv();
    body.set_sequence(rewrite.sequence.value);
    body.set_layer(rewrite.layer);
    body.set_first_token(rewrite.first_token);
    body.set_token_count(rewrite.token_count);
}

void put(const InspectSequence& inspect, wire::OperationMessage& message) {
    message.mutable_inspect()->set_sequence(inspect.sequence.value);
}

void put(const TakeInventory&, wire::OperationMessage& message) {
    message.mutable_take_inventory();
}

void put(const ReportOccupancy&, wire::OperationMessage& message) {
    message.mutable_occupancy();
}

void put(const StartTrace& start, wire::OperationMessage& message) {
    auto& body = *message.mutable_start_trace();
    body.set_steps(start.steps);
    body.set_duration_ms(static_cast<std::uint32_t>(start.duration.count()));
    body.set_spans_max(start.spans_max);
}

void put(const TakeTrace&, wire::OperationMessage& message) {
    message.mutable_take_trace();
}

// ---- from the wire

Result<OperationBody> get_add_model(const wire::GridAddModel& body) {
    auto spec = parse_model_spec(body.spec_json());
    if (!spec) return spec.error();
    return OperationBody{AddModel{ModelId{body.model()},
                                  std::move(*spec),
                                  {body.head_parts(), body.sequence_parts()},
                                  body.pool_bytes_per_worker()}};
}

OperationBody get_layer(const wire::LayerOperation& body) {
    RunLayer layer{{}, body.layer(), {body.without_q(), body.without_kv()}};
    for (std::uint64_t step : body.steps()) layer.steps.push_back(StepId{step});
    layer.peers_place = {body.memory(), {body.at().q(), body.at().k(), body.at().v(), body.at().o()}};
    return layer;
}

Result<OperationBody> get_open_memory(const wire::OpenClientMemory& body) {
    OpenClientMemory open{.memory = body.memory(), .bytes = body.bytes()};
    if (body.handle().size() != open.handle.size()) {
        return {Errc::corrupt, fmt::format("a memory's handle has {} bytes", body.handle().size())};
    }
    std::ranges::copy(std::as_bytes(std::span(body.handle())), open.handle.begin());
    return OperationBody{open};
}

Result<OperationBody> get_body(const wire::OperationMessage& message) {
    using Wire = wire::OperationMessage;
    switch (message.body_case()) {
        case Wire::kAddModel:
            return get_add_model(message.add_model());
        case Wire::kOpen:
            return OperationBody{OpenSequence{SequenceId{message.open().sequence()},
                                              ModelId{message.open().model()},
                                              {message.open().window(), message.open().sinks()}}};
        case Wire::kFork:
            return OperationBody{ForkSequence{SequenceId{message.fork().source()}, SequenceId{message.fork().target()},
                                              message.fork().tokens()}};
        case Wire::kClose:
            return OperationBody{CloseSequence{SequenceId{message.close().sequence()}}};
        case Wire::kTruncate:
            return OperationBody{
                TruncateSequence{SequenceId{message.truncate().sequence()}, message.truncate().length()}};
        case Wire::kSetWindow:
            return OperationBody{SetWindow{SequenceId{message.set_window().sequence()},
                                           {message.set_window().window(), message.set_window().sinks()}}};
        case Wire::kBegin: {
            BeginStep begin = begin_step_from(message.begin().request());
            begin.step = StepId{message.begin().step()};
            return OperationBody{std::move(begin)};
        }
        case Wire::kLayer:
            return get_layer(message.layer());
        case Wire::kOpenMemory:
            return get_open_memory(message.open_memory());
        case Wire::kCloseMemory:
            return OperationBody{CloseClientMemory{message.close_memory().memory()}};
        case Wire::kCommit:
            return OperationBody{CommitStep{StepId{message.commit().step()}}};
        case Wire::kAbort:
            return OperationBody{AbortStep{StepId{message.abort().step()}}};
        case Wire::kReadKv:
            return OperationBody{ReadKv{SequenceId{message.read_kv().sequence()}, message.read_kv().layer(),
                                        message.read_kv().first_token(), message.read_kv().token_count()}};
        case Wire::kRewriteKv:
            return OperationBody{RewriteKv{SequenceId{message.rewrite_kv().sequence()}, message.rewrite_kv().layer(),
                                           message.rewrite_kv().first_token(), message.rewrite_kv().token_count()}};
        case Wire::kInspect:
            return OperationBody{InspectSequence{SequenceId{message.inspect().sequence()}}};
        case Wire::kOccupancy:
            return OperationBody{ReportOccupancy{}};
        case Wire::kStartTrace:
            return OperationBody{start_trace_from(message.start_trace())};
        case Wire::kTakeTrace:
            return OperationBody{TakeTrace{}};
        case Wire::kTakeInventory:
            return OperationBody{TakeInventory{}};
        case Wire::BODY_NOT_SET:
            break;
    }
    return {Errc::corrupt, fmt::format("operation {} has no body that this version knows", message.number())};
}

}  // namespace

BeginStep begin_step_from(const wire::BeginStepRequest& request) {
    BeginStep begin;
    begin.model = ModelId{request.model()};
    begin.kind = kind_from(request.kind());
    for (const auto& part : request.parts()) begin.parts.push_back({SequenceId{part.sequence()}, part.tokens()});
    return begin;
}

std::string pack_operation(const Operation& operation) {
    wire::OperationMessage message;
    message.set_number(operation.number);
    std::visit([&](const auto& body) { put(body, message); }, operation.body);
    return comm::pack(message);
}

Result<Operation> unpack_operation(const comm::Frame& frame) {
    const auto message = comm::unpack<wire::OperationMessage>(frame);
    if (!message) return message.error();
    auto body = get_body(*message);
    if (!body) return body.error();
    return Operation{message->number(), std::move(*body), frame.payload};
}

}  // namespace kvgrid::worker
