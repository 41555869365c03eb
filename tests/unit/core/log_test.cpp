// One call writes one line to stderr, with time, level, process and text, or nothing below the lowest level.

#include "core/log.h"

#include <gtest/gtest.h>

#include <regex>

namespace kvgrid {
namespace {

template <class Write>
std::string stderr_of(Write write) {
    testing::internal::CaptureStderr();
    write();
    return testing::internal::GetCapturedStderr();
}

TEST(Log, ALineHasTimeLevelProcessAndText) {
    init_log("worker 2", LogLevel::info);

    const std::string line = stderr_of([] { log_warn("pool is {} full"); });

    const std::regex format(R"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z warning worker 2: pool is \{\} full\n)");
    EXPECT_TRUE(std::regex_match(line, format)) << line;
}

TEST(Log, LinesBelowTheLowestLevelAreNotWritten) {
    init_log("worker", LogLevel::warn);

    const std::string lines = stderr_of([] {
        log_debug("one");
        log_info("two");
        log_warn("three");
        log_error("four");
    });

    EXPECT_EQ(lines.find("one"), std::string::npos);
    EXPECT_EQ(lines.find("two"), std::string::npos);
    EXPECT_NE(lines.find("three"), std::string::npos);
    EXPECT_NE(lines.find("four"), std::string::npos);
}

TEST(Log, TextCannotForgeALine) {
    init_log("worker", LogLevel::info);

    const std::string line = stderr_of([] { log_info("name \"a\nerror worker: b\x1b[2J\""); });

    EXPECT_NE(line.find("a\\nerror worker: b\\x1b[2J"), std::string::npos) << line;
    EXPECT_EQ(line.find('\n'), line.size() - 1);
}

TEST(Log, LevelNamesAreReadAndAnUnknownOneIsTheOther) {
    EXPECT_EQ(parse_log_level("debug", LogLevel::error), LogLevel::debug);
    EXPECT_EQ(parse_log_level("info", LogLevel::error), LogLevel::info);
    EXPECT_EQ(parse_log_level("warn", LogLevel::error), LogLevel::warn);
    EXPECT_EQ(parse_log_level("error", LogLevel::info), LogLevel::error);
    EXPECT_EQ(parse_log_level("INFO", LogLevel::warn), LogLevel::warn);
    EXPECT_EQ(parse_log_level("", LogLevel::debug), LogLevel::debug);
}

}  // namespace
}  // namespace kvgrid
