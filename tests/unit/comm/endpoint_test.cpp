// What parse_endpoint accepts comes back from to_string as it was written; what it refuses, it refuses with the form to write.

#include "comm/rpc/endpoint.h"

#include <gtest/gtest.h>

namespace kvgrid::comm {
namespace {

TEST(Endpoint, GoodFormsSurviveParsingAndPrinting) {
    for (const char* text : {"unix:/run/kvgrid/worker.sock", "unix:relative.sock", "127.0.0.1:7000", "localhost:0",
                             "gpu-node_7.example.org:65535", "[::1]:7000", "[fe80::1%eth0]:1"}) {
        const auto endpoint = parse_endpoint(text);
        ASSERT_TRUE(endpoint.ok()) << endpoint.error().to_string();
        EXPECT_EQ(endpoint->to_string(), text);
    }
}

TEST(Endpoint, PartsAreWhatTheTextSays) {
    const auto tcp = parse_endpoint("[::1]:7000");
    EXPECT_FALSE(tcp->is_unix());
    EXPECT_EQ(tcp->host, "::1");
    EXPECT_EQ(tcp->port, 7000);

    const auto local = parse_endpoint("unix:/a:1");
    EXPECT_TRUE(local->is_unix());
    EXPECT_EQ(local->path, "/a:1");
}

TEST(Endpoint, BadFormsAreRefusedWithTheFormToWrite) {
    const std::string too_long = "unix:/" + std::string(107, 'x');
    for (const std::string& text :
         {std::string(""), std::string("localhost"), std::string("localhost:"), std::string("localhost:x"),
          std::string("localhost:65536"), std::string("localhost:-1"), std::string("localhost:1 "),
          std::string(":7000"), std::string("::1:7000"), std::string("[]:7000"), std::string("[::1:7000"),
          std::string("a b:1"), std::string("a/b:1"), std::string("http://host:1"), std::string("unix:"),
          std::string("unix:a\0b", 8), too_long}) {
        const auto endpoint = parse_endpoint(text);
        ASSERT_FALSE(endpoint.ok()) << text;
        EXPECT_EQ(endpoint.error(), Errc::invalid_argument) << text;
        EXPECT_NE(endpoint.error().message.find("host:port"), std::string::npos);
    }
}

}  // namespace
}  // namespace kvgrid::comm
