// Membership decides from registrations, heartbeats and the time alone: who makes up the grid, who is dead, and why the grid is
// not ready. Shown with a clock that moves only here.

#include "coordinator/membership.h"

#include <gtest/gtest.h>

namespace kvgrid::coordinator {
namespace {

using namespace std::chrono_literals;

WorkerProcess process(std::uint64_t incarnation, int mpi_rank) {
    return {.incarnation = incarnation,
            .endpoint = "unix:/worker" + std::to_string(incarnation),
            .host = "x",
            .process_id = static_cast<std::int32_t>(70 + incarnation),
            .mpi_rank = mpi_rank,
            .memory_bytes = 1 << 20};
}

class MembershipTest : public ::testing::Test {
  protected:
    void add(std::uint64_t worker, int mpi_rank) {
        membership.add(WorkerId{worker}, process(worker, mpi_rank), clock.now());
    }

    void hear(std::uint64_t worker, std::uint64_t generation, bool ready = true, std::string problem = "") {
        ASSERT_TRUE(membership.hear({WorkerId{worker}, Generation{generation}, ready, problem, {}}, clock.now()));
    }

    // As the coordinator does: a tick for each heartbeat's time. Answers who died meanwhile.
    std::vector<std::uint64_t> pass(std::chrono::milliseconds time) {
        std::vector<std::uint64_t> died;
        for (; time > 0ms; time -= 100ms) {
            clock.advance(100ms);
            for (const Worker& worker : membership.tick(clock.now())) died.push_back(worker.id.value);
        }
        return died;
    }

    void form(std::uint64_t generation) { membership.form({Generation{generation}, membership.grid_to_form()}); }

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
    EXPECT_TRUE(membership.grid_to_form().empty());
    EXPECT_EQ(obstacle(), "1 of 2 workers have registered");
    add(2, 1);
    EXPECT_EQ(membership.grid_to_form().size(), 2u);
}

TEST_F(MembershipTest, MembersAreOrderedByMpiRankAndThenById) {
    membership = Membership{{.expected_workers = 4}, Grid{}, clock.now()};
    add(7, 3);
    add(5, 0);
    add(4, 3);
    add(6, 1);
    EXPECT_EQ(ids(membership.grid_to_form()), (std::vector<std::uint64_t>{5, 6, 4, 7}));
}

TEST_F(MembershipTest, AWorkerThatRegistersTwiceCountsOnce) {
    add(1, 0);
    EXPECT_EQ(membership.find(1), WorkerId{1});
    add(1, 0);
    EXPECT_TRUE(membership.grid_to_form().empty());
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
    EXPECT_TRUE(membership.grid_to_form().empty());
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
    EXPECT_EQ(obstacle(),
              "worker 2 (rank 1, pid 72 on host x) has not been heard of for 2.1 s: its part of every sequence is lost "
              "until the "
              "grid is formed again");
}

TEST_F(MembershipTest, TheDeadAreNamedBeforeTheProblemsThatTheyMake) {
    make_ready();
    for (int i = 0; i < 20; ++i) {
        pass(100ms);
        hear(1, 1, false, "worker 2 does not answer");
    }
    EXPECT_NE(obstacle().find("worker 2 (rank 1"), std::string::npos) << obstacle();
}

TEST_F(MembershipTest, AWorkerThatWasOnlySlowIsAliveAgainWithWhatItSays) {
    make_ready();
    for (int i = 0; i < 20; ++i) {
        pass(100ms);
        hear(1, 1);
    }
    EXPECT_NE(obstacle(), "none");
    auto was_dead = membership.hear({WorkerId{2}, Generation{1}, true, "", {}}, clock.now());
    ASSERT_TRUE(was_dead);
    EXPECT_TRUE(*was_dead);
    EXPECT_EQ(obstacle(), "none");
}

TEST_F(MembershipTest, AStandbyDoesNotTakeADeadMembersPlace) {
    make_ready();
    add(3, 1);
    for (int i = 0; i < 20; ++i) {
        pass(100ms);
        hear(1, 1);
        hear(3, 0);
    }
    EXPECT_TRUE(membership.grid_to_form().empty());
    EXPECT_EQ(membership.rank_of(WorkerId{3}), -1);
}

TEST_F(MembershipTest, WhenAllMembersAreDeadOthersFormTheNextGrid) {
    make_ready();
    add(3, 1);
    add(4, 0);
    for (int i = 0; i < 20; ++i) {
        EXPECT_TRUE(membership.grid_to_form().empty());
        pass(100ms);
        hear(3, 0);
        hear(4, 0);
    }
    EXPECT_EQ(ids(membership.grid_to_form()), (std::vector<std::uint64_t>{4, 3}));
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
    EXPECT_EQ(membership.hear({WorkerId{3}, Generation{}, false, "", {}}, clock.now()).error(), Errc::not_found);
}

TEST_F(MembershipTest, ARestartedCoordinatorTakesUpTheGridThatItsMembersStillHold) {
    make_ready();
    const Grid grid = membership.grid();
    membership = Membership{{.expected_workers = 2, .dead_after = 2000ms}, grid, clock.now()};

    EXPECT_EQ(membership.find(1), WorkerId{1}) << "the same incarnation keeps its id";
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
    EXPECT_TRUE(membership.grid_to_form().empty());
    for (int i = 0; i < 20; ++i) {
        pass(100ms);
        hear(3, 0);
        hear(4, 0);
    }
    EXPECT_EQ(ids(membership.grid_to_form()), (std::vector<std::uint64_t>{3, 4}));
}

TEST_F(MembershipTest, SilenceWhileTheCoordinatorWasStoppedKillsNobody) {
    make_ready();
    add(3, 0);
    add(4, 1);
    clock.advance(60s);
    EXPECT_TRUE(membership.tick(clock.now()).empty());
    hear(3, 0);
    hear(4, 0);
    EXPECT_TRUE(membership.grid_to_form().empty()) << "the standbys were only heard first";
    EXPECT_EQ(pass(2000ms), (std::vector<std::uint64_t>{1, 2, 3, 4})) << "but silence from then on counts";
}

}  // namespace
}  // namespace kvgrid::coordinator
