#pragma once

#include <atomic>
#include <cstddef>
#include <limits>
#include <string>

#include "comm/collective/collective.h"

namespace kvgrid::comm {

// What every back end does alike: checks arguments, counts, breaks at the first error, and answers for a single rank without asking
// anybody. A back end writes the run_ functions: they get sound arguments, more than one rank, and no broken collective.
class CheckedCollective : public Collective {
  public:
    CheckedCollective(int rank, int size, Generation generation,
                      std::size_t bytes_max = std::numeric_limits<std::size_t>::max());

    int rank() const final { return rank_; }
    int size() const final { return size_; }
    Generation generation() const final { return generation_; }
    Status all_gather(std::span<const std::byte> mine, std::span<std::byte> all, Deadline deadline) final;
    Status gather(std::span<const std::byte> mine, std::span<std::byte> all, int root, Deadline deadline) final;
    Status broadcast(std::span<std::byte> data, int root, Deadline deadline) final;
    Status all_reduce(std::span<std::int64_t> values, ReduceOp op, Deadline deadline) final;
    Status barrier(Deadline deadline) final;
    void cancel() final;
    bool is_cancelled() const final { return cancelled_.load(std::memory_order_relaxed); }
    CollectiveCounters counters() const final { return counters_; }

  protected:
    // gather is an all-gather whose `all` is empty except at the root (root -1: every rank receives).
    virtual Status run_gather(std::span<const std::byte> mine, std::span<std::byte> all, int root,
                              Deadline deadline) = 0;
    virtual Status run_broadcast(std::span<std::byte> data, int root, Deadline deadline) = 0;
    virtual Status run_all_reduce(std::span<std::int64_t> values, ReduceOp op, Deadline deadline) = 0;
    virtual Status run_barrier(Deadline deadline) = 0;
    // After `is_cancelled` has become true: makes a run_ function that sleeps look at it. From any thread.
    virtual void wake() {}

    Error cancelled_error() const;
    bool is_broken() const { return broken_; }
    void forget_counts() { counters_ = {}; }  // after calls of the back end's own
    std::string describe() const;             // "barrier, call 17 of rank 2 of 4 in generation 5"

  private:
    Status begin(const char* operation, std::size_t bytes, int root);
    Status finish(Status status, std::uint64_t bytes_received);
    Status gather_to(const char* operation, std::span<const std::byte> mine, std::span<std::byte> all, int root,
                     Deadline deadline);

    const int rank_;
    const int size_;
    const Generation generation_;
    const std::size_t bytes_max_;  // of one rank's contribution
    const char* operation_ = "";   // the latest
    CollectiveCounters counters_;
    bool broken_ = false;
    std::atomic<bool> cancelled_ = false;
};

}  // namespace kvgrid::comm
