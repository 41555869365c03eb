#include "coordinator/requests/new_sequence.h"

#include "coordinator/requests/wire_form.h"

namespace kvgrid::coordinator {

namespace {

void abandon(Coordinator& coordinator, SequenceId id) {
    coordinator.abandoned().add(id);
    coordinator.advance();
}

void finish(Coordinator& coordinator, SequenceRecord record, const CallPtr& call, const Result<comm::Frame>& answer) {
    Catalogue& catalogue = coordinator.catalogue();
    if (!answer) {
        // The client first: to it nothing has happened, whatever erasing takes.
        call->fail(answer.error());
        if (!surely_refused(answer.error()) || !catalogue.erase_sequence(record.id)) abandon(coordinator, record.id);
        return;
    }
    if (auto confirmed = catalogue.confirm_sequence(record.id); !confirmed) {
        call->fail(confirmed.error());
        abandon(coordinator, record.id);
        return;
    }
    call->reply(comm::MessageType::sequence_reply, to_wire(record));
}

}  // namespace

void make_in_grid(Coordinator& coordinator, NewSequence wanted, const CallPtr& call) {
    coordinator.lead().call(wanted.type, std::move(wanted.message), coordinator.lead_deadline(call->deadline()),
                            [&coordinator, record = std::move(wanted.reserved),
                             call](const Result<comm::Frame>& answer) { finish(coordinator, record, call, answer); });
}

}  // namespace kvgrid::coordinator
