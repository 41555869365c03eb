#include "coordinator/requests/close_in_grid.h"

#include "comm/wire/messages.h"

namespace kvgrid::coordinator {

void close_in_grid(Coordinator& coordinator, SequenceId id, Deadline deadline, std::function<void(Status)> closed) {
    wire::GridClose message;
    message.set_sequence(id.value);
    message.set_term(coordinator.lead().term());
    coordinator.lead().call(comm::MessageType::grid_close, comm::pack(message), coordinator.lead_deadline(deadline),
                            [&coordinator, id, closed = std::move(closed)](const Result<comm::Frame>& answer) {
                                if (!answer && !(answer.error() == Errc::not_found)) return closed(answer.error());
                                coordinator.prefixes().erase(id);
                                closed(coordinator.catalogue().erase_sequence(id));
                            });
}

}  // namespace kvgrid::coordinator
