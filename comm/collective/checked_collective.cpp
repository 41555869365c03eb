#include "comm/collective/checked_collective.h"

#include <algorithm>

namespace kvgrid::comm {
namespace {

constexpr int kEveryRank = -1;

}  // namespace

CheckedCollective::CheckedCollective(int rank, int size, Generation generation, std::size_t bytes_max)
    : rank_(rank), size_(size), generation_(generation), bytes_max_(bytes_max) {}

Status CheckedCollective::all_gather(std::span<const std::byte> mine, std::span<std::byte> all, Deadline deadline) {
    return gather_to("all_gather", mine, all, kEveryRank, deadline);
}

Status CheckedCollective::gather(std::span<const std::byte> mine, std::span<std::byte> all, int root,
                                 Deadline deadline) {
    if (root == kEveryRank) return finish({Errc::invalid_argument, "gather has one root"}, 0);
    return gather_to("gather", mine, rank_ == root ? all : std::span<std::byte>{}, root, deadline);
}

Status CheckedCollective::gather_to(const char* operation, std::span<const std::byte> mine, std::span<std::byte> all,
                                    int root, Deadline deadline) {
    if (auto begun = begin(operation, mine.size(), root); !begun.ok()) return begun;
    const bool receives = root == kEveryRank || root == rank_;
    const auto size = static_cast<std::size_t>(size_);
    if (receives && all.size() != mine.size() * size) {
        return finish({Errc::invalid_argument, describe() + ": room for " + std::to_string(all.size()) +
                                                   " bytes, needs " + std::to_string(mine.size() * size)},
                      0);
    }
    if (size_ == 1) {
        std::ranges::copy(mine, all.begin());
        return finish({}, 0);
    }
    return finish(run_gather(mine, all, root, deadline), receives ? mine.size() * (size - 1) : 0);
}

Status CheckedCollective::broadcast(std::span<std::byte> data, int root, Deadline deadline) {
    if (auto begun = begin("broadcast", data.size(), root); !begun.ok()) return begun;
    if (size_ == 1) return finish({}, 0);
    return finish(run_broadcast(data, root, deadline), rank_ == root ? 0 : data.size());
}

Status CheckedCollective::all_reduce(std::span<std::int64_t> values, ReduceOp op, Deadline deadline) {
    if (auto begun = begin("all_reduce", values.size_bytes(), 0); !begun.ok()) return begun;
    if (size_ == 1) return finish({}, 0);
    return finish(run_all_reduce(values, op, deadline), values.size_bytes());
}

Status CheckedCollective::barrier(Deadline deadline) {
    if (auto begun = begin("barrier", 0, 0); !begun.ok()) return begun;
    if (size_ == 1) return finish({}, 0);
    return finish(run_barrier(deadline), 0);
}

std::string CheckedCollective::describe() const {
    return std::string(operation_) + ", call " + std::to_string(counters_.calls) + " of rank " + std::to_string(rank_) +
           " of " + std::to_string(size_) + " in generation " + std::to_string(generation_.value);
}

void CheckedCollective::cancel() {
    cancelled_ = true;
    wake();
}

Error CheckedCollective::cancelled_error() const {
    return {Errc::peer_lost, describe() + ": given up, since not all ranks will come; form a new generation"};
}

Status CheckedCollective::begin(const char* operation, std::size_t bytes, int root) {
    operation_ = operation;
    ++counters_.calls;
    if (broken_) {
        return {Errc::peer_lost,
                describe() + ": an earlier call failed, so its ranks are no longer together; form a new generation"};
    }
    if (is_cancelled()) return finish(cancelled_error(), 0);
    if (root != kEveryRank && (root < 0 || root >= size_)) {
        return finish({Errc::invalid_argument, describe() + ": root " + std::to_string(root)}, 0);
    }
    if (bytes > bytes_max_) {
        return finish({Errc::invalid_argument, describe() + ": " + std::to_string(bytes) + " bytes; at most " +
                                                   std::to_string(bytes_max_) + " at once"},
                      0);
    }
    return {};
}

Status CheckedCollective::finish(Status status, std::uint64_t bytes_received) {
    if (status.ok()) {
        counters_.bytes_received += bytes_received;
    } else {
        broken_ = true;
    }
    return status;
}

}  // namespace kvgrid::comm
