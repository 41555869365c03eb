// A model gets a shape that makes up the workers and a pool that each of them has room for, or a reason why not.

#include "coordinator/placement.h"

#include <gtest/gtest.h>

#include "tests/unit/core/model_spec_fixture.h"

namespace kvgrid::coordinator {
namespace {

constexpr std::uint64_t kMemory = 1 << 30;

std::vector<Member> members(std::vector<std::uint64_t> memory_bytes) {
    std::vector<Member> members;
    for (const std::uint64_t bytes : memory_bytes) {
        members.push_back({WorkerId{members.size() + 1}, {.incarnation = members.size() + 1, .memory_bytes = bytes}});
    }
    return members;
}

// small_spec: 4 KV layers, 2 KV heads, pages of 16 KiB.
const std::uint64_t kFirstTokenOneHead = 4 * small_spec().page_bytes();

TEST(Placement, WithoutAWishItIsTheDefaultShapeAndAllThatTheSmallestWorkerHasLeft) {
    const auto placed = place_model(small_spec(), members({kMemory, kMemory / 2, kMemory, kMemory}), 1000, {});
    ASSERT_TRUE(placed) << placed.error().to_string();
    EXPECT_EQ(placed->shape, (GridShape{2, 2}));
    EXPECT_EQ(placed->pool_bytes_per_worker, kMemory / 2 - 1000);
}

TEST(Placement, AWishIsTakenAsItIs) {
    const auto placed = place_model(small_spec(), members({kMemory, kMemory}), 0, {{1, 2}, kMemory / 4});
    ASSERT_TRUE(placed) << placed.error().to_string();
    EXPECT_EQ(placed->shape, (GridShape{1, 2}));
    EXPECT_EQ(placed->pool_bytes_per_worker, kMemory / 4);
}

TEST(Placement, AShapeThatDoesNotMakeUpTheWorkersIsRefused) {
    EXPECT_EQ(place_model(small_spec(), members({kMemory, kMemory}), 0, {{2, 2}, 0}).error(), Errc::invalid_argument);
    EXPECT_EQ(place_model(small_spec(), members({kMemory, kMemory}), 0, {{2, 0}, 0}).error(), Errc::invalid_argument);
}

TEST(Placement, ThePoolMayTakeExactlyWhatIsLeft) {
    const auto workers = members({kMemory, kMemory});
    EXPECT_TRUE(place_model(small_spec(), workers, kMemory / 2, {{0, 0}, kMemory / 2}));
    const auto refused = place_model(small_spec(), workers, kMemory / 2, {{0, 0}, kMemory / 2 + 1});
    EXPECT_EQ(refused.error(), Errc::no_room);
}

TEST(Placement, APoolThatCannotHoldOneTokenIsRefused) {
    const auto workers = members({kMemory, kMemory});  // 2 x 1: one KV head each
    EXPECT_TRUE(place_model(small_spec(), workers, 0, {{2, 1}, kFirstTokenOneHead}));
    EXPECT_EQ(place_model(small_spec(), workers, 0, {{2, 1}, kFirstTokenOneHead - 1}).error(), Errc::no_room);
    EXPECT_EQ(place_model(small_spec(), workers, 0, {{1, 2}, kFirstTokenOneHead}).error(), Errc::no_room);
    EXPECT_EQ(place_model(small_spec(), workers, kMemory, {}).error(), Errc::no_room) << "nothing is left";
    EXPECT_EQ(place_model(small_spec(), workers, 2 * kMemory, {}).error(), Errc::no_room);
}

}  // namespace
}  // namespace kvgrid::coordinator
