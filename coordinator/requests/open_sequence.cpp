#include <fmt/format.h>

#include "comm/wire/messages.h"
#include "coordinator/admission.h"
#include "coordinator/requests/new_sequence.h"
#include "coordinator/requests/requests.h"

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
    return {};
}

// A worker that has not told of the model yet (it was just added) has the whole pool free.
std::int64_t free_pages(const Worker& worker, const ModelRecord& model) {
    for (const PoolOccupancy& pool : worker.said.pools) {
        if (pool.model == model.id) return static_cast<std::int64_t>(pool.free_pages);
    }
    return static_cast<std::int64_t>(model.pool_bytes_per_worker / model.spec.page_bytes());
}

Status admit_now(const Coordinator& coordinator, const ModelRecord& model, const wire::OpenSequenceRequest& request) {
    if (request.expected_tokens() == 0) return {};
    std::vector<std::int64_t> free_by_rank;
    for (const Worker& member : coordinator.membership().members()) free_by_rank.push_back(free_pages(member, model));
    return admit(model.spec, model.grid, free_by_rank,
                 {request.expected_tokens(), {request.window(), request.sinks()}});
}

}  // namespace

void open_sequence(Coordinator& coordinator, const wire::OpenSequenceRequest& request, const CallPtr& call) {
    if (auto valid = validate(request); !valid) return call->fail(valid.error());
    if (auto ready = coordinator.require_ready(); !ready) return call->fail(ready.error());
    if (auto room = coordinator.abandoned().has_room(); !room) return call->fail(room.error());
    auto model = coordinator.catalogue().model(ModelId{request.model()});
    if (!model) return call->fail(model.error());
    if (!model->confirmed) {
        return call->fail({Errc::not_found, fmt::format("model {} is still being added to the grid", model->id.value)});
    }
    if (auto admitted = admit_now(coordinator, *model, request); !admitted) return call->fail(admitted.error());

    const std::string tenant = request.tenant().empty() ? "default" : request.tenant();
    auto reserved = coordinator.catalogue().reserve_sequence({.model = model->id, .tenant = tenant});
    if (!reserved) return call->fail(reserved.error());
    wire::GridOpen message;
    message.set_sequence(reserved->id.value);
    message.set_model(model->id.value);
    message.set_window(request.window());
    message.set_sinks(request.sinks());
    message.set_term(coordinator.lead().term());
    make_in_grid(coordinator, {*std::move(reserved), comm::MessageType::grid_open, comm::pack(message)}, call);
}

}  // namespace kvgrid::coordinator
