#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "comm/wire/message_type.h"
#include "core/result.h"

namespace kvgrid::comm {

// Every frame, in both directions and on every connection, is
//
//   header (40 bytes, little-endian) | Protobuf message (message_bytes) | raw tensor payload (payload_bytes)
//
//   offset  0  u32  magic          "KVGR"
//           4  u16  version        kFrameVersion; another one is answered with an error and the connection is closed
//           6  u16  type           MessageType
//           8  u64  generation     of the membership that the sender believes in; 0 where it does not matter
//          16  u64  request        chosen by the caller, echoed in the reply; 0: no reply is wanted
//          24  u32  message_bytes  at most the type's limit
//          28  u32  timeout_ms     how long the caller will wait, counted from the frame's arrival; 0 in replies
//          32  u64  payload_bytes  at most the type's limit
//
// Magic, version and request stand at these offsets in every version, so that a refusal can name the request.
inline constexpr std::size_t kFrameHeaderBytes = 40;
inline constexpr std::uint32_t kFrameMagic = 0x5247564B;
inline constexpr std::uint16_t kFrameVersion = 1;

struct FrameHeader {
    MessageType type{};
    std::uint64_t generation = 0;
    std::uint64_t request = 0;
    std::uint32_t message_bytes = 0;
    std::uint32_t timeout_ms = 0;
    std::uint64_t payload_bytes = 0;
};

std::array<std::byte, kFrameHeaderBytes> encode(const FrameHeader& header);

// Refuses, before anyone allocates: another magic and lengths over the type's limits (corrupt), another version and an unknown type
// (unsupported).
Result<FrameHeader> decode(std::span<const std::byte, kFrameHeaderBytes> bytes);

// For senders: invalid_argument if the type does not exist or its limits are below these lengths.
Status check_lengths(MessageType type, std::uint64_t message_bytes, std::uint64_t payload_bytes);

// The request number of a header that decode() refused; 0 if it is no header at all.
std::uint64_t request_in(std::span<const std::byte, kFrameHeaderBytes> bytes);

// Immutable bytes with shared ownership: slices and copies of a Payload cost nothing.
class Payload {
  public:
    Payload() = default;
    Payload(std::shared_ptr<const void> owner, std::span<const std::byte> bytes)
        : owner_(std::move(owner)), bytes_(bytes) {}

    static Payload copy_of(std::span<const std::byte> bytes);
    static Payload own(std::vector<std::byte> bytes);

    std::span<const std::byte> bytes() const { return bytes_; }
    std::size_t size() const { return bytes_.size(); }
    Payload slice(std::size_t offset, std::size_t count) const { return {owner_, bytes_.subspan(offset, count)}; }

  private:
    std::shared_ptr<const void> owner_;
    std::span<const std::byte> bytes_;
};

// One frame without its wire form.
struct Frame {
    FrameHeader header;   // message_bytes and payload_bytes are set by whoever sends it
    std::string message;  // serialised Protobuf message of the type
    Payload payload;
};

}  // namespace kvgrid::comm
