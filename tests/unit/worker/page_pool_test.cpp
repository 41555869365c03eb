// A pool hands out each page to one owner and gets every page back, whatever the order. The invariant free + used + reserved ==
// capacity is checked by the pool itself after each call, so the tests only have to move.

#include <gtest/gtest.h>

#include <random>
#include <set>

#include "worker/page_pool.h"

namespace kvgrid::worker {
namespace {

TEST(PagePool, ARefusedReservationTakesNothing) {
    PagePool pool{8};
    auto held = pool.reserve(6);

    EXPECT_EQ(pool.reserve(3).error(), Errc::no_room);

    EXPECT_EQ(pool.free_count(), 2u);
    EXPECT_TRUE(pool.recount_agrees());
}

TEST(PagePool, PagesAreDistinct) {
    PagePool pool{64};
    const auto pages = pool.reserve(64).value();
    EXPECT_EQ(std::set<PageId>(pages.begin(), pages.end()).size(), 64u);
}

TEST(PagePool, APageLivesUntilItsLastHolderGivesItBack) {
    PagePool pool{2};
    const PageId page = pool.reserve(1).value()[0];
    EXPECT_EQ(pool.counts().reserved, 1u);
    pool.commit(page);
    pool.share(page);
    pool.share(page);
    EXPECT_EQ(pool.counts().shared, 1u);
    pool.give_back(page);
    EXPECT_TRUE(pool.is_shared(page));
    pool.give_back(page);
    EXPECT_EQ(pool.counts().shared, 0u);
    EXPECT_EQ(pool.counts().used, 1u);
    pool.give_back(page);
    EXPECT_EQ(pool.free_count(), 2u);
}

TEST(PagePool, BrokenPromisesAreFatal) {
    PagePool pool{2};
    const PageId page = pool.reserve(1).value()[0];
    EXPECT_THROW(pool.share(page), Fatal);
    pool.give_back(page);
    EXPECT_THROW(pool.give_back(page), Fatal);
    EXPECT_THROW(pool.commit(page), Fatal);
}

TEST(PagePool, RandomUseIsConserved) {
    const unsigned seed = std::random_device{}();
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    std::mt19937 random(seed);
    PagePool pool{50};
    std::vector<PageId> reserved, used;  // one entry for each holder
    for (int i = 0; i < 5000; ++i) {
        const auto pick = [&](std::vector<PageId>& from) {
            std::swap(from[random() % from.size()], from.back());
            const PageId page = from.back();
            from.pop_back();
            return page;
        };
        switch (random() % 5) {
            case 0:
                if (auto pages = pool.reserve(random() % 9))
                    reserved.insert(reserved.end(), pages->begin(), pages->end());
                break;
            case 1:
                if (!reserved.empty()) pool.commit(used.emplace_back(pick(reserved)));
                break;
            case 2:
                if (!used.empty()) {
                    const PageId page = used[random() % used.size()];
                    pool.share(page);
                    used.push_back(page);
                }
                break;
            case 3:
                if (!used.empty()) pool.give_back(pick(used));
                break;
            case 4:
                if (!reserved.empty()) pool.give_back(pick(reserved));
                break;
        }
        const std::set<PageId> held(used.begin(), used.end());
        ASSERT_EQ(pool.counts().used, held.size());
        ASSERT_EQ(pool.counts().reserved, reserved.size());
        ASSERT_TRUE(pool.recount_agrees());
    }
}

}  // namespace
}  // namespace kvgrid::worker
