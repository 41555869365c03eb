// What `kvgrid top` shows, from snapshots that are handed in: no line is wider than the terminal, bars add up, and rates are those of the
// time between two snapshots of one generation.
#include <gtest/gtest.h>

#include <algorithm>

#include "client/cli/top/top_view.h"

namespace kvgrid::cli {
namespace {

using namespace std::chrono_literals;

ModelOccupancy pages(std::uint64_t used, std::uint64_t shared, std::uint64_t reserved) {
    return {.model = {1},
            .page_bytes = 1 << 20,
            .capacity_pages = 100,
            .free_pages = 100 - used - reserved,
            .used_pages = used,
            .reserved_pages = reserved,
            .shared_pages = shared,
            .sequences = 3};
}

TopSnapshot snapshot() {
    TopSnapshot now{.taken = TimePoint{} + 10s, .coordinator = "127.0.0.1:7070"};
    now.status = {.generation = {4}, .ready = true, .expected_workers = 2, .version = "1.2.3"};
    now.status.workers = {{.worker = {1}, .rank = 0, .alive = true}, {.worker = {2}, .rank = 1, .alive = true}};
    now.occupancy = GridOccupancy{.workers = {{{1}, 0, {pages(40, 10, 10)}}, {{2}, 1, {pages(0, 0, 0)}}},
                                  .operations = 100,
                                  .join_bytes = 5 << 20,
                                  .layer_calls = 80,
                                  .merged_layer_calls = 20};
    return now;
}

std::size_t count(const std::string& text, char letter) {
    return static_cast<std::size_t>(std::ranges::count(text, letter));
}

TEST(TopView, BarsShowPagesByState) {
    const auto lines = top_lines(snapshot(), {}, {.columns = 100});

    ASSERT_EQ(lines.size(), 5u);
    const std::string bar = lines[3].substr(lines[3].find('['), lines[3].find(']') - lines[3].find('[') + 1);
    const auto cells = static_cast<double>(bar.size() - 2);
    EXPECT_NEAR(static_cast<double>(count(bar, '#')), 0.3 * cells, 1);
    EXPECT_NEAR(static_cast<double>(count(bar, '=')), 0.1 * cells, 1);
    EXPECT_NEAR(static_cast<double>(count(bar, '+')), 0.1 * cells, 1);
    EXPECT_NE(lines[3].find("50.0%"), std::string::npos) << lines[3];
    EXPECT_EQ(count(lines[4], '#'), 0u);
}

TEST(TopView, NoLineIsWiderThanTheTerminalAndNoneTooMany) {
    TopSnapshot now = snapshot();
    now.problem = std::string(300, 'x');
    for (int columns = 1; columns < 200; ++columns) {
        for (const std::string& line : top_lines(now, TopRates{1e9, 1e15, 1e9, 1e9}, {.columns = columns, .rows = 4}))
            EXPECT_LE(line.size(), static_cast<std::size_t>(columns)) << line;
        EXPECT_LE(top_lines(now, {}, {.columns = columns, .rows = 4}).size(), 4u);
    }
}

TEST(TopView, ColoursAreOnlyThereWhereTheyAreWanted) {
    const auto has_escape = [](const std::vector<std::string>& lines) {
        return std::ranges::any_of(lines, [](const std::string& line) { return line.find('\033') != line.npos; });
    };
    EXPECT_FALSE(has_escape(top_lines(snapshot(), {}, {.color = false})));
    EXPECT_TRUE(has_escape(top_lines(snapshot(), {}, {.color = true})));
}

TEST(TopView, SaysWhyAClusterIsNotReady) {
    TopSnapshot now = snapshot();
    now.status.ready = false;
    now.status.not_ready_because = "worker 2 is silent";
    now.occupancy.reset();

    EXPECT_NE(top_lines(now, {}, {.columns = 120})[0].find("not ready: worker 2 is silent"), std::string::npos);
    EXPECT_NE(top_line(now, {}).find("not ready: worker 2 is silent"), std::string::npos);
}

TEST(TopView, ShowsTheLastHeartbeatWhereTheGridDoesNotAnswer) {
    TopSnapshot now = snapshot();
    now.occupancy.reset();
    now.status.workers[0].models = {pages(25, 0, 0)};

    EXPECT_NE(top_lines(now, {}, {.columns = 100})[3].find("25.0%"), std::string::npos);
}

TEST(TopRates, AreThoseOfTheTimeBetween) {
    TopSnapshot before = snapshot(), now = snapshot();
    now.taken += 2s;
    now.occupancy->operations += 10;
    now.occupancy->layer_calls += 8;
    now.occupancy->merged_layer_calls += 4;
    now.occupancy->join_bytes += 1'000;

    const TopRates rates = top_rates(before, now).value();

    EXPECT_DOUBLE_EQ(rates.operations, 5);
    EXPECT_DOUBLE_EQ(rates.layer_calls, 4);
    EXPECT_DOUBLE_EQ(rates.merged_layer_calls, 2);
    EXPECT_DOUBLE_EQ(rates.join_bytes, 500);
}

TEST(TopRates, AreNotKnownAcrossGenerationsOrWhereACounterWentBack) {
    TopSnapshot before = snapshot(), now = snapshot();
    now.taken += 1s;
    EXPECT_TRUE(top_rates(before, now));
    now.occupancy->operations = 1;
    EXPECT_FALSE(top_rates(before, now));
    now = before;
    EXPECT_FALSE(top_rates(before, now)) << "no time has passed";
    now.taken += 1s;
    now.status.generation = {5};
    EXPECT_FALSE(top_rates(before, now));
}

}  // namespace
}  // namespace kvgrid::cli
