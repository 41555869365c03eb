#pragma once

#include <chrono>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "client/shared_tensors.h"
#include "comm/rpc/channel.h"
#include "comm/rpc/io_thread.h"
#include "comm/wire/messages.h"
#include "core/clock.h"
#include "core/ids.h"
#include "core/result.h"

namespace kvgrid {

// The worker that takes data requests in one generation. Steps keep theirs; everything else asks for the present one.
struct Lead {
    std::shared_ptr<comm::Channel> channel;
    Generation generation;
    WorkerId worker;
    std::shared_ptr<SharedTensors> tensors;  // that layer calls to it may use
    std::string name;                        // "worker 3 (rank 0, pid 77 on host x)": what an error says is gone
};

enum class Repeat {
    never,    // sent once
    if_lost,  // reads: sent again, with back-off until the deadline, where the connection broke or the membership
              // changed
};

struct ClientRequest {
    comm::MessageType type;
    comm::MessageType reply;  // another type in the answer is `corrupt`
    std::string message;
    Repeat repeat = Repeat::never;
    comm::Payload payload = {};
};

// A client's two connections: one to the coordinator, and one to the lead that the coordinator's last status named. Any
// thread.
class ClusterLink {
  public:
    explicit ClusterLink(comm::Endpoint coordinator);

    Result<comm::Frame> call_coordinator(const ClientRequest& request, Deadline deadline);
    Result<wire::StatusReply> status(Deadline deadline);

    // The present lead; asks the coordinator, until it is ready or the deadline, where none is known.
    Result<Lead> lead(Deadline deadline);
    Result<comm::Frame> call_lead(const ClientRequest& request, Deadline deadline);

    // To this lead only. A call that takes long is watched, since a lead that was lost may never answer: it ends with
    // `peer_lost` when the coordinator finds the lead dead, and with `stale_generation` when it has formed another
    // generation meanwhile.
    Result<comm::Frame> call_lead(const Lead& lead, const ClientRequest& request, Deadline deadline);

  private:
    std::string coordinator_name() const { return coordinator_.endpoint().to_string(); }
    std::optional<Lead> known_lead();
    Result<Lead> take_up(const wire::StatusReply& status);
    std::optional<Error> replaced(const Lead& lead);
    void forget(const Lead& lead);

    comm::IoThread io_;
    comm::Channel coordinator_;
    std::mutex mutex_;
    std::optional<Lead> lead_;
};

// A reply's message, of the type that belongs to the request.
template <class M>
Result<M> unpacked(const Result<comm::Frame>& reply) {
    if (!reply) return reply.error();
    return comm::unpack<M>(*reply);
}

// `corrupt` where the reply is of another type than the request's.
Result<comm::Frame> checked_type(Result<comm::Frame> reply, comm::MessageType expected);

inline Status status_of(const Result<comm::Frame>& reply) {
    if (!reply) return reply.error();
    return {};
}

}  // namespace kvgrid
