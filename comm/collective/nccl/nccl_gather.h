#pragma once

// For the .cpp files of the NCCL back end only.

#include <string>
#include <utility>

#include "comm/collective/meeting.h"
#include "comm/collective/nccl/nccl_communicator.h"
#include "comm/collective/nccl/nccl_world.h"

namespace kvgrid::comm {

class NcclGather final : public DeviceGather {
  public:
    NcclGather(std::unique_ptr<NcclCommunicator> communicator, const Meeting& meeting, const Collective& control)
        : communicator_(std::move(communicator)), meeting_(meeting), control_(control) {}

    Status queue(const std::byte* mine, std::byte* all, std::size_t bytes, int root, Stream stream,
                 Deadline deadline) override {
        if (is_broken_) return broken();
        if (Status met = meeting_.meet(deadline); !met) return ended(met);
        const ncclResult_t begun = communicator_->begin_gather(mine, all, bytes, root, stream);
        Status queued = communicator_->settled(begun, "the join", deadline, is_cancelled());
        if (queued) queued = meeting_.meet(deadline);
        return ended(std::move(queued));
    }
    Status wait(Stream stream, Deadline deadline) override {
        if (is_broken_) return broken();
        return ended(communicator_->wait(stream, deadline, is_cancelled()));
    }

  private:
    NcclCommunicator::IsCancelled is_cancelled() const {
        return [this] { return control_.is_cancelled(); };
    }
    static Status broken() { return {Errc::peer_lost, "the join was given up before: form a new generation"}; }
    Status ended(Status status) {
        if (status) return status;
        is_broken_ = true;
        communicator_->abort();  // frees the stream
        return status;
    }

    std::unique_ptr<NcclCommunicator> communicator_;
    const Meeting meeting_;
    const Collective& control_;
    bool is_broken_ = false;
};

}  // namespace kvgrid::comm
