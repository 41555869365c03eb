#include <fmt/format.h>

#include "comm/wire/messages.h"
#include "coordinator/requests/close_in_grid.h"
#include "coordinator/requests/requests.h"

namespace kvgrid::coordinator {

void close_sequence(Coordinator& coordinator, const wire::SequenceRequest& request, const CallPtr& call) {
    if (auto ready = coordinator.require_lead(); !ready) return call->fail(ready.error());
    auto sequence = coordinator.catalogue().sequence(SequenceId{request.sequence()});
    if (!sequence) return call->fail(sequence.error());
    if (!sequence->confirmed) {
        return call->fail({Errc::not_found, fmt::format("sequence {} was never opened", sequence->id.value)});
    }
    close_in_grid(coordinator, sequence->id, call->deadline(), [call](const Status& closed) {
        if (!closed) return call->fail(closed.error());
        call->reply(comm::MessageType::empty, wire::Empty{});
    });
}

}  // namespace kvgrid::coordinator
