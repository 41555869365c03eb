#pragma once

#include <google/protobuf/message_lite.h>

#include <memory>

#include "comm/rpc/server.h"

namespace kvgrid::coordinator {

// A request that waits for its answer. Whoever holds the last reference without having answered answers `internal`.
class Call {
  public:
    Call(comm::MessageType type, const comm::Request& request, comm::Responder responder)
        : type_(type), deadline_(request.deadline), connection_(request.connection), responder_(std::move(responder)) {}

    Deadline deadline() const { return deadline_; }
    comm::ConnectionId connection() const { return connection_; }
    void reply(comm::MessageType type, const google::protobuf::MessageLite& message);
    void fail(const Error& error);

  private:
    comm::MessageType type_;
    Deadline deadline_;
    comm::ConnectionId connection_;
    comm::Responder responder_;
};

using CallPtr = std::shared_ptr<Call>;

}  // namespace kvgrid::coordinator
