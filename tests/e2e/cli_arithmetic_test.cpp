// What replays are checked with has to be right by itself: fp64 attention is compared with results known in closed form.
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <limits>

#include "client/cli/latencies.h"
#include "client/cli/replay/deviation.h"
#include "client/cli/replay/exact_attention.h"

namespace kvgrid::cli {
namespace {

using Vector = std::array<float, 2>;

TEST(ExactAttention, OfOneKeyIsItsValue) {
    const Vector query{1, 2};
    ExactAttention attention(query, 0.5);

    attention.see(Vector{30, -4}, Vector{7, -8});

    EXPECT_EQ(attention.output(), (std::vector<double>{7, -8}));
}

TEST(ExactAttention, WeighsValuesByTheExponentialsOfTheirLogits) {
    const Vector query{1, 0};
    for (const float first : {-800.f, 0.f, 800.f}) {  // beyond the range of exp without scaling
        ExactAttention attention(query, 1);
        attention.see(Vector{first, 9}, Vector{1, 0});
        attention.see(Vector{first + std::log(3.f), 9}, Vector{0, 1});

        // Weights 1/4 and 3/4, but for the rounding of first + log(3) in f32: at most 2^-15 near 800.
        EXPECT_NEAR(attention.output()[0], 0.25, 0x1p-15);
        EXPECT_NEAR(attention.output()[1], 0.75, 0x1p-15);
    }
}

TEST(ExactAttention, OfNothingIsZero) {
    const Vector query{1, 0};
    EXPECT_EQ(ExactAttention(query, 1).output(), (std::vector<double>{0, 0}));
}

TEST(Deviation, KeepsTheWorstOfAllRows) {
    Deviation deviation;
    deviation.add(Vector{1, 2.5f}, std::vector<double>{1, 2}, 1);
    deviation.add(Vector{1, 2}, std::vector<double>{1, 2}, 1);

    EXPECT_EQ(deviation.rows, 2);
    EXPECT_EQ(deviation.rows_outside, 0);
    EXPECT_EQ(deviation.absolute_max, 0.5);
    EXPECT_EQ(deviation.relative_max, 0.25);
    EXPECT_EQ(deviation.tolerance_used, 0.5);
}

TEST(Deviation, IsOutsideForWhatIsNoNumber) {
    Deviation deviation;
    deviation.add(Vector{1, std::numeric_limits<float>::quiet_NaN()}, std::vector<double>{1, 2}, 1);

    EXPECT_EQ(deviation.rows_outside, 1);
    EXPECT_TRUE(std::isinf(deviation.absolute_max));
}

TEST(Latencies, PercentilesAreLatenciesThatWereSeen) {
    Latencies latencies;
    for (int ms = 1; ms <= 100; ++ms) latencies.add(std::chrono::milliseconds(ms));

    EXPECT_DOUBLE_EQ(latencies.percentile_ms(0.5), 50);
    EXPECT_DOUBLE_EQ(latencies.percentile_ms(0.99), 99);
    EXPECT_DOUBLE_EQ(latencies.percentile_ms(1), 100);
    EXPECT_EQ(Latencies().percentile_ms(0.5), 0);
}

}  // namespace
}  // namespace kvgrid::cli
