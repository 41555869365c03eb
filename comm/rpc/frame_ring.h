#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>

#include "comm/rpc/shared_region.h"
#include "comm/wire/frame.h"
#include "core/result.h"

namespace kvgrid::comm {

// Short frames without a payload between the two processes of a connection, through memory that they share: some 100 ns each, where a socket
// takes two system calls. Beside the socket, not in its place: a receiver that sleeps is woken by that.
//
//   A receiver says in that memory whether it is `looking`. One that is not gets its frames through the socket; one that ceases to
//   look does so first, and then looks once more. So a frame is either seen, or its sender sees that it may not be.
//
//   Trust    the other side may write to the memory at any time: a frame is copied before it is checked.
//   Threads  one at a time for each direction.
class FrameRing {
  public:
    static constexpr std::size_t kFrameBytesMax = 1 << 10;  // with its header
    static constexpr std::size_t kFrames = 16;              // on their way in one direction

    enum class Side { client, server };

    static std::size_t bytes();
    FrameRing(std::shared_ptr<SharedRegion> region, Side side);  // of `bytes` at least, zeroes at first

    // no: it is too long, or there is no room, or nobody looks. unseen: the receiver may have ceased to look, and must be told to look.
    enum class Sent { no, seen, unseen };
    Sent send(FrameHeader header, std::string_view message);

    // The next frame, if there is one. After an error (as `decode`'s) nothing more can be read.
    std::optional<Result<Frame>> receive();
    bool holds_frame() const;
    void set_looking(bool looking);

  private:
    struct Direction;
    struct Memory;

    const std::shared_ptr<SharedRegion> region_;
    Direction& to_peer_;
    Direction& from_peer_;
    std::uint64_t sent_ = 0, received_ = 0;  // ours; those in the memory are what the other side is told
};

}  // namespace kvgrid::comm
