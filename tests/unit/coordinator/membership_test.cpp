// Membership decides from registrations, heartbeats and the time alone: who makes up the grid, who is dead, and why the grid is
// not ready. Shown with a clock that moves only here.

#include "coordinator/membership.h"

#include <gtest/gtest.h>

namespace kvgrid::coordinator {
namespace {

using namespace std::chrono_literals;

WorkerProcess process(std::uint64_t incarnation, int mpi_rank, std::uint64_t world = 1) {
    return {.incarnation = incarnation,
            .endpoint = "unix:/worker" + std::to_string(incarnation),
            .host = "x",
            .process_id = static_cast<std::int32_t>(70 + incarnation),
            .mpi_rank = mpi_rank,
            .memory_bytes = 1 << 20,
            .world = world};
}

class MembershipTest : public ::testing::Test {
  protected:
    void add(std::uint64_t worker, int mpi_rank, std::uint64_t world = 1) {
        membership.add(WorkerId{worker}, process(worker, mpi_rank, world), clock.now());
    }

    void hear(std::uint64_t worker, std::uint64_t generation, bool ready = true, std::string problem = "") {
        ASSERT_TRUE(membership.hear({WorkerId{worker}, Generation{generation}, ready, problem}, clock.now()));
    }
    void hear_with(Heartbeat heartbeat) { ASSERT_TRUE(membership.hear(std::move(heartbeat), clock.now())); }

    // As the coordinator does: a tick for each heartbeat's time. Answers who died meanwhile.
    std::vector<std::uint64_t> pass(std::chrono::milliseconds time) {
        std::vector<std::uint64_t> died;
        for (; time > 0ms; time -= 100ms) {
            clock.advance(100ms);
            for (const Worker& worker : membership.tick(clock.now())) died.push_back(worker.id.value);
        }
        return died;
    }

    std::vector<Member> grid_to_form() const { return membership.grid_to_form(clock.now()); }
    void form(std::uint64_t generation) { membership.form({Generation{generation}, grid_to_form()}, clock.now()); }

    // Until the silent are dead; these workers are heard all the time.
    void let_die_all_but(std::vector<std::uint64_t> living) {
        for (int i = 0; i < 20; ++i) {
            pass(100ms);
            for (const std::uint64_t worker : living) hear(worker, 1);
        }
    }

    // Workers 1 and 2 are generation 1, by rank, and ready.
    void make_ready() {
        add(1, 0);
        add(2, 1);
        form(1);
        hear(1, 1);
        hear(2, 1);
        ASSERT_FALSE(membership.obstacle(clock.now()));
    }

    std::string obstacle() const { return membership.obstacle(clock.now()).value_or("none"); }

    ManualClock clock;
    Membership membership{{.expected_workers = 2, .dead_after = 2000ms}, Grid{}, clock.now()};
};

std::vector<std::uint64_t> ids(const std::vector<Member>& members) {
    std::vector<std::uint64_t> ids;
    for (const Member& member : members) ids.push_back(member.worker.value);
    return ids;
}

TEST_F(MembershipTest, AGridIsFormedWhenTheExpectedWorkersAreThereAndNotBefore) {
    EXPECT_EQ(obstacle(), "0 of 2 workers have registered");
    add(1, 0);
    EXPECT_TRUE(grid_to_form().empty());
    EXPECT_EQ(obstacle(), "1 of 2 workers have registered");
    add(2, 1);
    EXPECT_EQ(grid_to_form().size(), 2u);
}

TEST_F(MembershipTest, MembersAreOrderedByMpiRankAndThenById) {
    membership = Membership{{.expected_workers = 4}, Grid{}, clock.now()};
    add(7, 3);
    add(5, 0);
    add(4, 3);
    add(6, 1);
    EXPECT_EQ(ids(grid_to_form()), (std::vector<std::uint64_t>{5, 6, 4, 7}));
}

TEST_F(MembershipTest, AWorkerThatRegistersTwiceCountsOnce) {
    add(1, 0);
    EXPECT_EQ(membership.find(1), WorkerId{1});
    add(1, 0);
    EXPECT_TRUE(grid_to_form().empty());
}

TEST_F(MembershipTest, AGridIsReadyWhenAllItsMembersSayThatTheyHaveFormedIt) {
    add(1, 0);
    add(2, 1);
    form(1);
    hear(1, 1);
    EXPECT_EQ(obstacle(), "worker 2 (rank 1, pid 72 on host x) has not formed generation 1 yet");
    hear(2, 0, false, "no link to worker 1");
    EXPECT_EQ(obstacle(), "worker 2 (rank 1, pid 72 on host x) has not formed generation 1 yet: no link to worker 1");
    hear(2, 1, false, "collective broke");
    EXPECT_EQ(obstacle(), "worker 2 (rank 1, pid 72 on host x) is not ready: collective broke");
    hear(2, 1);
    EXPECT_EQ(obstacle(), "none");
}

TEST_F(MembershipTest, AWorkerBeyondTheExpectedCountIsAStandby) {
    make_ready();
    add(3, 0);
    EXPECT_EQ(membership.rank_of(WorkerId{3}), -1);
    EXPECT_EQ(membership.rank_of(WorkerId{2}), 1);
    EXPECT_TRUE(grid_to_form().empty());
    EXPECT_EQ(obstacle(), "none");
}

TEST_F(MembershipTest, AWorkerIsDeadAfterTheTimeAndNotBefore) {
    make_ready();
    for (int i = 0; i < 19; ++i) {
        ASSERT_TRUE(pass(100ms).empty());
        hear(1, 1);
    }
    EXPECT_EQ(obstacle(), "none");
    EXPECT_EQ(pass(100ms), std::vector<std::uint64_t>{2});
    EXPECT_TRUE(pass(100ms).empty()) << "a death is told once";
    EXPECT_EQ(
        obstacle(),
        "generation 1 is lost, with all its sequences: worker 2 (rank 1, pid 72 on host x) has not been heard of for "
        "2.1 s; 1 of the 2 workers that the next one needs are here");
}

TEST_F(MembershipTest, AWorkerWhoseConnectionBrokeIsDeadInAQuarterOfTheTimeUnlessItIsHeardOf) {
    make_ready();
    membership.disconnected(WorkerId{2}, clock.now());
    EXPECT_TRUE(pass(400ms).empty());
    hear(2, 1);
    hear(1, 1);
    EXPECT_TRUE(pass(400ms).empty());
    EXPECT_EQ(obstacle(), "none");

    hear(1, 1);
    hear(2, 1);
    membership.disconnected(WorkerId{2}, clock.now());
    EXPECT_EQ(pass(500ms), std::vector<std::uint64_t>{2});
    EXPECT_NE(obstacle().find("worker 2 (rank 1, pid 72 on host x) died: its connection broke"), std::string::npos);
}

TEST_F(MembershipTest, TheDeadAreNamedBeforeTheProblemsThatTheyMake) {
    make_ready();
    hear_with({.worker = WorkerId{1}, .formed = Generation{1}, .problem = "a link broke", .broken = true});
    EXPECT_NE(obstacle().find("worker 1 (rank 0, pid 71 on host x) says: a link broke"), std::string::npos)
        << obstacle();
    let_die_all_but({1});
    EXPECT_NE(obstacle().find("worker 2 (rank 1"), std::string::npos) << obstacle();
    EXPECT_EQ(obstacle().find("a link broke"), std::string::npos) << obstacle();
}

TEST_F(MembershipTest, AWorkerThatWasOnlySlowIsFencedAndTakesPartInTheNextGeneration) {
    make_ready();
    let_die_all_but({1});
    EXPECT_TRUE(grid_to_form().empty());

    EXPECT_EQ(membership.hear({.worker = WorkerId{2}, .formed = Generation{1}, .ready = true}, clock.now()).error(),
              Errc::not_found);
    add(2, 1);
    EXPECT_NE(obstacle(), "none") << "what the others have refused meanwhile it does not know";
    EXPECT_EQ(ids(grid_to_form()), (std::vector<std::uint64_t>{1, 2}));
}

TEST_F(MembershipTest, AStandbyTakesADeadMembersPlaceInTheNextGeneration) {
    make_ready();
    add(3, 2);
    let_die_all_but({1, 3});
    EXPECT_EQ(ids(grid_to_form()), (std::vector<std::uint64_t>{1, 3}));
    form(2);
    EXPECT_EQ(membership.workers().size(), 2u) << "the dead one is forgotten";
}

TEST_F(MembershipTest, NobodyIsTakenWhoMayBeDying) {
    make_ready();
    add(3, 2);
    add(4, 3);
    let_die_all_but({1, 3, 4});
    pass(100ms);
    hear(1, 1);
    hear(4, 1);
    membership.disconnected(WorkerId{3}, clock.now());
    EXPECT_EQ(ids(grid_to_form()), (std::vector<std::uint64_t>{1, 4})) << "3 has lost its connection";
    pass(400ms);
    hear(1, 1);
    EXPECT_EQ(ids(grid_to_form()), (std::vector<std::uint64_t>{1, 4}));
    pass(100ms);
    EXPECT_TRUE(grid_to_form().empty()) << "4 was not heard of for half a second";
}

TEST_F(MembershipTest, WorkersOfDifferentLaunchersDoNotFormAGridTogether) {
    make_ready();
    add(3, 0, /*world=*/2);
    let_die_all_but({1, 3});
    EXPECT_TRUE(grid_to_form().empty());
    add(4, 1, /*world=*/2);
    EXPECT_EQ(ids(grid_to_form()), (std::vector<std::uint64_t>{3, 4}));
}

TEST_F(MembershipTest, AfterGenerationsThatNeverWorkedTheNextOneWaitsLongerAndLonger) {
    make_ready();
    std::chrono::milliseconds waited{0};
    for (std::uint64_t generation = 1; generation < 5; ++generation) {
        hear_with({.worker = WorkerId{1}, .formed = Generation{generation}, .problem = "no", .broken = true});
        std::chrono::milliseconds wait{0};
        for (; grid_to_form().empty(); wait += 100ms) {
            ASSERT_LT(wait, Membership::kReformMax);
            pass(100ms);
            hear(1, 0, false);
            hear(2, 0, false);
        }
        EXPECT_GE(wait, waited);
        waited = wait;
        form(generation + 1);
    }
    EXPECT_EQ(waited, 4 * Membership::kReformMin);
}

TEST_F(MembershipTest, AMemberThatLeavesEndsTheGenerationAtOnce) {
    make_ready();
    hear_with({.worker = WorkerId{2}, .formed = Generation{1}, .ready = true, .draining = true});
    EXPECT_EQ(membership.draining(),
              "worker 2 (rank 1, pid 72 on host x) is draining: it was asked to end, and nothing new is begun");
    EXPECT_EQ(obstacle(), "none") << "what is open can end";
    EXPECT_FALSE(membership.is_drained());
    hear_with({.worker = WorkerId{1}, .formed = Generation{1}, .ready = true, .drained = true});
    EXPECT_TRUE(membership.is_drained());
    hear_with({.worker = WorkerId{2}, .formed = Generation{1}, .draining = true, .leaving = true});
    EXPECT_NE(obstacle().find("worker 2 (rank 1, pid 72 on host x) was asked to end and has left"), std::string::npos)
        << obstacle();
}

TEST_F(MembershipTest, WhenAllMembersAreDeadOthersFormTheNextGrid) {
    make_ready();
    add(3, 1);
    add(4, 0);
    for (int i = 0; i < 20; ++i) {
        EXPECT_TRUE(grid_to_form().empty());
        pass(100ms);
        hear(3, 0);
        hear(4, 0);
    }
    EXPECT_EQ(ids(grid_to_form()), (std::vector<std::uint64_t>{4, 3}));
    form(2);
    EXPECT_EQ(membership.rank_of(WorkerId{1}), -1);
    hear(3, 1);
    EXPECT_NE(obstacle(), "none") << "an older generation does not count";
    hear(3, 2);
    hear(4, 2);
    EXPECT_EQ(obstacle(), "none");
}

TEST_F(MembershipTest, ADeadStandbyIsForgottenAndHasToRegisterAgain) {
    make_ready();
    add(3, 2);
    for (int i = 0; i < 20; ++i) {
        pass(100ms);
        hear(1, 1);
        hear(2, 1);
    }
    EXPECT_EQ(membership.workers().size(), 2u);
    EXPECT_EQ(membership.hear({.worker = WorkerId{3}}, clock.now()).error(), Errc::not_found);
}

TEST_F(MembershipTest, ARestartedCoordinatorTakesUpTheGridThatItsMembersStillHold) {
    make_ready();
    const Grid grid = membership.grid();
    membership = Membership{{.expected_workers = 2, .dead_after = 2000ms}, grid, clock.now()};

    EXPECT_EQ(membership.find(1), WorkerId{1}) << "the same incarnation keeps its id";
    EXPECT_NE(obstacle(), "none");
    EXPECT_EQ(membership.hear({.worker = WorkerId{1}, .formed = Generation{1}, .ready = true}, clock.now()).error(),
              Errc::not_found)
        << "it has to register first";
    add(1, 0);
    add(2, 1);
    EXPECT_NE(obstacle(), "none");
    hear(1, 1);
    hear(2, 1);
    EXPECT_EQ(obstacle(), "none");
    EXPECT_EQ(membership.grid().generation, Generation{1});
}

TEST_F(MembershipTest, AfterARestartOfEverythingTheNewWorkersWaitUntilTheOldOnesAreSurelyDead) {
    make_ready();
    membership = Membership{{.expected_workers = 2, .dead_after = 2000ms}, membership.grid(), clock.now()};
    add(3, 0);
    add(4, 1);
    EXPECT_TRUE(grid_to_form().empty());
    for (int i = 0; i < 20; ++i) {
        pass(100ms);
        hear(3, 0);
        hear(4, 0);
    }
    EXPECT_EQ(ids(grid_to_form()), (std::vector<std::uint64_t>{3, 4}));
}

TEST_F(MembershipTest, SilenceWhileTheCoordinatorWasStoppedKillsNobody) {
    make_ready();
    add(3, 0);
    add(4, 1);
    clock.advance(60s);
    EXPECT_TRUE(membership.tick(clock.now()).empty());
    hear(3, 0);
    hear(4, 0);
    EXPECT_TRUE(grid_to_form().empty()) << "the standbys were only heard first";
    EXPECT_EQ(pass(2000ms), (std::vector<std::uint64_t>{1, 2, 3, 4})) << "but silence from then on counts";
}

}  // namespace
}  // namespace kvgrid::coordinator
