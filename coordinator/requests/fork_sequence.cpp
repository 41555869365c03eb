#include "coordinator/requests/new_sequence.h"
#include "coordinator/requests/requests.h"

namespace kvgrid::coordinator {

void fork_sequence(Coordinator& coordinator, const wire::SequenceRequest& request, const CallPtr& call) {
    const auto source = fork_source(coordinator, SequenceId{request.sequence()});
    if (!source) return call->fail(source.error());

    auto reserved = coordinator.catalogue().reserve_sequence(
        {.model = source->model, .tenant = source->tenant, .parent = source->id});
    if (!reserved) return call->fail(reserved.error());
    make_in_grid(coordinator, forked(coordinator, *std::move(reserved), 0), call->deadline(),
                 answer_with_sequence(call));
}

}  // namespace kvgrid::coordinator
