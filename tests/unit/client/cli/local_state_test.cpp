// A cluster on this host is found again by its state directory, whoever is dead or alive; a directory that is not kvgrid's is left alone.
#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>

#include "client/cli/find_cluster.h"
#include "client/cli/local/state_directory.h"
#include "client/cli/local/temporary_directory.h"

namespace kvgrid::cli {
namespace {

namespace fs = std::filesystem;

class LocalState : public testing::Test {
  protected:
    const TemporaryDirectory directory = TemporaryDirectory::make().value();
    const fs::path state = directory.path() / "state";
    const LocalClusterRecord record{.keeper = 77,
                                    .ready = true,
                                    .endpoint = "unix:/tmp/kvgrid-x/coordinator.sock",
                                    .listen = {"127.0.0.1:7070"},
                                    .mark = "/tmp/kvgrid-x",
                                    .workers = 3,
                                    .memory_bytes_per_worker = 1 << 20,
                                    .started_at = 1'800'000'000,
                                    .version = "1.2.3"};
};

TEST_F(LocalState, ARecordIsReadAsItWasWritten) {
    const auto read = parse_local_cluster_record(to_json(record)).value();

    EXPECT_EQ(to_json(read), to_json(record));
    EXPECT_EQ(read.endpoint, record.endpoint);
    EXPECT_EQ(read.workers, 3);
}

TEST_F(LocalState, ARecordOfAnotherFormatIsCorrupt) {
    for (const char* text :
         {"", "[]", "{}", "{\"format\": 3}", R"({"format": "kvgrid.local_cluster", "format_version": 2})",
          R"({"format": "kvgrid.local_cluster", "format_version": 1, "keeper": "x"})"})
        EXPECT_EQ(parse_local_cluster_record(text).error(), Errc::corrupt) << text;
}

TEST_F(LocalState, AClusterIsRunningWhileItsLockIsHeldAndAbandonedAfterwards) {
    ASSERT_TRUE(prepare_state_dir(state));
    EXPECT_FALSE(running_local_cluster(state));
    {
        StateLock lock = StateLock::take(state).value();
        ASSERT_TRUE(lock.write(record));
        EXPECT_EQ(running_local_cluster(state).value().endpoint, record.endpoint);
        EXPECT_FALSE(abandoned_local_cluster(state));
        EXPECT_EQ(StateLock::take(state).error(), Errc::busy);
    }
    EXPECT_FALSE(running_local_cluster(state));
    EXPECT_EQ(abandoned_local_cluster(state).value().mark, record.mark);
    StateLock::take(state).value().erase();
    EXPECT_FALSE(abandoned_local_cluster(state));
}

TEST_F(LocalState, ADirectoryIsMadeForThisUserAndTakenAgain) {
    ASSERT_TRUE(prepare_state_dir(state));
    EXPECT_EQ(fs::status(state).permissions(), fs::perms::owner_all);
    EXPECT_TRUE(prepare_state_dir(state));
    EXPECT_TRUE(is_state_dir(state));
}

TEST_F(LocalState, ADirectoryOfSomethingElseIsRefusedWithTheRemedy) {
    fs::create_directories(state);
    std::ofstream(state / "thesis.tex") << "years of work";
    std::ofstream(directory.path() / "file") << "text";
    fs::create_directories(directory.path() / "old");
    std::ofstream(directory.path() / "old/kvgrid-local-cluster") << "kvgrid local cluster, layout 0\n";

    for (const fs::path& wrong : {state, directory.path() / "file", directory.path() / "old"}) {
        const Status refused = prepare_state_dir(wrong);
        ASSERT_FALSE(refused) << wrong;
        EXPECT_NE(refused.error().message.find("--state-dir"), std::string::npos) << refused.error().message;
    }
    EXPECT_TRUE(fs::exists(state / "thesis.tex"));
    EXPECT_FALSE(is_state_dir(state));
}

TEST(FindCluster, WhatWasSaidWinsOverTheLocalClusterAndThatOverWhatIsBuiltIn) {
    const SettingValue built_in{"127.0.0.1:7070", Origin::built_in, ""};
    const SettingValue said{"host:1", Origin::environment, "KVGRID_COORDINATOR"};

    EXPECT_EQ(choose_cluster(said, "unix:/local", "default").endpoint, "host:1");
    EXPECT_EQ(choose_cluster(said, "unix:/local", "default").how, "environment KVGRID_COORDINATOR");
    EXPECT_EQ(choose_cluster(built_in, "unix:/local", "default").endpoint, "unix:/local");
    EXPECT_EQ(choose_cluster(built_in, std::nullopt, "default").endpoint, "127.0.0.1:7070");
}

}  // namespace
}  // namespace kvgrid::cli
