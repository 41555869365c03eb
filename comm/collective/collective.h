#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "core/clock.h"
#include "core/ids.h"
#include "core/result.h"

namespace kvgrid::comm {

enum class ReduceOp { sum, min, max };

// What has gone through a collective since it was made. "Moved" counts bytes that crossed from one rank to another, as the
// operation's definition needs (all-gather of b bytes over n ranks: b * (n - 1) received by each rank).
struct CollectiveCounters {
    std::uint64_t calls = 0;
    std::uint64_t bytes_received = 0;
};

// The ranks of one generation of a grid, acting together. Every rank makes the same calls in the same order, from one thread each.
//
//   Deadline   every call returns by its deadline (a few milliseconds later at worst): deadline_exceeded if peers did not come.
//   Errors     after the first error of any call the collective is broken and each further call fails at once with peer_lost: form a
//              new one under a new generation. Buffers given to the failed call may still be written by the library; back ends
//              therefore copy or keep what they must, so that the caller may free its own.
//   Cancel     for when it is known that a peer will not come, so that nobody waits for the deadline.
//   Generation every back end makes sure that ranks of different generations cannot meet.
class Collective {
  public:
    virtual ~Collective() = default;

    virtual int rank() const = 0;
    virtual int size() const = 0;
    virtual Generation generation() const = 0;

    // all: [size, mine.size()], by rank.
    virtual Status all_gather(std::span<const std::byte> mine, std::span<std::byte> all, Deadline deadline) = 0;

    // As all_gather, but only `root` receives; `all` may be empty elsewhere.
    virtual Status gather(std::span<const std::byte> mine, std::span<std::byte> all, int root, Deadline deadline) = 0;

    virtual Status broadcast(std::span<std::byte> data, int root, Deadline deadline) = 0;

    // In place, element by element.
    virtual Status all_reduce(std::span<std::int64_t> values, ReduceOp op, Deadline deadline) = 0;

    // Returns after every rank has entered.
    virtual Status barrier(Deadline deadline) = 0;

    // From any thread: this rank's call that is under way, and each one after it, ends with peer_lost within a millisecond.
    // The other ranks are not told.
    virtual void cancel() = 0;
    virtual bool is_cancelled() const = 0;  // from any thread

    virtual CollectiveCounters counters() const = 0;
};

}  // namespace kvgrid::comm
