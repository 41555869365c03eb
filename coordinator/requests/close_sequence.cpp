#include <fmt/format.h>

#include "comm/wire/messages.h"
#include "coordinator/requests/requests.h"

namespace kvgrid::coordinator {

namespace {

// A sequence that the grid does not have is closed. If the answer is lost, the row stays and closing can be tried again.
void finish(Coordinator& coordinator, SequenceId id, const CallPtr& call, const Result<comm::Frame>& answer) {
    if (!answer && !(answer.error() == Errc::not_found)) return call->fail(answer.error());
    if (auto erased = coordinator.catalogue().erase_sequence(id); !erased) return call->fail(erased.error());
    call->reply(comm::MessageType::empty, wire::Empty{});
}

}  // namespace

void close_sequence(Coordinator& coordinator, const wire::SequenceRequest& request, const CallPtr& call) {
    if (auto ready = coordinator.require_lead(); !ready) return call->fail(ready.error());
    auto sequence = coordinator.catalogue().sequence(SequenceId{request.sequence()});
    if (!sequence) return call->fail(sequence.error());
    if (!sequence->confirmed) {
        return call->fail({Errc::not_found, fmt::format("sequence {} was never opened", sequence->id.value)});
    }

    wire::GridClose message;
    message.set_sequence(sequence->id.value);
    message.set_term(coordinator.lead().term());
    coordinator.lead().call(comm::MessageType::grid_close, comm::pack(message),
                            coordinator.lead_deadline(call->deadline()),
                            [&coordinator, id = sequence->id, call](const Result<comm::Frame>& answer) {
                                finish(coordinator, id, call, answer);
                            });
}

}  // namespace kvgrid::coordinator
