#include <fmt/format.h>

#include "comm/wire/messages.h"
#include "coordinator/admission.h"
#include "coordinator/requests/new_sequence.h"
#include "coordinator/requests/requests.h"
#include "coordinator/requests/wire_form.h"

namespace kvgrid::coordinator {

namespace {

constexpr std::size_t kTenantBytesMax = 128;

Status validate(const wire::OpenSequenceRequest& request) {
    const auto refuse = [](std::string why) { return Status{Errc::invalid_argument, std::move(why)}; };
    if (request.tenant().size() > kTenantBytesMax) {
        return refuse(fmt::format("tenant has {} bytes: at most {}", request.tenant().size(), kTenantBytesMax));
    }
    if (request.expected_tokens() < 0 || request.expected_tokens() > kTokensMax) {
        return refuse(
            fmt::format("expected_tokens is {}: must be from 0 to {}", request.expected_tokens(), kTokensMax));
    }
    if (request.window() < 0) return refuse(fmt::format("window is {}: must not be negative", request.window()));
    if (request.sinks() < 0) return refuse(fmt::format("sinks is {}: must not be negative", request.sinks()));
    if (request.sinks() > 0 && request.window() == 0) {
        return refuse(fmt::format("sinks is {} without a window: name the window too", request.sinks()));
    }
    if (request.window() > 0 && request.prefix_size() > 0) {
        return refuse("prefix with a window: what is kept was computed without");
    }
    return {};
}

// A worker that has not told of the model yet (it was just added) has the whole pool free.
std::int64_t free_pages(const Worker& worker, const ModelRecord& model) {
    for (const PoolOccupancy& pool : worker.said.pools) {
        if (pool.model == model.id) return static_cast<std::int64_t>(pool.free_pages);
    }
    return static_cast<std::int64_t>(model.pool_bytes_per_worker / model.spec.page_bytes());
}

// `shared` tokens, whole pages, are there already.
Status admit_now(const Coordinator& coordinator, const ModelRecord& model, const wire::OpenSequenceRequest& request,
                 std::int64_t shared) {
    if (request.expected_tokens() <= shared) return {};
    std::vector<std::int64_t> free_by_rank;
    for (const Worker& member : coordinator.membership().members()) free_by_rank.push_back(free_pages(member, model));
    return admit(model.spec, model.grid, free_by_rank,
                 {request.expected_tokens() - shared, {request.window(), request.sinks()}});
}

SequenceRecord record_of(const ModelRecord& model, const wire::OpenSequenceRequest& request) {
    return {.model = model.id, .tenant = request.tenant().empty() ? "default" : request.tenant()};
}

void open_empty(Coordinator& coordinator, const ModelRecord& model, const wire::OpenSequenceRequest& request,
                const CallPtr& call) {
    if (auto ready = coordinator.require_ready(); !ready) return call->fail(ready.error());
    if (auto admitted = admit_now(coordinator, model, request, 0); !admitted) return call->fail(admitted.error());
    auto reserved = coordinator.catalogue().reserve_sequence(record_of(model, request));
    if (!reserved) return call->fail(reserved.error());
    wire::GridOpen message;
    message.set_sequence(reserved->id.value);
    message.set_model(model.id.value);
    message.set_window(request.window());
    message.set_sinks(request.sinks());
    message.set_term(coordinator.lead().term());
    make_in_grid(coordinator, {*std::move(reserved), comm::MessageType::grid_open, comm::pack(message)},
                 call->deadline(), answer_with_sequence(call));
}

// Whether the kept sequence is gone, or can never be forked at so many tokens.
bool is_useless(const Error& error) {
    return error == Errc::not_found || error == Errc::wrong_state || error == Errc::invalid_argument;
}

// If what is kept cannot be forked, the sequence begins empty: to a client that is no error.
void open_with(Coordinator& coordinator, const KeptPrefixes::Match& match, const ModelRecord& model,
               const wire::OpenSequenceRequest& request, const CallPtr& call) {
    const std::int64_t tokens = prefix_tokens(match.pages);
    if (auto admitted = admit_now(coordinator, model, request, tokens); !admitted) return call->fail(admitted.error());
    SequenceRecord wanted = record_of(model, request);
    wanted.parent = match.sequence;
    auto reserved = coordinator.catalogue().reserve_sequence(std::move(wanted));
    if (!reserved) return call->fail(reserved.error());
    const auto made = [&coordinator, match, model, request, call](const Result<SequenceRecord>& record) {
        if (!record) {
            const bool useless = is_useless(record.error()) && coordinator.prefixes().erase(match.sequence);
            if (useless) coordinator.abandon({&match.sequence, 1});
            return open_empty(coordinator, model, request, call);
        }
        coordinator.prefixes().count_hit(match.pages);
        wire::SequenceReply reply = to_wire(*record);
        reply.set_prefix_tokens(prefix_tokens(match.pages));
        call->reply(comm::MessageType::sequence_reply, reply);
    };
    make_in_grid(coordinator, forked(coordinator, *std::move(reserved), tokens), call->deadline(), made);
}

}  // namespace

void open_sequence(Coordinator& coordinator, const wire::OpenSequenceRequest& request, const CallPtr& call) {
    if (auto valid = validate(request); !valid) return call->fail(valid.error());
    const auto prefix = prefix_from_wire(request.prefix());
    if (!prefix) return call->fail(prefix.error());
    if (auto ready = coordinator.require_ready(); !ready) return call->fail(ready.error());
    if (auto room = coordinator.abandoned().has_room(); !room) return call->fail(room.error());
    auto model = coordinator.catalogue().model(ModelId{request.model()});
    if (!model) return call->fail(model.error());
    if (!model->confirmed) {
        return call->fail({Errc::not_found, fmt::format("model {} is still being added to the grid", model->id.value)});
    }
    if (!prefix->empty()) {
        const auto match = coordinator.prefixes().find(model->id, record_of(*model, request).tenant, *prefix);
        if (match) return open_with(coordinator, *match, *model, request, call);
    }
    open_empty(coordinator, *model, request, call);
}

}  // namespace kvgrid::coordinator
