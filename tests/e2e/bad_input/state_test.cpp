// The coordinator's disk is full, or its state directory is another version's. A refused open leaves no sequence anywhere, what only
// reads is served on, and once there is room all is as before.

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sqlite3.h>
#include <sys/resource.h>

#include <fstream>

#include "client/cli/local/process_scan.h"
#include "client/cli/local/text_file.h"
#include "tests/e2e/bad_input/bad_input.h"

namespace kvgrid::e2e {
namespace {

using namespace std::chrono_literals;

// The kernel gives 15 bytes of a program's name.
pid_t coordinator_of(const cli::LocalCluster& cluster) {
    for (const pid_t each : cli::processes_naming(cluster.mark())) {
        std::ifstream name(fmt::format("/proc/{}/comm", each));
        std::string text;
        if (std::getline(name, text) && text == "kvgrid-coordina") return each;
    }
    return 0;
}

// A disk without room, for one process: no file of it may grow beyond this. Taken back with the object.
class NoRoomOnDisk {
  public:
    explicit NoRoomOnDisk(pid_t process) : process_(process) {
        const rlimit none{.rlim_cur = 1, .rlim_max = RLIM_INFINITY};
        EXPECT_EQ(prlimit(process_, RLIMIT_FSIZE, &none, nullptr), 0);
    }
    ~NoRoomOnDisk() {
        const rlimit all{.rlim_cur = RLIM_INFINITY, .rlim_max = RLIM_INFINITY};
        EXPECT_EQ(prlimit(process_, RLIMIT_FSIZE, &all, nullptr), 0);
    }
    NoRoomOnDisk(const NoRoomOnDisk&) = delete;
    NoRoomOnDisk& operator=(const NoRoomOnDisk&) = delete;

  private:
    const pid_t process_;
};

template <class T>
void expect_disk_trouble(const Result<T>& result) {
    ASSERT_FALSE(result);
    EXPECT_EQ(result.error(), Errc::unavailable) << result.error().to_string();
    EXPECT_NE(result.error().message.find("catalogue.sqlite"), std::string::npos) << result.error().to_string();
    EXPECT_NE(result.error().message.find("disk"), std::string::npos) << result.error().to_string();
}

TEST_F(BadInput, AFullDiskRefusesWhatMustBeKeptAndNothingElse) {
    Sequence branch = trunk().fork().value();
    const std::string pages = pages_of(client());
    {
        const NoRoomOnDisk full(coordinator_of(cluster()));
        ModelSpec other = bad_input_spec();
        other.name = "other";
        for (int i = 0; i < 3; ++i) {
            expect_disk_trouble(client().open(model()));
            expect_disk_trouble(trunk().fork());
            expect_disk_trouble(client().register_model(other, {.grid = {1, 2}, .pool_bytes_per_worker = 1 << 20}));
        }
        EXPECT_EQ(pages_of(client()), pages);
        EXPECT_EQ(client().sequences().value().size(), 2u);
        EXPECT_EQ(client().models().value().size(), 1u);
        EXPECT_TRUE(client().status().value().ready);
        run_step(client(), spec(), branch, 3, 7, /*commit=*/true);  // steps need no catalogue
    }
    Sequence again = client().open(model()).value();
    again.close().value();
    branch.close().value();
    EXPECT_EQ(client().sequences().value().size(), 1u);
}

// The sequence is gone from the grid, and its row is not: closing it again ends that.
TEST_F(BadInput, ACloseOnAFullDiskGivesThePagesBackAndCanBeRepeated) {
    const SequenceId branch = trunk().fork().value().release();
    {
        const NoRoomOnDisk full(coordinator_of(cluster()));
        expect_disk_trouble(client().close(branch));
        EXPECT_TRUE(pages_come_back(2s));
    }
    EXPECT_TRUE(client().close(branch));
    EXPECT_EQ(client().sequences().value().size(), 1u);
}

void set_schema_version(const std::filesystem::path& catalogue, int version) {
    sqlite3* database = nullptr;
    ASSERT_EQ(sqlite3_open(catalogue.c_str(), &database), SQLITE_OK);
    const std::string sql = fmt::format("PRAGMA user_version={}", version);
    EXPECT_EQ(sqlite3_exec(database, sql.c_str(), nullptr, nullptr, nullptr), SQLITE_OK);
    sqlite3_close(database);
}

// Starts the program on a state directory; it must end by itself. Returns how it ended and what it said.
std::string start_on(const std::filesystem::path& state) {
    const auto log = state.parent_path() / "coordinator.log";
    auto child = cli::ChildProcess::start({.arguments = {program("kvgrid-coordinator"), "--state-dir", state,
                                                         "--workers", "1", "--listen", "127.0.0.1:0"},
                                           .environment = {},
                                           .log = log})
                     .value();
    if (!child.wait_until(deadline_in(30s))) return "it runs";
    return child.how_it_ended() + ": " + cli::last_lines(log, 5);
}

std::vector<char> bytes_of(const std::filesystem::path& file) {
    std::ifstream stream(file, std::ios::binary);
    return {std::istreambuf_iterator<char>(stream), {}};
}

TEST(StateDirectory, OfAnotherVersionIsLeftAloneWithExitCodeOne) {
    const auto directory = cli::TemporaryDirectory::make().value();
    const auto state = directory.path() / "state";
    std::filesystem::create_directory(state);
    for (const int version : {1, 999, -1}) {
        set_schema_version(state / "catalogue.sqlite", version);
        const std::vector<char> before = bytes_of(state / "catalogue.sqlite");

        const std::string ended = start_on(state);

        EXPECT_NE(ended.find("exit status 1"), std::string::npos) << ended;
        EXPECT_NE(
            ended.find(fmt::format("has schema version {}, and this coordinator reads version 2: start the one that "
                                   "wrote it, or name another state directory",
                                   version)),
            std::string::npos)
            << ended;
        EXPECT_EQ(bytes_of(state / "catalogue.sqlite"), before);
    }
}

TEST(StateDirectory, ThatIsNoDatabaseIsLeftAloneWithExitCodeOne) {
    const auto directory = cli::TemporaryDirectory::make().value();
    const auto state = directory.path() / "state";
    std::filesystem::create_directory(state);
    std::ofstream(state / "catalogue.sqlite") << std::string(10'000, 'x');

    const std::string ended = start_on(state);

    EXPECT_NE(ended.find("exit status 1"), std::string::npos) << ended;
    EXPECT_NE(ended.find("this is not a SQLite database: name another state directory"), std::string::npos) << ended;
    EXPECT_EQ(bytes_of(state / "catalogue.sqlite"), std::vector<char>(10'000, 'x'));
}

}  // namespace
}  // namespace kvgrid::e2e
