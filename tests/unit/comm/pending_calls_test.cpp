// Each call leaves exactly once, by whichever way comes first; and waits between attempts to connect grow to their bound, never alike.

#include "comm/rpc/pending_calls.h"

#include <gtest/gtest.h>

#include "comm/rpc/backoff.h"

namespace kvgrid::comm {
namespace {

using std::chrono::milliseconds;
constexpr TimePoint kStart{std::chrono::hours(1)};

TEST(PendingCalls, ACallIsTakenOnce) {
    PendingCalls pending;
    const auto request = pending.add(kStart, nullptr);

    EXPECT_TRUE(pending.take(request));

    EXPECT_FALSE(pending.take(request));
    EXPECT_TRUE(pending.take_all().empty());
    EXPECT_FALSE(pending.next_deadline());
}

TEST(PendingCalls, ExactlyTheExpiredOnesAreTaken) {
    PendingCalls pending;
    const auto late = pending.add(kStart + milliseconds(20), nullptr);
    pending.add(kStart + milliseconds(10), nullptr);
    pending.add(kStart + milliseconds(10), nullptr);
    EXPECT_EQ(pending.next_deadline(), kStart + milliseconds(10));

    EXPECT_TRUE(pending.take_expired(kStart + milliseconds(9)).empty());
    EXPECT_EQ(pending.take_expired(kStart + milliseconds(10)).size(), 2u);

    EXPECT_TRUE(pending.contains(late));
    EXPECT_EQ(pending.next_deadline(), kStart + milliseconds(20));
}

TEST(PendingCalls, OnlySentOnesEndWithTheConnection) {
    PendingCalls pending;
    const auto sent = pending.add(kStart, nullptr);
    const auto waiting = pending.add(kStart, nullptr);
    pending.mark_sent(sent, PendingCalls::Call::Sent::by_socket);

    EXPECT_EQ(pending.take_sent().size(), 1u);

    EXPECT_TRUE(pending.contains(waiting));
    EXPECT_EQ(pending.take_all().size(), 1u);
}

TEST(Backoff, WaitsDoubleToTheirBoundWithinHalfAndWhole) {
    Backoff backoff(milliseconds(10), milliseconds(70), /*seed=*/1);
    for (const int whole_ms : {10, 20, 40, 70, 70}) {
        const auto wait = backoff.next();
        EXPECT_GE(wait, milliseconds(whole_ms) / 2);
        EXPECT_LE(wait, milliseconds(whole_ms));
    }
    backoff.reset();
    EXPECT_LE(backoff.next(), milliseconds(10));
}

TEST(Backoff, TwoClientsDoNotComeTogether) {
    EXPECT_NE(Backoff(milliseconds(10), milliseconds(100), 1).next(),
              Backoff(milliseconds(10), milliseconds(100), 2).next());
}

}  // namespace
}  // namespace kvgrid::comm
