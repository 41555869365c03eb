#include "worker/service.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <utility>

#include "comm/wire/kvgrid.pb.h"
#include "comm/wire/messages.h"
#include "worker/operation_wire.h"
#include "worker/report_wire.h"
#include "worker/trace_wire.h"

namespace kvgrid::worker {

using comm::MessageType;
using comm::Request;
using comm::Responder;

namespace {

// A Done that answers with the error, or else with what `reply` says. (A std::function must be copyable: hence the shared pointer.)
template <class Reply>
Lead::Done answer(Responder responder, Reply reply) {
    return [to = std::make_shared<Responder>(std::move(responder)), reply](OperationResult result) {
        if (!result.status) return to->fail(result.status.error());
        reply(*to, std::move(result));
    };
}

Lead::Done answer_empty(Responder responder) {
    return answer(std::move(responder), [](Responder& to, OperationResult) { to.reply(MessageType::empty, {}); });
}

// The request's message, or an answer that says why not.
template <class Message>
std::optional<Message> parse(const Request& request, Responder& responder) {
    auto message = comm::unpack<Message>(request.frame);
    if (message) return std::move(*message);
    responder.fail(message.error());
    return std::nullopt;
}

}  // namespace

Service::Service(Lead& lead, Generation generation, std::vector<WorkerId> workers_by_rank,
                 DeviceMemories::Open open_memory)
    : lead_(lead),
      device_memories_(std::move(open_memory)),
      generation_(generation),
      workers_by_rank_(std::move(workers_by_rank)) {}

void Service::handle(Request request, Responder responder) {
    const auto& header = request.frame.header;
    if (header.generation != generation_.value) {
        return responder.fail(
            {Errc::stale_generation, fmt::format("the request is for generation {}, this is generation {}: ask the "
                                                 "coordinator for the lead",
                                                 header.generation, generation_.value)});
    }
    switch (header.type) {
        case MessageType::grid_inventory:
            return inventory(request, std::move(responder));
        case MessageType::grid_add_model:
            return add_model(request, std::move(responder));
        case MessageType::grid_open:
            return open_sequence(request, std::move(responder));
        case MessageType::grid_fork:
            return fork_sequence(request, std::move(responder));
        case MessageType::grid_close:
            return close_sequence(request, std::move(responder));
        case MessageType::begin_step:
            return begin_step(request, std::move(responder));
        case MessageType::layer:
            return layer(request, std::move(responder));
        case MessageType::share_memory:
            return share_memory(request, std::move(responder));
        case MessageType::share_device_memory:
            return share_device_memory(request, std::move(responder));
        case MessageType::commit_step:
            return commit_step(request, std::move(responder));
        case MessageType::abort_step:
            return abort_step(request, std::move(responder));
        case MessageType::read_kv:
            return read_kv(request, std::move(responder));
        case MessageType::rewrite_kv:
            return rewrite_kv(request, std::move(responder));
        case MessageType::truncate:
            return truncate(request, std::move(responder));
        case MessageType::set_window:
            return set_window(request, std::move(responder));
        case MessageType::inspect_sequence:
            return inspect_sequence(request, std::move(responder));
        case MessageType::occupancy:
            return occupancy(request, std::move(responder));
        case MessageType::start_trace:
            return start_trace(request, std::move(responder));
        case MessageType::take_trace:
            return take_trace(request, std::move(responder));
        default:
            return responder.fail({Errc::unsupported, fmt::format("a worker does not serve requests of type {}",
                                                                  static_cast<int>(header.type))});
    }
}

// Or an answer that says why not.
bool Service::is_of_this_term(std::uint64_t term, Responder& responder) const {
    if (term == term_) return true;
    responder.fail(
        {Errc::stale_generation,
         fmt::format("a request of a coordinator's term {} came in term {}: the coordinator was started again, or "
                     "this is another one's worker",
                     term, term_)});
    return false;
}

void Service::inventory(const Request& request, Responder responder) {
    const auto message = parse<wire::GridInventoryRequest>(request, responder);
    if (!message || !is_of_this_term(message->term(), responder)) return;
    lead_.submit(TakeInventory{}, answer(std::move(responder), [](Responder& to, OperationResult result) {
                     wire::GridInventoryReply reply;
                     for (const auto& model : result.inventory.models) {
                         auto& entry = *reply.add_models();
                         entry.set_model(model.id.value);
                         entry.set_spec_json(to_json(model.spec));
                         entry.set_head_parts(model.grid.head_parts);
                         entry.set_sequence_parts(model.grid.sequence_parts);
                         entry.set_pool_bytes_per_worker(model.pool_bytes);
                     }
                     for (const auto& sequence : result.inventory.sequences) {
                         auto& entry = *reply.add_sequences();
                         entry.set_sequence(sequence.id.value);
                         entry.set_model(sequence.model.value);
                         entry.set_length(sequence.length);
                         entry.set_step_open(sequence.step_open);
                     }
                     to.reply(MessageType::grid_inventory_reply, comm::pack(reply));
                 }));
}

void Service::add_model(const Request& request, Responder responder) {
    const auto message = parse<wire::GridAddModel>(request, responder);
    if (!message || !is_of_this_term(message->term(), responder)) return;
    auto spec = parse_model_spec(message->spec_json());
    if (!spec) return responder.fail(spec.error());
    const auto grid = validated_grid_shape(*spec, static_cast<int>(workers_by_rank_.size()),
                                           {message->head_parts(), message->sequence_parts()});
    if (!grid) return responder.fail(grid.error());
    lead_.submit(AddModel{ModelId{message->model()}, std::move(*spec), *grid, message->pool_bytes_per_worker()},
                 answer(std::move(responder), [](Responder& to, OperationResult result) {
                     wire::GridAddModelReply reply;
                     reply.set_pool_bytes_per_worker(result.pool_bytes);
                     to.reply(MessageType::grid_add_model_reply, comm::pack(reply));
                 }));
}

void Service::open_sequence(const Request& request, Responder responder) {
    const auto message = parse<wire::GridOpen>(request, responder);
    if (!message || !is_of_this_term(message->term(), responder)) return;
    lead_.submit(
        OpenSequence{SequenceId{message->sequence()}, ModelId{message->model()}, {message->window(), message->sinks()}},
        answer_empty(std::move(responder)));
}

void Service::fork_sequence(const Request& request, Responder responder) {
    const auto message = parse<wire::GridFork>(request, responder);
    if (!message || !is_of_this_term(message->term(), responder)) return;
    lead_.submit(ForkSequence{SequenceId{message->source()}, SequenceId{message->target()}, message->tokens()},
                 answer_empty(std::move(responder)));
}

void Service::close_sequence(const Request& request, Responder responder) {
    const auto message = parse<wire::GridClose>(request, responder);
    if (!message || !is_of_this_term(message->term(), responder)) return;
    lead_.submit(CloseSequence{SequenceId{message->sequence()}}, answer_empty(std::move(responder)));
}

void Service::begin_step(const Request& request, Responder responder) {
    const auto message = parse<wire::BeginStepRequest>(request, responder);
    if (!message) return;
    auto to = std::make_shared<Responder>(std::move(responder));
    lead_.begin(begin_step_from(*message), request.connection, [to](StepId step, OperationResult result) {
        if (!result.status) return to->fail(result.status.error());
        wire::BeginStepReply reply;
        reply.set_step(step.value);
        for (std::int64_t length : result.lengths) reply.add_lengths(length);
        to->reply(MessageType::begin_step_reply, comm::pack(reply));
    });
}

// Or an answer that says why not.
bool Service::owns(const Request& request, std::uint64_t step, Responder& responder) const {
    const Status owner = lead_.check_owner(StepId{step}, request.connection);
    if (!owner) responder.fail(owner.error());
    return owner.ok();
}

namespace {

// Answers a layer call; `output`, if it is not empty, is where o goes.
Lead::Done answer_layer(Responder responder, SharedMemory::Part output) {
    return answer(std::move(responder), [output](Responder& to, OperationResult result) {
        wire::LayerReply reply;
        reply.set_compute_ns(result.compute_ns);
        reply.set_join_ns(result.join_ns);
        const auto o = result.tensors.bytes();
        const bool shares = output.region && output.region->is_open() && o.size() <= output.bytes.size();
        if (!shares) return to.reply(MessageType::layer_reply, comm::pack(reply), std::move(result.tensors));
        std::ranges::copy(o, output.bytes.begin());
        reply.set_shared(true);
        to.reply(MessageType::layer_reply, comm::pack(reply));
    });
}

}  // namespace

void Service::layer(const Request& request, Responder responder) {
    const auto message = parse<wire::LayerRequest>(request, responder);
    if (!message || !owns(request, message->step(), responder)) return;
    if (message->has_on_device()) return layer_in_place(request, *message, std::move(responder));
    const StepId step{message->step()};
    const Lead::LayerOfStep layer{message->layer(), {message->without_q(), message->without_kv()}};
    if (message->shared_bytes() == 0) {
        return lead_.layer(step, layer, request.frame.payload, answer_layer(std::move(responder), {}));
    }
    const auto tensors = shared_memory_.part(request.connection, message->shared_offset(), message->shared_bytes());
    if (!tensors) return responder.fail(tensors.error());
    Result<SharedMemory::Part> output{SharedMemory::Part{}};
    if (message->shared_output_bytes() > 0) {
        const std::uint64_t end = message->shared_offset() + message->shared_bytes();
        output =
            shared_memory_.part(request.connection, comm::SharedRegion::aligned(end), message->shared_output_bytes());
    }
    if (!output) return responder.fail(output.error());
    lead_.layer(step, layer, comm::Payload(tensors->region, tensors->bytes),
                answer_layer(std::move(responder), *output));
}

void Service::layer_in_place(const Request& request, const wire::LayerRequest& message, Responder responder) {
    if (request.frame.payload.size() > 0 || message.shared_bytes() > 0) {
        return responder.fail({Errc::invalid_argument, "tensors came twice: in GPU memory, and beside it"});
    }
    const auto region = device_memories_.of(request.connection, message.device_memory());
    if (!region) return responder.fail(region.error());
    const wire::DeviceOffsets& at = message.on_device();
    lead_.layer_in_place(StepId{message.step()}, {message.layer(), {message.without_q(), message.without_kv()}},
                         *region, {at.q(), at.k(), at.v(), at.o()}, answer_layer(std::move(responder), {}));
}

// What is shared already is let go behind it.
void Service::share_device_memory(const Request& request, Responder responder) {
    const auto message = parse<wire::ShareDeviceMemoryRequest>(request, responder);
    if (!message) return;
    const comm::ConnectionId connection = request.connection;
    if (message->bytes() == 0) {
        return let_go(device_memories_.let_go(connection, message->memory()), answer_empty(std::move(responder)));
    }
    const auto shared = device_memories_.share(request, *message);
    if (!shared) return responder.fail(shared.error());
    let_go(shared->before, [](OperationResult) {});
    OpenClientMemory open{.memory = shared->now.number, .bytes = message->bytes()};
    std::ranges::copy(std::as_bytes(std::span(message->handle())), open.handle.begin());
    share_with_peers(connection, open, std::move(responder));
}

// Where they do not all reach it, the lead brings them the tensors.
void Service::share_with_peers(comm::ConnectionId connection, OpenClientMemory open, Responder responder) {
    if (lead_.rank_count() == 1) return responder.reply(MessageType::empty, {});
    auto to = std::make_shared<Responder>(std::move(responder));
    lead_.submit(open, [this, connection, number = open.memory, to](OperationResult result) {
        if (result.status) device_memories_.is_open_everywhere(connection, number);
        if (!result.status && result.status.error() != Errc::unsupported) return to->fail(result.status.error());
        to->reply(MessageType::empty, {});
    });
}

void Service::let_go(const DeviceRegion& region, Lead::Done done) {
    if (!region.memory || lead_.rank_count() == 1) return done({});
    lead_.submit(CloseClientMemory{region.number}, std::move(done));
}

void Service::connection_lost(comm::ConnectionId connection) {
    shared_memory_.connection_lost(connection);
    for (const DeviceRegion& region : device_memories_.let_go_all(connection)) let_go(region, [](OperationResult) {});
}

void Service::share_memory(const Request& request, Responder responder) {
    const auto message = parse<wire::ShareMemoryRequest>(request, responder);
    if (!message) return;
    if (Status shared = shared_memory_.share(request, message->file(), message->bytes()); !shared) {
        return responder.fail(shared.error());
    }
    responder.reply(MessageType::empty, {});
}

void Service::commit_step(const Request& request, Responder responder) {
    const auto message = parse<wire::StepRequest>(request, responder);
    if (!message || !owns(request, message->step(), responder)) return;
    lead_.commit(StepId{message->step()}, answer_empty(std::move(responder)));
}

void Service::abort_step(const Request& request, Responder responder) {
    const auto message = parse<wire::StepRequest>(request, responder);
    if (!message || !owns(request, message->step(), responder)) return;
    lead_.abort(StepId{message->step()}, answer_empty(std::move(responder)));
}

void Service::read_kv(const Request& request, Responder responder) {
    const auto message = parse<wire::ReadKvRequest>(request, responder);
    if (!message) return;
    lead_.submit(
        ReadKv{SequenceId{message->sequence()}, message->layer(), message->first_token(), message->token_count()},
        answer(std::move(responder), [](Responder& to, OperationResult result) {
            to.reply(MessageType::read_kv_reply, {}, std::move(result.tensors));
        }));
}

void Service::rewrite_kv(const Request& request, Responder responder) {
    const auto message = parse<wire::RewriteKvRequest>(request, responder);
    if (!message) return;
    lead_.submit(
        RewriteKv{SequenceId{message->sequence()}, message->layer(), message->first_token(), message->token_count()},
        request.frame.payload, answer_empty(std::move(responder)));
}

void Service::truncate(const Request& request, Responder responder) {
    const auto message = parse<wire::TruncateRequest>(request, responder);
    if (!message) return;
    lead_.submit(TruncateSequence{SequenceId{message->sequence()}, message->length()},
                 answer_empty(std::move(responder)));
}

void Service::set_window(const Request& request, Responder responder) {
    const auto message = parse<wire::SetWindowRequest>(request, responder);
    if (!message) return;
    lead_.submit(SetWindow{SequenceId{message->sequence()}, {message->window(), message->sinks()}},
                 answer_empty(std::move(responder)));
}

void Service::inspect_sequence(const Request& request, Responder responder) {
    const auto message = parse<wire::SequenceRequest>(request, responder);
    if (!message) return;
    lead_.submit(InspectSequence{SequenceId{message->sequence()}},
                 answer(std::move(responder), [](Responder& to, OperationResult result) {
                     wire::InspectSequenceReply reply;
                     reply.set_model(result.sequence.model.value);
                     reply.set_length(result.sequence.length);
                     reply.set_window(result.sequence.window.tokens);
                     reply.set_sinks(result.sequence.window.sinks);
                     reply.set_step_open(result.sequence.step_open);
                     for (std::uint64_t pages : result.sequence.pages_by_rank) reply.add_pages_by_rank(pages);
                     to.reply(MessageType::inspect_sequence_reply, comm::pack(reply));
                 }));
}

void Service::occupancy(const Request&, Responder responder) {
    lead_.submit(ReportOccupancy{}, answer(std::move(responder), [this](Responder& to, OperationResult result) {
                     wire::OccupancyReply reply;
                     for (std::size_t rank = 0; rank < result.by_rank.size(); ++rank) {
                         auto& worker = *reply.add_workers();
                         worker.set_worker(workers_by_rank_[rank].value);
                         worker.set_rank(static_cast<std::int32_t>(rank));
                         for (const ModelReport& model : result.by_rank[rank]) put_report(model, *worker.add_models());
                     }
                     const LeadCounters counters = lead_.counters();
                     reply.set_operations(counters.operations);
                     reply.set_join_bytes(result.join_bytes);
                     reply.set_layer_calls(counters.layer_calls);
                     reply.set_merged_layer_calls(counters.merged_layer_calls);
                     reply.set_non_finite_refusals(counters.non_finite_refusals);
                     reply.set_steps_abandoned(counters.steps_abandoned);
                     reply.set_steps_timed_out(counters.steps_timed_out);
                     to.reply(MessageType::occupancy_reply, comm::pack(reply));
                 }));
}

void Service::start_trace(const Request& request, Responder responder) {
    const auto message = parse<wire::StartTraceRequest>(request, responder);
    if (!message) return;
    if (Status valid = check_start_trace(*message); !valid) return responder.fail(valid.error());
    lead_.submit(start_trace_from(*message), answer_empty(std::move(responder)));
}

void Service::take_trace(const Request&, Responder responder) {
    lead_.submit(TakeTrace{}, answer(std::move(responder), [](Responder& to, OperationResult result) {
                     to.reply(MessageType::trace_reply, comm::pack(trace_reply(result.recordings)));
                 }));
}

}  // namespace kvgrid::worker
