// Bytes that are no frame, or a frame of something else: the sender is told why and disconnected, or told why and served further where
// the frame as such was whole. Both servers, coordinator and lead, are tried with the same bytes.

#include <fmt/format.h>

#include <random>

#include "comm/wire/kvgrid.pb.h"
#include "comm/wire/messages.h"
#include "tests/e2e/bad_input/bad_input.h"

namespace kvgrid::e2e {
namespace {

using comm::FrameHeader;
using comm::MessageType;

class BadFrames : public BadInput {
  protected:
    template <class Try>
    void with_both_servers(Try attempt) {
        const Generation generation = client().status().value().generation;
        for (const std::string& endpoint : {cluster().endpoint(), lead_endpoint(client().status().value())}) {
            SCOPED_TRACE(endpoint);
            RawClient peer(endpoint, generation);
            attempt(peer);
        }
    }

    static std::string header_bytes(const FrameHeader& header) {
        const auto bytes = encode(header);
        return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
    }

    // These bytes are answered with this error, and then with the end of the connection.
    void expect_end(const std::string& bytes, Errc code, const std::string& why) {
        with_both_servers([&](RawClient& peer) {
            peer.peer().send(bytes);
            const auto answer = peer.answer();
            ASSERT_FALSE(answer);
            EXPECT_EQ(answer.error(), code) << answer.error().to_string();
            EXPECT_NE(answer.error().message.find(why), std::string::npos) << answer.error().to_string();
            EXPECT_TRUE(peer.peer().is_closed());
        });
    }
};

TEST_F(BadFrames, OfAnotherVersionAreRefused) {
    std::string bytes = header_bytes({.type = MessageType::status, .request = 7});
    bytes[4] = 2;
    expect_end(bytes, Errc::unsupported, "frame version 2; this process speaks version 1 only");
}

TEST_F(BadFrames, OfUnknownTypeAreRefused) {
    expect_end(header_bytes({.type = MessageType{999}, .request = 7}), Errc::unsupported,
               "message type 999 is unknown to this process");
    expect_end(header_bytes({.type = MessageType::layer_reply, .request = 7}), Errc::corrupt,
               "layer_reply is an answer, no request");
}

TEST_F(BadFrames, OversizedAreRefusedByTheirHeader) {
    expect_end(header_bytes({.type = MessageType::status, .request = 7, .message_bytes = ~0u}), Errc::corrupt,
               "status message of 4294967295 bytes; at most 65536");
    expect_end(header_bytes({.type = MessageType::layer, .request = 7, .payload_bytes = ~0ull}), Errc::corrupt,
               "layer payload of 18446744073709551615 bytes; at most 4294967296");
    expect_end(header_bytes({.type = MessageType::begin_step, .request = 7, .payload_bytes = 1}), Errc::corrupt,
               "begin_step payload of 1 bytes; at most 0");
}

TEST_F(BadFrames, ThatAreNoneAreRefused) {
    expect_end("GET / HTTP/1.1\r\nHost: example.org\r\n\r\n       ", Errc::corrupt, "no kvgrid frame");
    expect_end(std::string(1 << 20, '\xff'), Errc::corrupt, "no kvgrid frame");
}

TEST_F(BadFrames, ThatAreTruncatedHarmNobody) {
    const std::string whole = header_bytes({.type = MessageType::layer,
                                            .generation = client().status().value().generation.value,
                                            .request = 7,
                                            .message_bytes = 4,
                                            .payload_bytes = 1'000'000}) +
                              std::string(1'000, 'x');
    for (std::size_t bytes = 0; bytes <= whole.size(); bytes += 13) {
        with_both_servers([&](RawClient& peer) { peer.peer().send(whole.substr(0, bytes)); });  // and gone
    }
    EXPECT_TRUE(pages_come_back(std::chrono::seconds(2)));
}

bool asks_for_nothing_in_particular(MessageType type) {
    using enum MessageType;
    return type == status || type == list_models || type == list_sequences || type == occupancy || type == take_trace ||
           type == share_device_memory;  // of no memory: what was shared is not any more
}

// Every request type with bytes that are no message, and with none at all.
TEST_F(BadFrames, WithMessagesThatAreNoneAreRefusedAndTheConnectionServesOn) {
    with_both_servers([](RawClient& peer) {
        for (std::uint16_t number = 0; number < 256; ++number) {
            const MessageType type{number};
            if (!comm::is_request(type)) continue;
            for (const std::string& bytes :
                 {std::string("\xff\xff\xff"), std::string("\x0a\x05x"), std::string(50, '\x08')}) {
                const auto answer = peer.call(type, bytes);
                EXPECT_TRUE(answer || !(answer.error() == Errc::internal)) << answer.error().to_string();
                EXPECT_TRUE(!answer || asks_for_nothing_in_particular(type)) << comm::name_of(type);
            }
        }
    });
}

TEST_F(BadFrames, OfAnotherGenerationAreStale) {
    RawClient lead(lead_endpoint(client().status().value()), Generation{12'345});
    const Error error = lead.refusal(MessageType::occupancy, "");
    EXPECT_EQ(error, Errc::stale_generation);
    EXPECT_NE(error.message.find("ask the coordinator for the lead"), std::string::npos) << error.message;
}

// Else one frame would keep the coordinator from its own grid.
TEST_F(BadFrames, ThatInventACoordinatorsTermAreNotBelieved) {
    const ClusterStatus status = client().status().value();
    RawClient lead(lead_endpoint(status), status.generation);
    wire::GridInventoryRequest inventory;
    inventory.set_term(1'000'000);
    EXPECT_EQ(lead.refusal(MessageType::grid_inventory, comm::pack(inventory)), Errc::stale_generation);
    EXPECT_TRUE(client().open(model()).value().close());
}

// Valid frames with random bytes changed: whatever that makes of them, the servers answer or hang up, and nothing leaks.
TEST_F(BadFrames, WithRandomBytesChangedHarmNobody) {
    const std::uint64_t seed = std::random_device()();
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937_64 random(seed);
    const std::uint64_t generation = client().status().value().generation.value;
    for (int round = 0; round < 300; ++round) {
        const std::string message = begin_message(model().id, {{trunk().id(), 3}});
        std::string bytes = header_bytes({.type = MessageType::begin_step,
                                          .generation = generation,
                                          .request = 7,
                                          .message_bytes = static_cast<std::uint32_t>(message.size())}) +
                            message;
        for (std::uint64_t change = random() % 4; change > 0; --change)
            bytes[random() % bytes.size()] = static_cast<char>(random());
        RawClient lead(lead_endpoint(client().status().value()), Generation{generation});
        lead.peer().send(bytes);
    }
    EXPECT_TRUE(pages_come_back(std::chrono::seconds(5)));
}

}  // namespace
}  // namespace kvgrid::e2e
