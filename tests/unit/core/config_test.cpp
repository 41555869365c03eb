// Built in, file, environment, flag: the later wins, and each value says where it is from. What is no setting, or no value of one, is
// refused with the place where it stands.
#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <set>

#include "core/config/setting_options.h"

namespace kvgrid {
namespace {

namespace fs = std::filesystem;

Environment environment_of(std::map<std::string, std::string> variables) {
    return [variables = std::move(variables)](const char* name) {
        const auto found = variables.find(name);
        return found == variables.end() ? nullptr : found->second.c_str();
    };
}

class ConfigTest : public testing::Test {
  protected:
    ConfigTest() {
        std::string path = testing::TempDir() + "/kvgrid-config-XXXXXX";
        directory_ = mkdtemp(path.data());
    }
    ~ConfigTest() override { fs::remove_all(directory_); }

    fs::path write(const std::string& name, const std::string& text) const {
        fs::create_directories((directory_ / name).parent_path());
        std::ofstream(directory_ / name) << text;
        return directory_ / name;
    }
    // The message of the refusal.
    std::string refusal(const std::string& text) const {
        const auto read = read_config_file(write("wrong.toml", text));
        EXPECT_FALSE(read) << text;
        return read ? "" : read.error().message;
    }

    fs::path directory_;
};

TEST_F(ConfigTest, WithoutAFileAndAnEnvironmentAllIsBuiltIn) {
    const Config config = Config::load("", environment_of({{"HOME", directory_}})).value();

    for (const Setting& setting : settings()) {
        EXPECT_EQ(config.value(setting.name).text, setting.default_value);
        EXPECT_EQ(config.value(setting.name).origin, Origin::built_in);
    }
}

TEST_F(ConfigTest, TheFileWinsOverWhatIsBuiltInAndTheEnvironmentOverTheFile) {
    const auto file = write("a.toml", "# what we run\n[worker]\nmemory = \"2GiB\"\nthreads = 3\n");
    const Config config = Config::load(file, environment_of({{"KVGRID_WORKER_THREADS", "5"}})).value();

    EXPECT_EQ(config.value("worker.memory").text, "2GiB");
    EXPECT_EQ(config.value("worker.memory").origin, Origin::file);
    EXPECT_EQ(config.value("worker.memory").where, file.string() + ":3");
    EXPECT_EQ(config.value("worker.threads").number(), 5);
    EXPECT_EQ(config.value("worker.threads").where, "KVGRID_WORKER_THREADS");
}

TEST_F(ConfigTest, FlagsWinOverAll) {
    const auto file = write("a.toml", "[worker]\nmemory = \"2GiB\"\nthreads = 3\nallow_remote = true\n");
    const Config config = Config::load(file, environment_of({})).value();
    CLI::App app;
    SettingOptions options(config);
    std::string memory;
    int threads = 0;
    bool allow_remote = false;
    std::vector<std::string> listen;
    options.add(app, "worker.memory", memory);
    options.add(app, "worker.threads", threads);
    options.add(app, "worker.allow_remote", allow_remote);
    options.add(app, "coordinator.listen", listen);

    app.parse("--memory 4GiB", false);
    options.apply(app);

    EXPECT_EQ(memory, "4GiB");
    EXPECT_EQ(threads, 3);
    EXPECT_TRUE(allow_remote);
    EXPECT_EQ(listen, std::vector<std::string>{"127.0.0.1:7070"});
    EXPECT_EQ(options.in_force(app, "worker.memory").origin, Origin::flag);
    EXPECT_EQ(options.in_force(app, "worker.threads").origin, Origin::file);
}

TEST_F(ConfigTest, AFlagIsCheckedAsTheFileIs) {
    const Config config;
    CLI::App app;
    SettingOptions options(config);
    int threads = 0;
    options.add(app, "worker.threads", threads);

    EXPECT_THROW(app.parse("--threads 9999", false), CLI::ValidationError);
}

TEST_F(ConfigTest, ListsAreArraysInTheFileAndCommasInTheEnvironment) {
    const auto file = write("a.toml", "[coordinator]\nlisten = [\"127.0.0.1:1\", \"unix:/run/kvgrid\"]\n");
    const std::vector<std::string> both{"127.0.0.1:1", "unix:/run/kvgrid"};

    EXPECT_EQ(Config::load(file, environment_of({}))->value("coordinator.listen").list(), both);
    EXPECT_EQ(Config::make({}, environment_of({{"KVGRID_COORDINATOR_LISTEN", "127.0.0.1:1,unix:/run/kvgrid"}}))
                  ->value("coordinator.listen")
                  .list(),
              both);
}

TEST_F(ConfigTest, WhatIsWrongInAFileIsToldWithItsLine) {
    EXPECT_NE(refusal("[worker]\n\nmemroy = \"2GiB\"\n").find("wrong.toml:3: there is no setting worker.memroy"),
              std::string::npos);
    EXPECT_NE(refusal("[worker]\nthreads = -1\n").find("wrong.toml:2: worker.threads is \"-1\""), std::string::npos);
    EXPECT_NE(refusal("[worker]\nmemory = \"2 parsecs\"\n").find("wrong.toml:2: "), std::string::npos);
    EXPECT_NE(refusal("[worker]\nmemory = 1.5\n").find("wrong.toml:2: "), std::string::npos);
    EXPECT_NE(refusal("[worker]\nmemory = [\"2GiB\"]\n").find("wrong.toml:2: "), std::string::npos);
    EXPECT_NE(refusal("memory = 1\n").find("wrong.toml:1: memory stands in no section"), std::string::npos);
    EXPECT_NE(refusal("[worker\n").find("wrong.toml:1: "), std::string::npos);
    EXPECT_NE(refusal("[worker]\nthreads = 1\nthreads = 2\n").find("wrong.toml:3: "), std::string::npos);
}

TEST_F(ConfigTest, WhatIsWrongInTheEnvironmentIsToldWithItsVariable) {
    const auto config = Config::make({}, environment_of({{"KVGRID_WORKER_LOG_LEVEL", "loud"}}));

    ASSERT_FALSE(config);
    EXPECT_NE(config.error().message.find("KVGRID_WORKER_LOG_LEVEL"), std::string::npos) << config.error().message;
}

TEST_F(ConfigTest, AFileThatWasNamedHasToBeThere) {
    EXPECT_EQ(Config::load(directory_ / "none.toml", environment_of({})).error(), Errc::not_found);
    EXPECT_EQ(Config::load("", environment_of({{"KVGRID_CONFIG", directory_ / "none.toml"}})).error(), Errc::not_found);
}

TEST_F(ConfigTest, TheUsersFileIsFoundWhereNoneIsNamed) {
    const auto file = write(".config/kvgrid/kvgrid.toml", "");
    const auto elsewhere = write("xdg/kvgrid/kvgrid.toml", "");

    EXPECT_EQ(find_config_file(environment_of({{"HOME", directory_}})), file);
    EXPECT_EQ(find_config_file(environment_of({{"HOME", directory_}, {"XDG_CONFIG_HOME", directory_ / "xdg"}})),
              elsewhere);
}

TEST_F(ConfigTest, TheExampleChangesNothingAndWithoutItsHashesSaysWhatIsBuiltIn) {
    const ConfigFile as_printed = read_config_file(write("example.toml", example_config())).value();
    EXPECT_TRUE(as_printed.values.empty());

    std::string live;
    std::istringstream lines(example_config());
    for (std::string line; std::getline(lines, line);) {
        const bool is_setting = line.starts_with("# ") && line.find(" = ") != line.npos && line.find('(') == line.npos;
        live += (is_setting ? line.substr(2) : line) + "\n";
    }
    const ConfigFile file = read_config_file(write("live.toml", live)).value();
    for (const Setting& setting : settings()) {
        ASSERT_TRUE(file.values.contains(setting.name)) << setting.name << " is not in\n" << live;
        if (!setting.default_value.empty()) {
            EXPECT_EQ(file.values.find(setting.name)->second.text, setting.default_value);
        }
    }
}

TEST_F(ConfigTest, TheTableNamesEachSettingAndVariableOnceAndItsDefaultsAreValid) {
    std::set<std::string_view> names, variables;
    for (const Setting& setting : settings()) {
        EXPECT_TRUE(names.insert(setting.name).second) << setting.name;
        EXPECT_TRUE(variables.insert(setting.environment).second) << setting.environment;
        EXPECT_TRUE(setting.default_value.empty() || check_value(setting, setting.default_value)) << setting.name;
    }
}

TEST_F(ConfigTest, TheFileOfACommandLineIsFoundBeforeItIsParsed) {
    const char* apart[] = {"kvgrid", "model", "list", "--config", "a.toml"};
    const char* together[] = {"kvgrid", "--config=a.toml"};
    const char* none[] = {"kvgrid", "--", "--config", "a.toml"};

    EXPECT_EQ(config_argument(5, apart), "a.toml");
    EXPECT_EQ(config_argument(2, together), "a.toml");
    EXPECT_EQ(config_argument(4, none), "");
}

}  // namespace
}  // namespace kvgrid
