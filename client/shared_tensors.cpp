#include "client/shared_tensors.h"

#include <algorithm>

#include "comm/wire/kvgrid.pb.h"
#include "comm/wire/messages.h"

namespace kvgrid {

namespace {

// Address space; memory is committed as it is touched.
constexpr std::size_t kRegionBytes = std::size_t{1} << 30;
constexpr std::size_t kAlignment = 256;

std::size_t aligned(std::size_t bytes) {
    return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

}  // namespace

SharedTensors::Block::~Block() {
    if (!given_up_) from_->give_back(offset_, aligned(bytes_.size()));
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
    const auto found = std::ranges::find_if(free_, [&](const auto& run) { return run.second >= aligned(bytes); });
    if (found == free_.end()) return nullptr;
    const auto [offset, available] = *found;
    free_.erase(found);
    if (available > aligned(bytes)) free_.emplace(offset + aligned(bytes), available - aligned(bytes));
    return std::make_shared<Block>(shared_from_this(), offset, region_->bytes().subspan(offset, bytes));
}

// Blocks of a connection that is gone stay theirs until they are given back.
bool SharedTensors::share(comm::Channel& channel, std::uint64_t generation, Deadline deadline) {
    if (!region_) {
        auto made = comm::SharedRegion::make(kRegionBytes);
        impossible_ = !made;
        if (!made) return false;
        region_ = *std::move(made);
        free_.emplace(0, kRegionBytes);
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
    auto next = free_.lower_bound(offset);
    if (next != free_.begin()) {
        const auto before = std::prev(next);
        if (before->first + before->second == offset) {
            offset = before->first;
            bytes += before->second;
            free_.erase(before);
        }
    }
    if (next != free_.end() && offset + bytes == next->first) {
        bytes += next->second;
        free_.erase(next);
    }
    free_.emplace(offset, bytes);
}

}  // namespace kvgrid
