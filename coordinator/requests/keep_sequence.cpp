#include "comm/wire/messages.h"
#include "coordinator/requests/new_sequence.h"
#include "coordinator/requests/requests.h"
#include "coordinator/requests/wire_form.h"

namespace kvgrid::coordinator {

namespace {

void done(const CallPtr& call) {
    call->reply(comm::MessageType::empty, wire::Empty{});
}

}  // namespace

void keep_sequence(Coordinator& coordinator, const wire::KeepSequenceRequest& request, const CallPtr& call) {
    auto prefix = prefix_from_wire(request.prefix());
    if (!prefix) return call->fail(prefix.error());
    if (prefix->empty()) return call->fail({Errc::invalid_argument, "prefix names no page: a page has 64 tokens"});
    const auto source = fork_source(coordinator, SequenceId{request.sequence()});
    if (!source) return call->fail(source.error());
    auto model = coordinator.catalogue().model(source->model);
    if (!model) return call->fail(model.error());

    SequenceRecord wanted{.model = source->model, .tenant = source->tenant, .parent = source->id, .prefix = *prefix};
    KeptPrefixes& prefixes = coordinator.prefixes();
    if (!prefixes.keeps() || prefixes.covers(kept_prefix(wanted, model->spec))) return done(call);
    auto reserved = coordinator.catalogue().reserve_sequence(std::move(wanted));
    if (!reserved) return call->fail(reserved.error());
    make_in_grid(coordinator, forked(coordinator, *std::move(reserved), prefix_tokens(prefix->size())),
                 call->deadline(), [&coordinator, spec = model->spec, call](const Result<SequenceRecord>& made) {
                     if (!made) return call->fail(made.error());
                     done(call);
                     coordinator.abandon(coordinator.prefixes().add(kept_prefix(*made, spec)));
                 });
}

}  // namespace kvgrid::coordinator
