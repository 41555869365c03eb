// Every worker of a cluster exports which way its grid joins, and all of them the same; on GPUs also the communicator that it joins through.
#include <gtest/gtest.h>

#include <string>

#include "tests/e2e/busy_cluster.h"
#include "tests/monitor/scrape.h"

namespace kvgrid::e2e {
namespace {

using tests::Scrape;

std::string way_of(const Scrape& got) {
    for (const std::string way : {"none", "alone", "host", "NCCL"}) {
        if (got.series.contains("kvgrid_join_info{way=\"" + way + "\"}")) return way;
    }
    return "";
}

class JoinScrape : public testing::TestWithParam<int> {};

TEST_P(JoinScrape, NamesTheWayOfTheGridsJoin) {
    BusyCluster cluster(GetParam());
    const ClusterStatus status = cluster.client().status().value();
    ASSERT_TRUE(
        cluster.client().occupancy());  // in the order of operations on every worker: all have published the model
    const std::string of_first = way_of(tests::scrape(status.workers.at(0).http_endpoint));
    EXPECT_EQ(of_first == "alone", GetParam() == 1) << of_first;
    for (const ClusterWorker& worker : status.workers) {
        const Scrape got = tests::scrape(worker.http_endpoint);
        EXPECT_EQ(way_of(got), of_first);
        const bool has_gpu = got.names.contains("kvgrid_gpu_layer_calls_total");
        if (!has_gpu) {
            EXPECT_EQ(of_first, GetParam() == 1 ? "alone" : "host");
            EXPECT_FALSE(got.names.contains("kvgrid_gpu_nccl_communicators"));
            continue;
        }
        const bool over_nccl = of_first == "NCCL";
        EXPECT_EQ(got.at("kvgrid_gpu_nccl_communicators"), over_nccl);
        EXPECT_EQ(got.at("kvgrid_gpu_nccl_generation"), over_nccl ? got.at("kvgrid_generation") : 0);
        EXPECT_EQ(got.at("kvgrid_gpu_nccl_aborts_total"), 0);
    }
}

INSTANTIATE_TEST_SUITE_P(Workers, JoinScrape, testing::Values(1, 2));

}  // namespace
}  // namespace kvgrid::e2e
