#include <fmt/format.h>

#include "comm/wire/messages.h"
#include "coordinator/requests/close_in_grid.h"
#include "coordinator/requests/requests.h"
#include "coordinator/requests/wire_form.h"

namespace kvgrid::coordinator {

namespace {

// So that an opening that is tried again is not refused for what the last heartbeats said.
void learn_pages(Coordinator& coordinator, const comm::Frame& answer) {
    const auto occupancy = comm::unpack<wire::OccupancyReply>(answer);
    if (!occupancy) return;
    for (const wire::WorkerOccupancy& worker : occupancy->workers()) {
        std::vector<PoolOccupancy> pools;
        for (const wire::Occupancy& pool : worker.models()) pools.push_back(from_wire(pool));
        coordinator.membership().learn(WorkerId{worker.worker()}, std::move(pools));
    }
}

void count_pages(Coordinator& coordinator, const CallPtr& call) {
    coordinator.lead().call(comm::MessageType::occupancy, comm::pack(wire::Empty{}),
                            coordinator.lead_deadline(call->deadline()),
                            [&coordinator, call](const Result<comm::Frame>& answer) {
                                if (!answer) return call->fail(answer.error());
                                learn_pages(coordinator, *answer);
                                call->reply(comm::MessageType::empty, wire::Empty{});
                            });
}

}  // namespace

void give_up_prefix(Coordinator& coordinator, const wire::GiveUpPrefixRequest& request, const CallPtr& call) {
    if (auto ready = coordinator.require_lead(); !ready) return call->fail(ready.error());
    const ModelId model{request.model()};
    const auto unshared = coordinator.catalogue().unshared_kept(model);
    if (!unshared) return call->fail(unshared.error());
    const auto id = coordinator.prefixes().give_up(model, [&](SequenceId kept) { return unshared->contains(kept); });
    if (!id) return call->fail({Errc::not_found, fmt::format("no prefix is kept of model {}", model.value)});
    close_in_grid(coordinator, *id, call->deadline(), [&coordinator, id = *id, call](const Status& closed) {
        if (closed) return count_pages(coordinator, call);
        call->fail(closed.error());
        coordinator.abandon({&id, 1});
    });
}

}  // namespace kvgrid::coordinator
