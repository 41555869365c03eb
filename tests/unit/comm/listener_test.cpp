// A listener is closed by default: loopback only, a Unix socket for its owner only, and nothing is replaced that is in use or is no
// socket.

#include "comm/rpc/listener.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>

#include "tests/unit/comm/rpc_harness.h"

namespace kvgrid::comm {
namespace {

Endpoint at(const std::string& text) {
    return *parse_endpoint(text);
}

TEST(Listener, BindsAFreePortAndTellsWhich) {
    const auto listener = open_listener(at("127.0.0.1:0"), false);

    ASSERT_TRUE(listener.ok()) << listener.error().to_string();
    EXPECT_NE(listener->endpoint.port, 0);
    EXPECT_EQ(open_listener(listener->endpoint, false).error(), Errc::already_exists);
}

TEST(Listener, RefusesAnAddressThatOtherHostsCanReach) {
    for (const char* text : {"0.0.0.0:0", "[::]:0"}) {
        const auto refused = open_listener(at(text), false);
        ASSERT_FALSE(refused.ok());
        EXPECT_EQ(refused.error(), Errc::invalid_argument);
        EXPECT_NE(refused.error().message.find("127.0.0.1"), std::string::npos);
    }
    EXPECT_TRUE(open_listener(at("0.0.0.0:0"), /*allow_remote=*/true).ok());
}

TEST(Listener, AUnixSocketIsForItsOwnerOnlyAndGoesWithItsListener) {
    const TemporaryFolder folder;
    const std::string path = folder.path() + "/a.sock";
    {
        const auto listener = open_listener({.path = path}, false);
        ASSERT_TRUE(listener.ok()) << listener.error().to_string();
        struct stat found;
        ASSERT_EQ(::stat(path.c_str(), &found), 0);
        EXPECT_EQ(found.st_mode & 0777, 0600u);
    }
    EXPECT_FALSE(std::filesystem::exists(path));
}

TEST(Listener, AStaleSocketIsReplacedAndAnUsedOneIsNot) {
    const TemporaryFolder folder;
    const Endpoint endpoint{.path = folder.path() + "/a.sock"};
    leave_stale_socket(endpoint.path);

    const auto first = open_listener(endpoint, false);
    ASSERT_TRUE(first.ok()) << first.error().to_string();

    EXPECT_EQ(open_listener(endpoint, false).error(), Errc::already_exists);
    EXPECT_TRUE(std::filesystem::exists(endpoint.path));
}

TEST(Listener, AFileThatIsNoSocketIsLeftAlone) {
    const TemporaryFolder folder;
    const std::string path = folder.path() + "/notes.txt";
    std::ofstream(path) << "precious";

    EXPECT_EQ(open_listener({.path = path}, false).error(), Errc::invalid_argument);

    EXPECT_EQ(std::filesystem::file_size(path), 8u);
}

TEST(Listener, AFolderThatDoesNotExistIsSaidSo) {
    const auto listener = open_listener({.path = "/nonexistent/kvgrid/a.sock"}, false);

    EXPECT_EQ(listener.error(), Errc::unavailable);
    EXPECT_NE(listener.error().message.find("No such file"), std::string::npos);
}

}  // namespace
}  // namespace kvgrid::comm
