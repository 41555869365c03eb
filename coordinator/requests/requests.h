#pragma once

#include "comm/wire/kvgrid.pb.h"
#include "coordinator/call.h"
#include "coordinator/coordinator.h"
#include "core/result.h"

// One function for each request, one file for each function.
//
//   Those that return a Result are done when they return. The others answer the call when the lead has answered; they
//   block nobody. Whatever needs the grid is `unavailable` while it is not ready.
namespace kvgrid::coordinator {

// From clients.
Result<wire::StatusReply> status(Coordinator& coordinator, const wire::StatusRequest& request);
Result<wire::ListModelsReply> list_models(Coordinator& coordinator, const wire::Empty& request);
Result<wire::ListSequencesReply> list_sequences(Coordinator& coordinator, const wire::ListSequencesRequest& request);

// Registering what is registered already, with an equal spec and shape, answers what there is.
void register_model(Coordinator& coordinator, const wire::RegisterModelRequest& request, const CallPtr& call);
void open_sequence(Coordinator& coordinator, const wire::OpenSequenceRequest& request, const CallPtr& call);
void fork_sequence(Coordinator& coordinator, const wire::SequenceRequest& request, const CallPtr& call);
void close_sequence(Coordinator& coordinator, const wire::SequenceRequest& request, const CallPtr& call);
// Keeps a fork of the sequence's first pages. It ends with the coordinator's bounds, `give_up_prefix` and its generation.
void keep_sequence(Coordinator& coordinator, const wire::KeepSequenceRequest& request, const CallPtr& call);
// Closes the model's least recently used kept sequence, of those that share no pages if there are any, and answers when its pages are free. `not_found`:
// none is kept.
void give_up_prefix(Coordinator& coordinator, const wire::GiveUpPrefixRequest& request, const CallPtr& call);

// From workers, over a connection whose end says that the worker may be dead. The same incarnation gets the same id.
Result<wire::RegisterWorkerReply> register_worker(Coordinator& coordinator, const wire::RegisterWorkerRequest& request,
                                                  comm::ConnectionId connection);
Result<wire::HeartbeatReply> heartbeat(Coordinator& coordinator, const wire::HeartbeatRequest& request,
                                       comm::ConnectionId connection);

}  // namespace kvgrid::coordinator
