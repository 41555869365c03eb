// The demonstration never asks for more memory than there is, and asks mpirun for what the workers rely on.
#include <gtest/gtest.h>

#include <algorithm>

#include "client/cli/demo/available_memory.h"
#include "client/cli/demo/demo_plan.h"
#include "client/cli/local/open_mpi.h"

namespace kvgrid::cli {
namespace {

constexpr std::uint64_t kGiB = std::uint64_t{1} << 30;

analysis::Trace small_trace() {
    analysis::Trace trace;
    trace.spec = {.name = "small.trace",
                  .layers = {{.kv_layer = 0}},
                  .query_heads = 9,
                  .kv_heads = 3,
                  .head_dim = 64,
                  .dtype = Dtype::f32,
                  .scale = 0.125};
    trace.prefill_tokens = 100;
    return trace;
}

TEST(DemoPlan, TakesTheWholeContextWhereThereIsRoom) {
    const DemoPlan plan = plan_demo(small_trace(), {}, 5 * kGiB);

    EXPECT_EQ(plan.context_tokens, 131'072);
    EXPECT_TRUE(plan.why_fewer_tokens.empty());
    // Two of the three KV heads and half of the tokens are on the fullest worker.
    EXPECT_GE(plan.long_pool_bytes, plan.context_tokens * plan.long_model.token_bytes() / 3);
}

TEST(DemoPlan, HalvesTheContextUntilItFitsAndSaysWhy) {
    const DemoPlan plan = plan_demo(small_trace(), {}, 3 * kGiB);  // 2.8 GiB of keys and values, and 1 GiB of programs

    EXPECT_EQ(plan.context_tokens, 65'536);
    EXPECT_NE(plan.why_fewer_tokens.find("131072 tokens would take"), plan.why_fewer_tokens.npos)
        << plan.why_fewer_tokens;
}

TEST(DemoPlan, TakesTheWholeContextWhereNothingIsKnownOfTheMemory) {
    EXPECT_EQ(plan_demo(small_trace(), {}, std::nullopt).context_tokens, 131'072);
}

TEST(DemoPlan, PutsAWorkerOnEachGpuAndTwoOnTheOnlyOne) {
    const DemoPlan one = plan_demo(small_trace(), {.gpus = 1}, std::nullopt);
    EXPECT_EQ(one.grid, (GridShape{1, 2}));
    EXPECT_TRUE(one.one_process);

    for (int gpus : {2, 4, 8}) {
        const DemoPlan plan = plan_demo(small_trace(), {.gpus = gpus}, std::nullopt);
        EXPECT_EQ(plan.grid, (GridShape{1, std::min(gpus, 4)}));
        EXPECT_FALSE(plan.one_process);
    }
    EXPECT_FALSE(plan_demo(small_trace(), {}, std::nullopt).one_process);
}

TEST(AvailableMemory, IsReadFromMeminfo) {
    EXPECT_EQ(mem_available_in("MemTotal:       100 kB\nMemAvailable:    25 kB\n"), 25u << 10);
    EXPECT_EQ(mem_available_in("MemTotal:       100 kB\n"), std::nullopt);
}

TEST(OpenMpi, ALostRankLeavesTheOthersAndNothingListensOutside) {
    const auto arguments = mpirun_arguments({"/usr/bin/mpirun", 3, {"worker", "--flag"}, "/tmp/x"});

    EXPECT_EQ(arguments[0], "/usr/bin/mpirun");
    EXPECT_EQ(arguments.back(), "--flag");
    const auto has = [&](const std::string& text) { return std::ranges::count(arguments, text) == 1; };
    EXPECT_TRUE(has("--enable-recovery") && has("btl_tcp_if_include") && has("oob_tcp_if_include"));
}

TEST(OpenMpi, RootIsConfirmedOnlyForRoot) {
    EXPECT_EQ(mpirun_environment({}, true).count("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"), 1u);
    EXPECT_EQ(mpirun_environment({}, false).count("OMPI_ALLOW_RUN_AS_ROOT"), 0u);
}

}  // namespace
}  // namespace kvgrid::cli
