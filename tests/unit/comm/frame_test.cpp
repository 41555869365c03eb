// A header survives encode and decode with every field, and decode refuses, before anything is allocated, each header that this
// process must not trust.

#include "comm/wire/frame.h"

#include <gtest/gtest.h>

#include <cstring>

namespace kvgrid::comm {
namespace {

using HeaderBytes = std::array<std::byte, kFrameHeaderBytes>;

FrameHeader full_header() {
    return {.type = MessageType::layer,
            .generation = 0x1122334455667788,
            .request = 0x99AABBCCDDEEFF01,
            .message_bytes = 40'000,
            .timeout_ms = 70'000,
            .payload_bytes = std::uint64_t{3} << 30};
}

template <class T>
HeaderBytes with(HeaderBytes bytes, std::size_t at, T value) {
    std::memcpy(bytes.data() + at, &value, sizeof value);
    return bytes;
}

TEST(Frame, EveryFieldSurvivesTheWire) {
    const FrameHeader sent = full_header();

    const auto got = decode(encode(sent));

    ASSERT_TRUE(got.ok()) << got.error().to_string();
    EXPECT_EQ(got->type, sent.type);
    EXPECT_EQ(got->generation, sent.generation);
    EXPECT_EQ(got->request, sent.request);
    EXPECT_EQ(got->message_bytes, sent.message_bytes);
    EXPECT_EQ(got->timeout_ms, sent.timeout_ms);
    EXPECT_EQ(got->payload_bytes, sent.payload_bytes);
}

TEST(Frame, TheLayoutIsTheOneThatTheProtocolStates) {
    const HeaderBytes bytes = encode({.type = MessageType{0x42},
                                      .generation = 1,
                                      .request = 2,
                                      .message_bytes = 3,
                                      .timeout_ms = 4,
                                      .payload_bytes = 5});

    const unsigned char expected[kFrameHeaderBytes] = {'K', 'V', 'G', 'R', 1, 0, 0x42, 0, 1, 0, 0, 0, 0, 0,
                                                       0,   0,   2,   0,   0, 0, 0,    0, 0, 0, 3, 0, 0, 0,
                                                       4,   0,   0,   0,   5, 0, 0,    0, 0, 0, 0, 0};
    EXPECT_EQ(std::memcmp(bytes.data(), expected, sizeof expected), 0);
}

TEST(Frame, AnotherMagicIsCorrupt) {
    EXPECT_EQ(decode(with(encode(full_header()), 0, std::uint32_t{0x12345678})).error(), Errc::corrupt);
}

TEST(Frame, AnotherVersionIsUnsupported) {
    EXPECT_EQ(decode(with(encode(full_header()), 4, std::uint16_t{2})).error(), Errc::unsupported);
}

TEST(Frame, AnUnknownTypeIsUnsupported) {
    for (const int type : {0, 3, 15, 36, 98, 0xFFFF}) {
        EXPECT_EQ(decode(with(encode(full_header()), 6, static_cast<std::uint16_t>(type))).error(), Errc::unsupported)
            << type;
    }
}

TEST(Frame, LengthsAreRefusedFromOneAboveTheTypesLimit) {
    for (int type = 0; type <= 0xFFFF; ++type) {
        const auto limits = limits_of(static_cast<std::uint16_t>(type));
        if (!limits) continue;
        FrameHeader header{.type = MessageType{static_cast<std::uint16_t>(type)},
                           .message_bytes = limits->message_bytes_max,
                           .payload_bytes = limits->payload_bytes_max};
        EXPECT_TRUE(decode(encode(header)).ok()) << limits->name;

        ++header.message_bytes;
        EXPECT_EQ(decode(encode(header)).error(), Errc::corrupt) << limits->name;
        --header.message_bytes;
        ++header.payload_bytes;
        EXPECT_EQ(decode(encode(header)).error(), Errc::corrupt) << limits->name;
    }
}

TEST(Frame, OnlyTypesWithTensorsMayHaveAPayload) {
    for (int type = 0; type <= 0xFFFF; ++type) {
        const auto limits = limits_of(static_cast<std::uint16_t>(type));
        if (!limits) continue;
        const auto named = MessageType{static_cast<std::uint16_t>(type)};
        const bool has_tensors = named == MessageType::layer || named == MessageType::layer_reply ||
                                 named == MessageType::read_kv_reply || named == MessageType::rewrite_kv ||
                                 named == MessageType::operation;
        EXPECT_EQ(limits->payload_bytes_max, has_tensors ? std::uint64_t{4} << 30 : 0) << limits->name;
    }
}

TEST(Frame, RepliesAreNoRequests) {
    for (const auto type :
         {MessageType::error, MessageType::empty, MessageType::layer_reply, MessageType{0}, MessageType{999}}) {
        EXPECT_FALSE(is_request(type)) << name_of(type);
    }
    for (const auto type : {MessageType::status, MessageType::layer, MessageType::link_hello, MessageType::operation}) {
        EXPECT_TRUE(is_request(type)) << name_of(type);
    }
}

TEST(Frame, ARefusalCanStillNameTheRequest) {
    const HeaderBytes other_version = with(encode(full_header()), 4, std::uint16_t{9});

    EXPECT_EQ(request_in(other_version), full_header().request);
    EXPECT_EQ(request_in(with(other_version, 0, std::uint32_t{0})), 0u);
}

TEST(Payload, SlicesShareTheBytesAndKeepThemAlive) {
    std::vector<std::byte> bytes(100);
    for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = std::byte(i);

    const Payload slice = Payload::own(std::move(bytes)).slice(10, 5);

    ASSERT_EQ(slice.size(), 5u);
    EXPECT_EQ(slice.bytes()[0], std::byte{10});
    EXPECT_EQ(slice.slice(4, 1).bytes()[0], std::byte{14});
}

}  // namespace
}  // namespace kvgrid::comm
