#include <fmt/format.h>

#include "coordinator/requests/new_sequence.h"
#include "coordinator/requests/requests.h"

namespace kvgrid::coordinator {

void fork_sequence(Coordinator& coordinator, const wire::SequenceRequest& request, const CallPtr& call) {
    if (auto ready = coordinator.require_ready(); !ready) return call->fail(ready.error());
    if (auto room = coordinator.abandoned().has_room(); !room) return call->fail(room.error());
    auto source = coordinator.catalogue().sequence(SequenceId{request.sequence()});
    if (!source) return call->fail(source.error());
    if (!source->confirmed) {
        return call->fail({Errc::not_found, fmt::format("sequence {} was never opened", source->id.value)});
    }

    auto reserved = coordinator.catalogue().reserve_sequence(
        {.model = source->model, .tenant = source->tenant, .parent = source->id});
    if (!reserved) return call->fail(reserved.error());
    make_in_grid(coordinator, forked(coordinator, *std::move(reserved), 0), call->deadline(),
                 answer_with_sequence(call));
}

}  // namespace kvgrid::coordinator
