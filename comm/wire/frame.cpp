#include "comm/wire/frame.h"

#include <bit>
#include <cstring>

namespace kvgrid::comm {
namespace {

static_assert(std::endian::native == std::endian::little, "headers are copied as they lie in memory");

constexpr std::size_t kMagicAt = 0, kVersionAt = 4, kTypeAt = 6, kGenerationAt = 8, kRequestAt = 16;
constexpr std::size_t kMessageBytesAt = 24, kTimeoutAt = 28, kPayloadBytesAt = 32;

template <class T>
void put(std::array<std::byte, kFrameHeaderBytes>& bytes, std::size_t at, T value) {
    std::memcpy(bytes.data() + at, &value, sizeof value);
}

template <class T>
T get(std::span<const std::byte, kFrameHeaderBytes> bytes, std::size_t at) {
    T value;
    std::memcpy(&value, bytes.data() + at, sizeof value);
    return value;
}

}  // namespace

std::array<std::byte, kFrameHeaderBytes> encode(const FrameHeader& header) {
    std::array<std::byte, kFrameHeaderBytes> bytes{};
    put(bytes, kMagicAt, kFrameMagic);
    put(bytes, kVersionAt, kFrameVersion);
    put(bytes, kTypeAt, static_cast<std::uint16_t>(header.type));
    put(bytes, kGenerationAt, header.generation);
    put(bytes, kRequestAt, header.request);
    put(bytes, kMessageBytesAt, header.message_bytes);
    put(bytes, kTimeoutAt, header.timeout_ms);
    put(bytes, kPayloadBytesAt, header.payload_bytes);
    return bytes;
}

Result<FrameHeader> decode(std::span<const std::byte, kFrameHeaderBytes> bytes) {
    if (get<std::uint32_t>(bytes, kMagicAt) != kFrameMagic) {
        return {Errc::corrupt, "these bytes are no kvgrid frame: is the other side a kvgrid process?"};
    }
    if (const auto version = get<std::uint16_t>(bytes, kVersionAt); version != kFrameVersion) {
        return {Errc::unsupported, "frame version " + std::to_string(version) + "; this process speaks version " +
                                       std::to_string(kFrameVersion) + " only"};
    }
    const auto type = get<std::uint16_t>(bytes, kTypeAt);
    if (!limits_of(type)) {
        return {Errc::unsupported, "message type " + std::to_string(type) + " is unknown to this process"};
    }
    FrameHeader header;
    header.type = MessageType{type};
    header.generation = get<std::uint64_t>(bytes, kGenerationAt);
    header.request = get<std::uint64_t>(bytes, kRequestAt);
    header.message_bytes = get<std::uint32_t>(bytes, kMessageBytesAt);
    header.timeout_ms = get<std::uint32_t>(bytes, kTimeoutAt);
    header.payload_bytes = get<std::uint64_t>(bytes, kPayloadBytesAt);
    if (auto lengths = check_lengths(header.type, header.message_bytes, header.payload_bytes); !lengths.ok()) {
        return Error{Errc::corrupt, lengths.error().message};
    }
    return header;
}

Status check_lengths(MessageType type, std::uint64_t message_bytes, std::uint64_t payload_bytes) {
    const auto limits = limits_of(static_cast<std::uint16_t>(type));
    if (!limits) {
        return {Errc::invalid_argument, "no message type " + std::to_string(static_cast<std::uint16_t>(type))};
    }
    if (message_bytes > limits->message_bytes_max) {
        return {Errc::invalid_argument, std::string(limits->name) + " message of " + std::to_string(message_bytes) +
                                            " bytes; at most " + std::to_string(limits->message_bytes_max)};
    }
    if (payload_bytes > limits->payload_bytes_max) {
        return {Errc::invalid_argument, std::string(limits->name) + " payload of " + std::to_string(payload_bytes) +
                                            " bytes; at most " + std::to_string(limits->payload_bytes_max)};
    }
    return {};
}

std::uint64_t request_in(std::span<const std::byte, kFrameHeaderBytes> bytes) {
    return get<std::uint32_t>(bytes, kMagicAt) == kFrameMagic ? get<std::uint64_t>(bytes, kRequestAt) : 0;
}

Payload Payload::copy_of(std::span<const std::byte> bytes) {
    return own(std::vector<std::byte>(bytes.begin(), bytes.end()));
}

Payload Payload::own(std::vector<std::byte> bytes) {
    auto owner = std::make_shared<const std::vector<std::byte>>(std::move(bytes));
    const std::span<const std::byte> view(*owner);
    return {std::move(owner), view};
}

}  // namespace kvgrid::comm
