// Under mpirun with 4 ranks: every operation is right, in groups of the world and in one generation after another; and ranks that lose one
// of theirs, idle or killed, get their deadline (or are cancelled), form a new generation without it, and go on.
//
//   mpirun -np 4 mpi_collective_test operations|absent|killed|cancelled
//
// Not GoogleTest: the ranks run one scenario together. Each checks for itself, a failed check ends its process, and rank 0 says "passed"
// after all ranks that live have come that far.

#include <atomic>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <numeric>
#include <string_view>
#include <thread>

#include "comm/collective/mpi_collective.h"

namespace kvgrid::comm {
namespace {

using std::chrono::milliseconds;

Deadline far() {
    return deadline_in(std::chrono::seconds(30));
}

void expect(bool holds, const char* what, int rank) {
    if (holds) return;
    std::fprintf(stderr, "FAILED on rank %d: %s\n", rank, what);
    std::_Exit(EXIT_FAILURE);
}

std::unique_ptr<Collective> form(MpiWorld& world, const std::vector<int>& ranks, std::uint64_t generation) {
    auto formed = world.form(ranks, Generation{generation}, far());
    expect(formed.ok(), formed.ok() ? "" : formed.error().to_string().c_str(), world.rank());
    return std::move(*formed);
}

void check_gathers(Collective& group, std::size_t count) {
    const auto size = static_cast<std::size_t>(group.size());
    const std::vector<std::byte> mine(count, static_cast<std::byte>(group.rank() + 1));
    std::vector<std::byte> expected;
    for (std::size_t rank = 0; rank < size; ++rank)
        expected.insert(expected.end(), count, static_cast<std::byte>(rank + 1));

    std::vector<std::byte> all(size * count);
    expect(group.all_gather(mine, all, far()).ok() && all == expected, "all_gather", group.rank());
    for (int root = 0; root < group.size(); ++root) {
        const bool is_root = root == group.rank();
        std::vector<std::byte> at_root(is_root ? size * count : 0);
        expect(group.gather(mine, at_root, root, far()).ok(), "gather", group.rank());
        expect(!is_root || at_root == expected, "gather's bytes", group.rank());
    }
}

void check_broadcast(Collective& group, std::size_t count) {
    for (int root = 0; root < group.size(); ++root) {
        std::vector<std::byte> data(count, static_cast<std::byte>(group.rank() == root ? 99 : 0));
        expect(group.broadcast(data, root, far()).ok(), "broadcast", group.rank());
        expect(data == std::vector<std::byte>(count, std::byte{99}), "broadcast's bytes", group.rank());
    }
}

void check_all_reduce(Collective& group) {
    const std::int64_t number = group.rank(), last = group.size() - 1;
    std::vector<std::int64_t> sum{number, 1}, least{-number}, most{number};
    expect(group.all_reduce(sum, ReduceOp::sum, far()).ok(), "all_reduce sum", group.rank());
    expect(group.all_reduce(least, ReduceOp::min, far()).ok(), "all_reduce min", group.rank());
    expect(group.all_reduce(most, ReduceOp::max, far()).ok(), "all_reduce max", group.rank());
    const bool right = sum == std::vector{last * (last + 1) / 2, last + 1} && least[0] == -last && most[0] == last;
    expect(right, "all_reduce's values", group.rank());
}

// On the one clock of this host: the first to leave left after the last had entered.
void check_barrier(Collective& group) {
    const auto now = [] { return std::chrono::steady_clock::now().time_since_epoch().count(); };
    for (int round = 0; round < 10; ++round) {
        std::vector<std::int64_t> entered{now()};
        expect(group.barrier(far()).ok(), "barrier", group.rank());
        std::vector<std::int64_t> left{now()};
        expect(group.all_reduce(entered, ReduceOp::max, far()).ok(), "last to enter", group.rank());
        expect(group.all_reduce(left, ReduceOp::min, far()).ok(), "first to leave", group.rank());
        expect(left[0] >= entered[0], "a rank left the barrier before all had entered", group.rank());
    }
}

void check_operations(Collective& group) {
    for (const std::size_t count : {0, 1, 64, 4'096, 100'000}) {
        check_gathers(group, count);
        check_broadcast(group, count);
    }
    check_all_reduce(group);
    check_barrier(group);
}

bool fails_with(const Status& status, Errc code) {
    return !status.ok() && status.error() == code;
}

void operations(MpiWorld& world) {
    const auto everyone = form(world, {0, 1, 2, 3}, 1);
    expect(everyone->rank() == world.rank() && everyone->generation() == Generation{1}, "identity", world.rank());
    expect(everyone->counters().calls == 0, "counts before the first call", world.rank());
    check_operations(*everyone);

    const bool is_odd = world.rank() % 2 == 1;
    const auto half = form(world, is_odd ? std::vector{3, 1} : std::vector{0, 2}, 2);
    expect(half->size() == 2 && half->rank() == (world.rank() == 0 || world.rank() == 3 ? 0 : 1), "listed order",
           world.rank());
    check_operations(*half);

    const auto turned = form(world, {3, 2, 1, 0}, 3);
    expect(turned->rank() == 3 - world.rank(), "listed order, turned", world.rank());
    check_operations(*turned);
    check_operations(*everyone);

    const auto alone = form(world, {world.rank()}, 4);
    check_operations(*alone);

    std::vector<std::byte> mine(8), all(8);
    expect(!world.form({0, 0}, Generation{5}, far()).ok(), "a list with a rank twice", world.rank());
    expect(fails_with(turned->all_gather(mine, all, far()), Errc::invalid_argument), "wrong size", world.rank());
    expect(fails_with(turned->barrier(far()), Errc::peer_lost), "after an error", world.rank());
    expect(everyone->barrier(far()).ok(), "another generation after an error", world.rank());
}

// What the survivors of rank 3 do, whether it only stays away or is dead.
void go_on_without_last(MpiWorld& world, Collective& broken) {
    const TimePoint before = std::chrono::steady_clock::now();
    std::vector<std::int64_t> values(1'000, 1);
    expect(fails_with(broken.all_reduce(values, ReduceOp::sum, deadline_in(milliseconds(80))), Errc::deadline_exceeded),
           "the deadline", world.rank());
    expect(std::chrono::steady_clock::now() - before >= milliseconds(80), "the deadline's time", world.rank());
    expect(fails_with(broken.barrier(far()), Errc::peer_lost), "peer_lost after the deadline", world.rank());
    expect(world.abandoned_request_count() == 1, "the abandoned request is counted", world.rank());

    const auto survivors = form(world, {0, 1, 2}, 2);
    for (int round = 0; round < 5; ++round) check_operations(*survivors);
}

void absent(MpiWorld& world) {
    const auto everyone = form(world, {0, 1, 2, 3}, 1);
    check_operations(*everyone);
    if (world.rank() != 3) go_on_without_last(world, *everyone);
}

void killed(MpiWorld& world) {
    const auto everyone = form(world, {0, 1, 2, 3}, 1);
    check_operations(*everyone);
    if (world.rank() == 3) std::raise(SIGKILL);
    go_on_without_last(world, *everyone);
}

// As when another thread learns that a peer is dead: the wait ends long before its deadline.
void cancelled(MpiWorld& world) {
    const auto everyone = form(world, {0, 1, 2, 3}, 1);
    check_operations(*everyone);
    if (world.rank() == 3) std::raise(SIGKILL);
    std::atomic<std::int64_t> cancelled_at = 0;
    const auto now = [] { return std::chrono::steady_clock::now().time_since_epoch().count(); };
    std::jthread canceller([&] {
        cancelled_at = now();
        everyone->cancel();
    });
    std::vector<std::int64_t> values(1'000, 1);
    expect(fails_with(everyone->all_reduce(values, ReduceOp::sum, far()), Errc::peer_lost), "cancelled", world.rank());
    const std::chrono::nanoseconds took{now() - cancelled_at};
    canceller.join();
    if (world.rank() == 0) std::printf("free %.2f ms after cancel\n", static_cast<double>(took.count()) / 1e6);
    expect(took < std::chrono::seconds(5), "freed at once", world.rank());
    expect(fails_with(everyone->barrier(far()), Errc::peer_lost), "after cancel", world.rank());

    const auto survivors = form(world, {0, 1, 2}, 2);
    check_operations(*survivors);
}

}  // namespace
}  // namespace kvgrid::comm

int main(int argc, char** argv) {
    const std::string_view scenario = argc == 2 ? argv[1] : "";
    kvgrid::comm::MpiWorld world;
    kvgrid::comm::expect(world.size() == 4, "mpirun -np 4", world.rank());
    if (scenario == "operations") {
        kvgrid::comm::operations(world);
    } else if (scenario == "absent") {
        kvgrid::comm::absent(world);
    } else if (scenario == "killed") {
        kvgrid::comm::killed(world);
    } else if (scenario == "cancelled") {
        kvgrid::comm::cancelled(world);
    } else {
        kvgrid::comm::expect(false, "usage: mpi_collective_test operations|absent|killed|cancelled", world.rank());
    }
    if (world.rank() == 0) std::puts("passed");
}
