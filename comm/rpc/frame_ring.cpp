#include "comm/rpc/frame_ring.h"

#include <array>
#include <atomic>
#include <cstring>
#include <utility>

namespace kvgrid::comm {

namespace {

constexpr std::size_t kLine = 64;  // bytes that two processors would fetch from one another together

}  // namespace

struct FrameRing::Direction {
    alignas(kLine) std::atomic<std::uint64_t> sent;
    alignas(kLine) std::atomic<std::uint64_t> received;
    alignas(kLine) std::atomic<std::uint32_t> looking;
    alignas(kLine) std::array<std::array<std::byte, kFrameBytesMax>, kFrames> frames;

    std::byte* frame(std::uint64_t number) { return frames[number % kFrames].data(); }
};

struct FrameRing::Memory {
    Direction to_server, to_client;

    static Memory& in(SharedRegion& region) { return *reinterpret_cast<Memory*>(region.bytes().data()); }
};

std::size_t FrameRing::bytes() {
    static_assert(std::atomic<std::uint64_t>::is_always_lock_free && std::atomic<std::uint32_t>::is_always_lock_free);
    return sizeof(Memory);
}

FrameRing::FrameRing(std::shared_ptr<SharedRegion> region, Side side)
    : region_(std::move(region)),
      to_peer_(side == Side::client ? Memory::in(*region_).to_server : Memory::in(*region_).to_client),
      from_peer_(side == Side::client ? Memory::in(*region_).to_client : Memory::in(*region_).to_server) {
    if (region_->bytes().size() < bytes()) fatal("a ring does not fit into its memory");
}

// The order of `sent` and `looking`, of both sides, is what the class promises: sequentially consistent.
FrameRing::Sent FrameRing::send(FrameHeader header, std::string_view message) {
    if (kFrameHeaderBytes + message.size() > kFrameBytesMax) return Sent::no;
    if (sent_ - to_peer_.received.load() >= kFrames || to_peer_.looking.load() == 0) return Sent::no;
    header.message_bytes = static_cast<std::uint32_t>(message.size());
    header.payload_bytes = 0;
    const auto encoded = encode(header);
    std::byte* const frame = to_peer_.frame(sent_);
    std::memcpy(frame, encoded.data(), encoded.size());
    std::memcpy(frame + encoded.size(), message.data(), message.size());
    to_peer_.sent.store(++sent_);
    return to_peer_.looking.load() == 0 ? Sent::unseen : Sent::seen;
}

bool FrameRing::holds_frame() const {
    return from_peer_.sent.load() != received_;
}

std::optional<Result<Frame>> FrameRing::receive() {
    if (!holds_frame()) return std::nullopt;
    const std::byte* const frame = from_peer_.frame(received_);
    std::array<std::byte, kFrameHeaderBytes> encoded;
    std::memcpy(encoded.data(), frame, encoded.size());
    const auto header = decode(encoded);
    if (!header) return header.error();
    if (header->message_bytes > kFrameBytesMax - kFrameHeaderBytes || header->payload_bytes > 0) {
        return Error{Errc::corrupt, "a frame in shared memory is longer than its place"};
    }
    Frame received{*header, std::string(header->message_bytes, '\0'), {}};
    std::memcpy(received.message.data(), frame + kFrameHeaderBytes, received.message.size());
    from_peer_.received.store(++received_);
    return received;
}

void FrameRing::set_looking(bool looking) {
    from_peer_.looking.store(looking ? 1 : 0);
}

}  // namespace kvgrid::comm
