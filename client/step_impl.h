#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <vector>

#include "client/client_impl.h"

namespace kvgrid {

struct Step::Impl {
    enum class State { open, committed, aborted, lost };

    ~Impl();  // aborts, if it is open

    // wrong_state unless the step is open.
    std::optional<Error> refusal() const;
    // To the step's lead; the step is lost where that lead's generation is over.
    Result<comm::Frame> call(const ClientRequest& request, Deadline deadline);
    // Sends commit_step or abort_step and moves to `success` if that is answered.
    Status finish(comm::MessageType type, State success, Deadline deadline);

    std::shared_ptr<Client::Impl> client;
    Lead lead;  // a step is known to the lead of its generation only
    StepId id;
    std::shared_ptr<const ModelSpec> spec;
    StepKind kind = StepKind::attend;
    int tokens = 0;
    std::vector<std::int64_t> lengths;
    std::atomic<State> state{State::open};
};

}  // namespace kvgrid
