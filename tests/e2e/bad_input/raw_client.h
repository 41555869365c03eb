#pragma once

#include <string>

#include "client/kvgrid.h"
#include "comm/wire/messages.h"
#include "tests/unit/comm/rpc_harness.h"

namespace kvgrid::e2e {

// A client of the wire protocol that checks nothing of what it sends: what the C++ client would refuse reaches the server.
class RawClient {
  public:
    RawClient(const std::string& endpoint, Generation generation);

    void send(comm::MessageType type, const std::string& message, std::string_view payload = {});
    // Sends, and takes the next answer, which must be to this request.
    Result<comm::Frame> call(comm::MessageType type, const std::string& message, std::string_view payload = {});
    Result<comm::Frame> answer();

    // unavailable if the server accepted: the Errc of its refusal otherwise.
    Error refusal(comm::MessageType type, const std::string& message, std::string_view payload = {});

    comm::RawPeer& peer() { return peer_; }

  private:
    comm::RawPeer peer_;
    const Generation generation_;
    std::uint64_t last_request_ = 0;
};

// The lead's endpoint, as the coordinator names it.
std::string lead_endpoint(const ClusterStatus& status);

std::string begin_message(ModelId model, const std::vector<std::pair<SequenceId, int>>& parts);
std::string layer_message(StepId step, int layer);
std::string step_message(StepId step);
std::string sequence_message(SequenceId sequence);

}  // namespace kvgrid::e2e
