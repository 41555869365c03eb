#include "client/shared_tensors.h"

#include "comm/wire/kvgrid.pb.h"
#include "comm/wire/messages.h"

namespace kvgrid {

using comm::SharedRegion;

namespace {

// Address space; memory is committed as it is touched.
constexpr std::size_t kRegionBytes = std::size_t{1} << 30;
}  // namespace

SharedTensors::Block::~Block() {
    if (!given_up_) from_->give_back(offset_, SharedRegion::aligned(bytes_.size()));
}

std::shared_ptr<SharedTensors> SharedTensors::make(comm::Channel& channel) {
    auto made = std::make_shared<SharedTensors>();
    made->impossible_ = !channel.endpoint().is_unix();
    channel.on_disconnect([held = std::weak_ptr(made)] {
        if (const auto tensors = held.lock()) ++tensors->disconnects_;
    });
    return made;
}

std::shared_ptr<SharedTensors::Block> SharedTensors::take(comm::Channel& channel, std::uint64_t generation,
                                                          std::size_t bytes, Deadline deadline) {
    const std::lock_guard lock(mutex_);
    if (bytes == 0 || impossible_) return nullptr;
    if (shared_on_ != disconnects_ && !share(channel, generation, deadline)) return nullptr;
    const auto offset = free_.take(SharedRegion::aligned(bytes));
    if (!offset) return nullptr;
    return std::make_shared<Block>(shared_from_this(), *offset, region_->bytes().subspan(*offset, bytes));
}

// Blocks of a connection that is gone stay theirs until they are given back.
bool SharedTensors::share(comm::Channel& channel, std::uint64_t generation, Deadline deadline) {
    if (!region_) {
        auto made = SharedRegion::make(kRegionBytes);
        impossible_ = !made;
        if (!made) return false;
        region_ = *std::move(made);
        free_.give_back(0, kRegionBytes);
    }
    wire::ShareMemoryRequest request;
    request.set_file(region_->file());
    request.set_bytes(region_->bytes().size());
    const int connection = disconnects_;
    const auto reply = channel.call(comm::MessageType::share_memory, generation, comm::pack(request), {}, deadline);
    if (reply) {
        shared_on_ = connection;
        return true;
    }
    // An answer that it cannot be is good for ever; that nobody answers is not.
    impossible_ = reply.error() == Errc::unsupported || reply.error() == Errc::invalid_argument;
    return false;
}

void SharedTensors::give_back(std::size_t offset, std::size_t bytes) {
    const std::lock_guard lock(mutex_);
    free_.give_back(offset, bytes);
}

}  // namespace kvgrid
