#include "coordinator/requests/new_sequence.h"

#include <fmt/format.h>

#include "comm/wire/messages.h"
#include "coordinator/requests/wire_form.h"

namespace kvgrid::coordinator {

namespace {

void finish(Coordinator& coordinator, SequenceRecord record, const Made& made, const Result<comm::Frame>& answer) {
    Catalogue& catalogue = coordinator.catalogue();
    if (!answer) {
        // The client first: to it nothing has happened, whatever erasing takes.
        made(answer.error());
        if (!surely_refused(answer.error()) || !catalogue.erase_sequence(record.id))
            coordinator.abandon({&record.id, 1});
        return;
    }
    if (auto confirmed = catalogue.confirm_sequence(record.id); !confirmed) {
        made(confirmed.error());
        return coordinator.abandon({&record.id, 1});
    }
    record.confirmed = true;
    made(std::move(record));
}

}  // namespace

void make_in_grid(Coordinator& coordinator, NewSequence wanted, Deadline deadline, Made made) {
    coordinator.lead().call(wanted.type, std::move(wanted.message), coordinator.lead_deadline(deadline),
                            [&coordinator, record = std::move(wanted.reserved), made = std::move(made)](
                                const Result<comm::Frame>& answer) { finish(coordinator, record, made, answer); });
}

Made answer_with_sequence(const CallPtr& call) {
    return [call](const Result<SequenceRecord>& made) {
        if (!made) return call->fail(made.error());
        call->reply(comm::MessageType::sequence_reply, to_wire(*made));
    };
}

Result<SequenceRecord> fork_source(Coordinator& coordinator, SequenceId id) {
    if (auto ready = coordinator.require_ready(); !ready) return ready.error();
    if (auto room = coordinator.abandoned().has_room(); !room) return room.error();
    auto source = coordinator.catalogue().sequence(id);
    if (source && !source->confirmed) {
        return {Errc::not_found, fmt::format("sequence {} was never opened", source->id.value)};
    }
    return source;
}

NewSequence forked(const Coordinator& coordinator, SequenceRecord reserved, std::int64_t tokens) {
    wire::GridFork message;
    message.set_source(reserved.parent.value);
    message.set_target(reserved.id.value);
    message.set_term(coordinator.lead().term());
    message.set_tokens(tokens);
    return {std::move(reserved), comm::MessageType::grid_fork, comm::pack(message)};
}

}  // namespace kvgrid::coordinator
