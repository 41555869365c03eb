// Messages and errors survive the wire; bytes that are no message, codes from a newer process, and texts that Protobuf would refuse do
// no harm.

#include "comm/wire/messages.h"

#include <gtest/gtest.h>

namespace kvgrid::comm {
namespace {

Error across_the_wire(const Error& error) {
    const auto reply = unpack<wire::ErrorReply>({{.type = MessageType::error}, pack(to_wire(error)), {}});
    EXPECT_TRUE(reply.ok());
    return reply.ok() ? from_wire(*reply) : reply.error();
}

TEST(Messages, AMessageSurvivesTheWire) {
    wire::BeginStepRequest sent;
    sent.set_model(7);
    sent.add_parts()->set_tokens(64);

    const auto got = unpack<wire::BeginStepRequest>({{.type = MessageType::begin_step}, pack(sent), {}});

    ASSERT_TRUE(got.ok());
    EXPECT_EQ(got->model(), 7u);
    EXPECT_EQ(got->parts(0).tokens(), 64);
}

TEST(Messages, BytesThatAreNoMessageAreCorrupt) {
    const auto got = unpack<wire::BeginStepRequest>({{.type = MessageType::begin_step}, "\xFF\xFF\xFF", {}});

    EXPECT_EQ(got.error(), Errc::corrupt);
    EXPECT_NE(got.error().message.find("begin_step"), std::string::npos);
}

TEST(Messages, EveryErrorCodeSurvivesTheWire) {
    for (int code = 1; code <= static_cast<int>(Errc::internal); ++code) {
        const Error got = across_the_wire({static_cast<Errc>(code), "because"});
        EXPECT_EQ(static_cast<int>(got.code), code);
        EXPECT_EQ(got.message, "because");
    }
}

TEST(Messages, ACodeFromANewerProcessBecomesInternal) {
    for (const std::uint32_t code : {0u, 14u, 0xFFFFFFFFu}) {
        wire::ErrorReply reply;
        reply.set_code(code);
        reply.set_message("new");
        EXPECT_EQ(from_wire(reply), Errc::internal);
        EXPECT_NE(from_wire(reply).message.find("new"), std::string::npos);
    }
}

TEST(Messages, AnErrorTextIsMadeFitForProtobuf) {
    EXPECT_EQ(across_the_wire({Errc::internal, "caf\xC3\xA9 \xE2\x82\xAC \xF0\x9F\x98\x80"}).message,
              "caf\xC3\xA9 \xE2\x82\xAC \xF0\x9F\x98\x80");
    EXPECT_EQ(across_the_wire({Errc::internal,
                               "a\xFF"
                               "b\xC3"})
                  .message,
              "a?b?");
    EXPECT_EQ(across_the_wire({Errc::internal, "\xC0\x80 \xED\xA0\x80 \xF4\x90\x80\x80"}).message, "?? ??? ????");
}

TEST(Messages, ALongErrorTextIsCutToFitTheFrame) {
    std::string text;
    for (int i = 0; i < 100'000; ++i) text += "\xE2\x82\xAC";

    const std::string packed = pack(to_wire({Errc::internal, text}));

    EXPECT_TRUE(check_lengths(MessageType::error, packed.size(), 0).ok());
    EXPECT_GT(across_the_wire({Errc::internal, text}).message.size(), 1'000u);
}

}  // namespace
}  // namespace kvgrid::comm
