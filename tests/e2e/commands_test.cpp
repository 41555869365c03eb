// Every command as a user types it, on a cluster that he started: what it prints, what it ends with, and what is left when it is stopped.
#include <gtest/gtest.h>

#include <csignal>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "client/cli/local/process_scan.h"
#include "client/cli/local/state_directory.h"
#include "client/kvgrid.h"
#include "core/version.h"
#include "tests/e2e/e2e_cluster.h"
#include "tests/e2e/typed.h"

namespace kvgrid::e2e {
namespace {

using namespace std::chrono_literals;
using nlohmann::json;

constexpr auto kRevivalTimeout = 30s;

// The one object that a command with --json prints.
json object(const Typed& typed, const std::string& format) {
    const json parsed = json::parse(typed.out, nullptr, false);
    EXPECT_TRUE(parsed.is_object()) << typed.out << typed.err;
    if (!parsed.is_object()) return {};
    EXPECT_EQ(parsed.value("format", ""), "kvgrid." + format);
    EXPECT_EQ(parsed.value("format_version", 0), 1);
    return parsed;
}

bool has(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

// One cluster for all of these tests.
class Commands : public testing::Test {
  protected:
    static void SetUpTestSuite() {
        user_ = new User;
        const Typed started = user_->types({"cluster", "start", "--workers", "2", "--memory", "256MiB", "--threads",
                                            "1", "--listen", "127.0.0.1:0", "--json"});
        ASSERT_EQ(started.exit_code, 0) << started.err;
        state_ = object(started, "cluster.start")["state_dir"].get<std::string>();
    }
    static void TearDownTestSuite() {
        const std::string mark = cli::running_local_cluster(state_).value().mark;
        EXPECT_EQ(cli::processes_naming(mark).size(), 4u);
        const Typed stopped = user_->types({"cluster", "stop"});
        EXPECT_EQ(stopped.exit_code, 0) << stopped.err;
        EXPECT_EQ(stopped.out, "stopped\n");
        EXPECT_TRUE(cli::processes_naming(mark).empty());
        EXPECT_TRUE(cli::processes_naming(state_).empty());
        EXPECT_FALSE(std::filesystem::exists(mark));
        delete user_;
    }

    static Typed types(const std::vector<std::string>& arguments) { return user_->types(arguments); }
    static cli::LocalClusterRecord record() { return cli::running_local_cluster(state_).value(); }

    static std::filesystem::path spec_file(const std::string& name) {
        const auto file = user_->home() / (name + ".json");
        std::ofstream(file) << R"({"name": ")" << name
                            << R"(", "layers": 2, "query_heads": 4, "kv_heads": 2, "head_dim": 64, "dtype": "f32"})";
        return file;
    }

    static User* user_;
    static std::filesystem::path state_;
};
User* Commands::user_ = nullptr;
std::filesystem::path Commands::state_;

TEST_F(Commands, StartingAgainChangesNothing) {
    const auto before = record();
    const Typed again = types({"cluster", "start", "--workers", "2", "--memory", "256MiB"});

    EXPECT_EQ(again.exit_code, 0) << again.err;
    EXPECT_TRUE(has(again.out, "runs already")) << again.out;
    EXPECT_EQ(record().keeper, before.keeper);
}

TEST_F(Commands, StartingAnotherOneOfTheSameNameIsRefusedWithTheNextCommand) {
    const Typed other = types({"cluster", "start", "--workers", "3"});

    EXPECT_EQ(other.exit_code, 4);
    EXPECT_TRUE(has(other.err, "kvgrid cluster stop")) << other.err;
}

TEST_F(Commands, StatusFindsTheClusterAndSaysWhoIsInIt) {
    const json status = object(types({"cluster", "status", "--json"}), "cluster.status");
    EXPECT_EQ(status["ready"], true);
    EXPECT_EQ(status["workers"].size(), 2u);
    EXPECT_EQ(status["workers"][0]["version"], kVersion);
    EXPECT_EQ(status["found_by"], "local cluster default");
    EXPECT_TRUE(has(types({"cluster", "status"}).out, "rank 1"));
}

TEST_F(Commands, TheClusterAlsoListensWhereItWasAskedTo) {
    ASSERT_EQ(record().listen.size(), 1u);
    const Typed named = types({"cluster", "status", "--coordinator", record().listen[0]});

    EXPECT_EQ(named.exit_code, 0) << named.err;
    EXPECT_TRUE(has(named.out, "flag --coordinator")) << named.out;
}

TEST_F(Commands, AModelIsRegisteredAndListed) {
    const Typed registered = types({"model", "register", "--spec", spec_file("tiny"), "--pool", "8MiB", "--head-parts",
                                    "1", "--sequence-parts", "2", "--json"});
    ASSERT_EQ(registered.exit_code, 0) << registered.err;
    EXPECT_EQ(object(registered, "model.register")["sequence_parts"], 2);

    const json list = object(types({"model", "list", "--json"}), "model.list");
    EXPECT_TRUE(std::ranges::any_of(list["models"], [](const json& each) { return each["name"] == "tiny"; }));
    EXPECT_TRUE(has(types({"model", "list"}).out, "tiny"));
    const Typed taken =
        types({"model", "register", "--spec", spec_file("tiny"), "--head-parts", "2", "--sequence-parts", "1"});
    EXPECT_EQ(taken.exit_code, 4);
    EXPECT_TRUE(has(taken.err, "kvgrid model list")) << taken.err;
}

TEST_F(Commands, SequencesAreListedInspectedAndClosed) {
    ASSERT_EQ(types({"model", "register", "--spec", spec_file("short"), "--pool", "8MiB"}).exit_code, 0);
    Client client = Client::connect(record().endpoint).value();
    const auto models = client.models().value();
    const auto model = std::ranges::find(models, "short", [](const RegisteredModel& each) { return each.spec.name; });
    Sequence mine = client.open(*model).value();
    const std::string first = std::to_string(mine.id().value);
    const std::string second = std::to_string(mine.fork().value().release().value);
    mine.release();

    const json one = object(types({"sequence", "list", "--limit", "1", "--json"}), "sequence.list");
    EXPECT_EQ(one["sequences"].size(), 1u);
    EXPECT_EQ(one["more"], true);
    const json all =
        object(types({"sequence", "list", "--model", std::to_string(model->id.value), "--json"}), "sequence.list");
    ASSERT_EQ(all["sequences"].size(), 2u);
    EXPECT_EQ(all["sequences"][1]["parent"], mine.id().value);
    EXPECT_TRUE(has(types({"sequence", "inspect", first}).out, "length         0"));
    EXPECT_EQ(object(types({"sequence", "inspect", second, "--json"}), "sequence.inspect")["model"], model->id.value);

    const Typed closed = types({"sequence", "close", first, second, "999999"});
    EXPECT_TRUE(has(closed.out, "closed " + first + " " + second)) << closed.out;
    EXPECT_EQ(closed.exit_code, 1);
    EXPECT_TRUE(has(closed.err, "kvgrid sequence list")) << closed.err;
    EXPECT_EQ(types({"sequence", "inspect", first}).exit_code, 1);
}

TEST_F(Commands, ATraceIsReplayedOnTheCluster) {
    const Typed replayed =
        types({"trace", "replay", std::string(KVGRID_TEST_DATA) + "/smollm2_135m_instruct.safetensors", "--json"});

    EXPECT_EQ(replayed.exit_code, 0) << replayed.err;
    EXPECT_EQ(object(replayed, "replay")["passed"], true);
}

TEST_F(Commands, BenchMeasures) {
    const Typed measured =
        types({"bench", "--layers", "2", "--query-heads", "4",  "--kv-heads", "2", "--head-dim", "64", "--context",
               "128",   "--steps",  "4", "--prefill",     "64", "--clients",  "2", "--batch",    "2",  "--json"});

    ASSERT_EQ(measured.exit_code, 0) << measured.err;
    const json report = object(measured, "bench");
    EXPECT_EQ(report["decode"]["tokens"], 16);
    EXPECT_EQ(report["layer_call"]["count"], 16);
    EXPECT_GT(report["layer_call"]["p99_ms"], 0);
    EXPECT_TRUE(report["floor_ms"].is_null()) << "so few keys are in the caches";
    EXPECT_GT(report["join_bytes_per_layer_call"], 0);
}

TEST_F(Commands, TopPrintsOnePictureOrLines) {
    const Typed once = types({"top", "--once", "--interval-ms", "50"});
    EXPECT_EQ(once.exit_code, 0) << once.err;
    EXPECT_TRUE(has(once.out, "rank 1")) << once.out;
    EXPECT_FALSE(has(once.out, "\033")) << once.out;
    const Typed lines = types({"top", "--samples", "3", "--interval-ms", "50"});
    EXPECT_EQ(std::ranges::count(lines.out, '\n'), 3);
    EXPECT_EQ(object(types({"top", "--once", "--interval-ms", "50", "--json"}), "top")["ready"], true);
}

TEST_F(Commands, DoctorFindsAHealthyCluster) {
    const Typed typed = types({"doctor", "--json"});
    const json report = object(typed, "doctor");

    for (const json& finding : report["findings"]) {
        if (finding["check"] == "cluster" || finding["check"] == "versions" || finding["check"] == "programs") {
            EXPECT_EQ(finding["verdict"], "ok") << finding;
        }
        if (finding["verdict"] != "ok") {
            EXPECT_NE(finding["remedy"], "") << finding;
        }
    }
    EXPECT_EQ(typed.exit_code, report["healthy"] == true ? 0 : 1);
}

// The coordinator of a cluster, by the mark of its processes; 0: there is none.
pid_t coordinator_of(const std::string& mark) {
    for (const pid_t each : cli::processes_naming(mark)) {
        std::ifstream name("/proc/" + std::to_string(each) + "/comm");
        std::string text;
        if (std::getline(name, text) && text == "kvgrid-coordina") return each;  // 15 bytes of it
    }
    return 0;
}

TEST_F(Commands, ACoordinatorThatIsKilledComesBack) {
    const pid_t killed = coordinator_of(record().mark);
    ASSERT_GT(killed, 0);

    kill(killed, SIGKILL);

    const auto deadline = std::chrono::steady_clock::now() + kRevivalTimeout;
    const auto revived = [&] {
        const pid_t now = coordinator_of(record().mark);
        return now > 0 && now != killed && types({"cluster", "status", "--timeout-ms", "2000"}).exit_code == 0;
    };
    bool is_back = false;
    while (!(is_back = revived()) && std::chrono::steady_clock::now() < deadline) std::this_thread::sleep_for(50ms);
    EXPECT_TRUE(is_back);
}

// ---- without a cluster

TEST(CommandsAlone, NothingThatRunsIsSaidWithTheNextCommand) {
    User user;
    for (const std::vector<std::string>& words : std::vector<std::vector<std::string>>{
             {"cluster", "status"}, {"model", "list"}, {"sequence", "list"}, {"top", "--once"}}) {
        std::vector<std::string> all = words;
        all.insert(all.end(), {"--timeout-ms", "200"});
        const Typed typed = user.types(all);
        EXPECT_EQ(typed.exit_code, 3) << typed.err;
        EXPECT_TRUE(has(typed.err, "try: kvgrid cluster start")) << typed.err;
        EXPECT_EQ(typed.out, "");
    }
}

TEST(CommandsAlone, StoppingNothingIsDone) {
    const Typed typed = User().types({"cluster", "stop"});

    EXPECT_EQ(typed.exit_code, 0);
    EXPECT_TRUE(has(typed.out, "no cluster named default runs")) << typed.out;
}

TEST(CommandsAlone, ADirectoryOfSomethingElseIsRefused) {
    User user;
    std::ofstream(user.home() / "precious") << "text";
    const Typed typed = user.types({"cluster", "start", "--state-dir", user.home()});

    EXPECT_EQ(typed.exit_code, 4) << typed.err;
    EXPECT_TRUE(has(typed.err, "--state-dir")) << typed.err;
    EXPECT_TRUE(std::filesystem::exists(user.home() / "precious"));
}

TEST(CommandsAlone, AKeeperThatIsKilledLeavesNothingRunningAndTheNextStartWorks) {
    User user;
    const std::vector<std::string> start{"cluster", "start",    "--workers",   "1",     "--memory",
                                         "64MiB",   "--listen", "127.0.0.1:0", "--json"};
    const Typed first = user.types(start);
    ASSERT_EQ(first.exit_code, 0) << first.err;
    const std::string state = object(first, "cluster.start")["state_dir"];
    const auto record = cli::running_local_cluster(state).value();

    kill(record.keeper, SIGKILL);
    const auto deadline = std::chrono::steady_clock::now() + 10s;
    while (!cli::processes_naming(record.mark).empty() && std::chrono::steady_clock::now() < deadline)
        std::this_thread::sleep_for(10ms);
    EXPECT_TRUE(cli::processes_naming(record.mark).empty());

    EXPECT_EQ(user.types({"cluster", "status", "--timeout-ms", "200"}).exit_code, 3);
    const Typed again = user.types(start);
    EXPECT_EQ(again.exit_code, 0) << again.err;
    EXPECT_EQ(object(again, "cluster.start")["already_running"], false);
    EXPECT_EQ(user.types({"cluster", "stop"}).exit_code, 0);
}

TEST(CommandsAlone, WrongUsageIsExitCodeTwoAndNamesTheHelp) {
    User user;
    for (const std::vector<std::string>& wrong :
         std::vector<std::vector<std::string>>{{},
                                               {"modle"},
                                               {"model"},
                                               {"model", "register"},
                                               {"model", "register", "--spec", "a", "--hugging-face", "b"},
                                               {"sequence", "inspect"},
                                               {"sequence", "inspect", "x"},
                                               {"cluster", "start", "--workers", "0"},
                                               {"cluster", "start", "--memory", "much"},
                                               {"cluster", "start", "--cluster", "../x"},
                                               {"completion", "tcsh"},
                                               {"bench", "--steps", "many"},
                                               {"version", "--nonsense"}}) {
        const Typed typed = user.types(wrong);
        EXPECT_EQ(typed.exit_code, 2) << typed.err;
        EXPECT_TRUE(has(typed.err, "--help")) << typed.err;
        EXPECT_EQ(typed.out, "");
    }
}

TEST(CommandsAlone, AnErrorIsJsonWhereTheResultWouldBe) {
    const Typed typed = User().types({"cluster", "status", "--json", "--timeout-ms", "200"});

    EXPECT_EQ(typed.out, "");
    const json error = json::parse(typed.err, nullptr, false);
    ASSERT_TRUE(error.is_object()) << typed.err;
    EXPECT_EQ(error["format"], "kvgrid.error");
    EXPECT_EQ(error["exit_code"], 3);
    EXPECT_EQ(error["next"], "kvgrid cluster start");
}

TEST(CommandsAlone, ConfigShowSaysWhereEachValueIsFrom) {
    User user;
    std::filesystem::create_directories(user.home() / ".config/kvgrid");
    const auto file = user.home() / ".config/kvgrid/kvgrid.toml";
    std::ofstream(file) << "[local]\nworkers = 3\nmemory = \"1GiB\"\n";
    user.environment["KVGRID_LOCAL_MEMORY"] = "2GiB";
    const json shown = object(user.types({"config", "show", "--json"}), "config.show");

    const auto setting = [&](const std::string& name) {
        for (const json& each : shown["settings"]) {
            if (each["name"] == name) return each;
        }
        return json();
    };
    EXPECT_EQ(setting("local.workers")["value"], "3");
    EXPECT_EQ(setting("local.workers")["where"], file.string() + ":2");
    EXPECT_EQ(setting("local.memory")["value"], "2GiB");
    EXPECT_EQ(setting("local.memory")["origin"], "environment");
    EXPECT_EQ(setting("worker.memory")["origin"], "built in");
    EXPECT_TRUE(has(user.types({"config", "show"}).out, "environment KVGRID_LOCAL_MEMORY"));
}

TEST(CommandsAlone, AWrongConfigurationIsRefusedWithItsLineAndHelpStillWorks) {
    User user;
    std::ofstream(user.home() / "bad.toml") << "[worker]\n\nmemroy = \"1GiB\"\n";
    const std::string file = user.home() / "bad.toml";
    const Typed typed = user.types({"model", "list", "--config", file});

    EXPECT_EQ(typed.exit_code, 2);
    EXPECT_TRUE(has(typed.err, file + ":3: there is no setting worker.memroy")) << typed.err;
    EXPECT_EQ(user.types({"model", "list", "--config", file, "--help"}).exit_code, 0);
    EXPECT_EQ(user.types({"config", "example", "--config", file}).exit_code, 0);
}

TEST(CommandsAlone, HelpSaysWhatEndsHow) {
    User user;
    const Typed help = user.types({"--help"});

    EXPECT_EQ(help.exit_code, 0);
    for (const char* part :
         {"Exit codes:", "cluster", "model", "sequence", "trace", "bench", "top", "doctor", "config"})
        EXPECT_TRUE(has(help.out, part)) << part;
    EXPECT_TRUE(has(user.types({"cluster", "start", "--help"}).out, "--memory"));
    EXPECT_EQ(user.types({"--version"}).out, std::string("kvgrid ") + kVersion + "\n");
    EXPECT_EQ(object(user.types({"version", "--json"}), "version")["version"], kVersion);
}

}  // namespace
}  // namespace kvgrid::e2e
