// What people and programs read.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "client/cli/occupancy_text.h"
#include "client/cli/progress.h"
#include "client/cli/replay/replay_text.h"

namespace kvgrid::cli {
namespace {

using std::chrono::seconds;

TEST(ProgressText, SaysHowFarItIsAndHowLongItTakes) {
    const ProgressState half{50, 100, seconds(4), "detail"};

    EXPECT_EQ(progress_text("fill", half, ProgressStyle::lines), "  fill   50%  ETA 4 s  detail");
    EXPECT_EQ(progress_text("fill", half, ProgressStyle::bar),
              "  fill  [############............]   50%  ETA 4 s  detail");
}

TEST(ProgressText, SaysAtTheEndHowLongItTook) {
    EXPECT_EQ(progress_text("fill", {100, 100, seconds(9), ""}, ProgressStyle::lines), "  fill  100%  9.0 s");
}

TEST(ProgressText, KnowsNoEtaBeforeAnythingIsDone) {
    EXPECT_EQ(progress_text("fill", {0, 100, seconds(1), ""}, ProgressStyle::lines), "  fill    0%");
}

GridOccupancy two_workers(std::uint64_t free_pages) {
    const ModelOccupancy pages{.model = {1},
                               .page_bytes = 1024,
                               .capacity_pages = 10,
                               .free_pages = free_pages,
                               .used_pages = 10 - free_pages};
    return {.workers = {{{1}, 0, {pages}}, {{2}, 1, {pages}}}};
}

TEST(OccupancyText, ShowsEachWorker) {
    EXPECT_EQ(occupancy_line(two_workers(4), {1}), "in use by worker: 60% 60%");
    EXPECT_EQ(page_totals(two_workers(4), {1}).used, 12u);
}

TEST(OccupancyText, AllFreeMeansEveryPageOfEveryWorker) {
    EXPECT_TRUE(all_free(two_workers(10)));
    EXPECT_FALSE(all_free(two_workers(9)));
    EXPECT_FALSE(all_free(GridOccupancy{}));  // having seen no worker is no success
}

TEST(ReplayText, AReportThatCheckedNothingHasNotPassed) {
    ReplayReport report;
    EXPECT_FALSE(report.passed());
    report.layers.push_back({});
    EXPECT_FALSE(report.passed());
}

TEST(ReplayText, JsonSaysWhatThePeopleRead) {
    ReplayReport report{.model = "m", .dtype = Dtype::bf16, .grid = {2, 3}};
    report.layers.push_back({.model_layer = 15, .from_reference = {.rows = 8, .rows_outside = 1, .absolute_max = 0.5}});

    const auto json = nlohmann::json::parse(replay_json(report));

    EXPECT_EQ(json["format"], "kvgrid.replay");
    EXPECT_EQ(json["dtype"], "bf16");
    EXPECT_EQ(json["passed"], false);
    EXPECT_EQ(json["layers"][0]["model_layer"], 15);
    EXPECT_EQ(json["layers"][0]["from_reference"]["rows_outside"], 1);
}

}  // namespace
}  // namespace kvgrid::cli
