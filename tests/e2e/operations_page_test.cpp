// docs/operations.md names every metric that a running cluster exports, and none that it does not.
#include <gtest/gtest.h>

#include <fstream>
#include <regex>
#include <set>

#include "tests/e2e/busy_cluster.h"
#include "tests/monitor/scrape.h"

namespace kvgrid::e2e {
namespace {

std::set<std::string> metrics_in_first_columns(const std::filesystem::path& page) {
    std::set<std::string> names;
    const std::regex row(R"(^\| `((kvgrid|process)_[a-z_]+)` \|)");
    std::ifstream file(page);
    for (std::string line; std::getline(file, line);) {
        std::smatch match;
        if (!std::regex_search(line, match, row)) continue;
        EXPECT_TRUE(names.insert(match[1]).second) << match[1] << " stands there twice";
    }
    return names;
}

TEST(OperationsPage, NamesEveryMetricAndNoOther) {
    const std::set<std::string> named = metrics_in_first_columns(std::filesystem::path(KVGRID_DOCS) / "operations.md");
    BusyCluster cluster(2);
    std::set<std::string> exported;
    for (const std::string& endpoint : cluster.endpoints()) exported.merge(tests::scrape(endpoint).names);

    for (const std::string& name : exported)
        EXPECT_TRUE(named.contains(name)) << name << " is not in docs/operations.md";
    const bool has_gpu = exported.contains("kvgrid_gpu_layer_calls_total");
    for (const std::string& name : named) {
        if (!has_gpu && name.starts_with("kvgrid_gpu_")) continue;
        EXPECT_TRUE(exported.contains(name)) << name << " is not exported";
    }
}

}  // namespace
}  // namespace kvgrid::e2e
