#include <fmt/format.h>

#include "coordinator/placement.h"
#include "coordinator/requests/requests.h"
#include "coordinator/requests/wire_form.h"

namespace kvgrid::coordinator {

namespace {

GridModels::Done answer(const CallPtr& call) {
    return [call](const Result<ModelRecord>& outcome) {
        if (!outcome) return call->fail(outcome.error());
        call->reply(comm::MessageType::model_reply, to_wire(*outcome));
    };
}

Result<std::uint64_t> assigned_bytes(Catalogue& catalogue) {
    auto models = catalogue.models();
    if (!models) return models.error();
    std::uint64_t bytes = 0;
    for (const ModelRecord& model : *models) bytes += model.pool_bytes_per_worker;  // also of those being added
    return bytes;
}

// The name is taken: by the same model, or by another one.
void answer_with(const ModelRecord& there, Coordinator& coordinator, const ModelSpec& spec, const GridShape& shape,
                 const CallPtr& call) {
    if (there.spec != spec || there.grid != shape) {
        return call->fail(
            {Errc::already_exists,
             fmt::format("model {} ({} x {} parts) has this name already and another {}: choose another name",
                         there.id.value, there.grid.head_parts, there.grid.sequence_parts,
                         there.spec != spec ? "spec" : "split")});
    }
    if (there.confirmed) return call->reply(comm::MessageType::model_reply, to_wire(there));
    const Deadline deadline = coordinator.lead_deadline(call->deadline());
    if (!coordinator.models().join(there.id, deadline, answer(call))) {
        call->fail({Errc::internal, fmt::format("model {} is reserved and nobody is adding it", there.id.value)});
    }
}

Result<ModelRecord> reserve(Coordinator& coordinator, const ModelSpec& spec, const PlacementRequest& asked) {
    auto assigned = assigned_bytes(coordinator.catalogue());
    if (!assigned) return assigned.error();
    auto placement = place_model(spec, coordinator.membership().grid().members, *assigned, asked);
    if (!placement) return placement.error();
    return coordinator.catalogue().reserve_model(
        {.spec = spec, .grid = placement->shape, .pool_bytes_per_worker = placement->pool_bytes_per_worker});
}

}  // namespace

void register_model(Coordinator& coordinator, const wire::RegisterModelRequest& request, const CallPtr& call) {
    auto spec = parse_model_spec(request.spec_json());
    if (!spec) return call->fail(spec.error());
    if (auto ready = coordinator.require_ready(); !ready) return call->fail(ready.error());

    const PlacementRequest asked{{request.head_parts(), request.sequence_parts()}, request.pool_bytes_per_worker()};
    auto shape = validated_grid_shape(*spec, coordinator.membership().grid().size(), asked.shape);
    if (!shape) return call->fail(shape.error());
    auto there = coordinator.catalogue().find_model(spec->name);
    if (!there) return call->fail(there.error());
    if (there->has_value()) return answer_with(**there, coordinator, *spec, *shape, call);

    auto reserved = reserve(coordinator, *spec, asked);
    if (!reserved) return call->fail(reserved.error());
    coordinator.models().add(*reserved, coordinator.lead_deadline(call->deadline()), answer(call));
}

}  // namespace kvgrid::coordinator
