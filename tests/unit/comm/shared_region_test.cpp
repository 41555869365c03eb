// What one side writes the other reads; and what is opened is sealed memory of the size promised, or is refused.

#include "comm/rpc/shared_region.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>

namespace kvgrid::comm {
namespace {

TEST(SharedRegion, BothSidesSeeTheSameBytes) {
    const auto made = SharedRegion::make(10'000).value();
    const auto opened = SharedRegion::open(getpid(), made->file(), 10'000).value();

    made->bytes()[9'999] = std::byte{7};
    opened->bytes()[0] = std::byte{8};

    EXPECT_EQ(opened->bytes()[9'999], std::byte{7});
    EXPECT_EQ(made->bytes()[0], std::byte{8});
}

TEST(SharedRegion, OutlivesItsMaker) {
    auto made = SharedRegion::make(4096).value();
    const auto opened = SharedRegion::open(getpid(), made->file(), 4096).value();
    made->bytes()[5] = std::byte{9};
    made.reset();
    EXPECT_EQ(opened->bytes()[5], std::byte{9});
}

TEST(SharedRegion, TakesNoDescriptorWhereItIsOpened) {
    const auto made = SharedRegion::make(4096).value();
    const int next = dup(made->file());
    close(next);
    const auto opened = SharedRegion::open(getpid(), made->file(), 4096).value();
    const int next_after = dup(made->file());
    close(next_after);
    EXPECT_EQ(next_after, next);
    EXPECT_EQ(opened->file(), -1);
}

TEST(SharedRegion, CannotShrink) {
    const auto made = SharedRegion::make(8192).value();
    EXPECT_NE(ftruncate(made->file(), 4096), 0);
}

TEST(SharedRegion, RefusesWhatIsNone) {
    const auto made = SharedRegion::make(4096).value();
    EXPECT_EQ(SharedRegion::open(getpid(), made->file(), 4097).error(), Errc::invalid_argument);
    EXPECT_EQ(SharedRegion::open(getpid(), made->file(), 0).error(), Errc::invalid_argument);
    EXPECT_EQ(SharedRegion::open(getpid(), made->file(), SharedRegion::kBytesMax + 1).error(), Errc::invalid_argument);
    EXPECT_EQ(SharedRegion::open(getpid(), 99'999, 4096).error(), Errc::unsupported);
    const int unsealed = memfd_create("unsealed", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    ASSERT_EQ(ftruncate(unsealed, 4096), 0);
    EXPECT_EQ(SharedRegion::open(getpid(), unsealed, 4096).error(), Errc::invalid_argument);
    close(unsealed);
    int pipe_ends[2];
    ASSERT_EQ(pipe(pipe_ends), 0);
    EXPECT_EQ(SharedRegion::open(getpid(), pipe_ends[0], 4096).error(), Errc::invalid_argument);
    close(pipe_ends[0]);
    close(pipe_ends[1]);
}

}  // namespace
}  // namespace kvgrid::comm
