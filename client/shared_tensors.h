#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <span>

#include "comm/rpc/channel.h"
#include "comm/rpc/shared_region.h"
#include "core/free_ranges.h"

namespace kvgrid {

// Memory that a client shares with a lead on its own host, and the blocks of it that layer calls hold: their tensors go there, and come back
// there, instead of through the socket. Where it cannot be shared, or has no room, calls use the socket.
//
//   Threads  any.
class SharedTensors : public std::enable_shared_from_this<SharedTensors> {
  public:
    // A call's part, given back with it. One whose call was given up may still be written by the lead: it is never used again.
    class Block {
      public:
        Block(std::shared_ptr<SharedTensors> from, std::size_t offset, std::span<std::byte> bytes)
            : from_(std::move(from)), offset_(offset), bytes_(bytes) {}
        ~Block();
        Block(const Block&) = delete;
        Block& operator=(const Block&) = delete;

        std::size_t offset() const { return offset_; }
        std::span<std::byte> bytes() const { return bytes_; }
        void give_up() { given_up_ = true; }

      private:
        const std::shared_ptr<SharedTensors> from_;
        const std::size_t offset_;
        const std::span<std::byte> bytes_;
        bool given_up_ = false;
    };

    // Nothing is shared before the first block is wanted.
    static std::shared_ptr<SharedTensors> make(comm::Channel& channel);

    // Null: use the socket.
    std::shared_ptr<Block> take(comm::Channel& channel, std::uint64_t generation, std::size_t bytes, Deadline deadline);

  private:
    bool share(comm::Channel& channel, std::uint64_t generation, Deadline deadline);
    void give_back(std::size_t offset, std::size_t bytes);

    std::mutex mutex_;
    bool impossible_ = false;
    int shared_on_ =
        -1;  // the connection, counted by its predecessors' ends; another one's lead knows nothing of the region
    std::shared_ptr<comm::SharedRegion> region_;
    FreeRanges free_;                   // of its bytes
    std::atomic<int> disconnects_ = 0;  // told on the I/O thread, which must not wait for a call
};

}  // namespace kvgrid
