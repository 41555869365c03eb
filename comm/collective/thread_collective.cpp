#include "comm/collective/thread_collective.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <thread>

#include "comm/collective/checked_collective.h"

namespace kvgrid::comm {
namespace {

// What one rank brings to one round: a copy of its bytes, so that nobody looks at a caller's memory, and what it is about to do.
struct Contribution {
    enum class Kind { gather, broadcast, all_reduce, barrier };
    Kind kind = Kind::barrier;
    int root_or_op = 0;
    std::vector<std::byte> bytes;

    bool agrees_with(const Contribution& other) const {
        return kind == other.kind && root_or_op == other.root_or_op && bytes.size() == other.bytes.size();
    }
};

// Where the ranks meet, round after round. Each round all ranks contribute, and then all read.
//
//   round      1        2        3
//   table      odd      even     odd
//
// Two tables are enough: a rank that writes into round k + 1's has seen round k complete, so every rank had entered round k and was done
// with reading round k - 1, whose table that is.
class Room {
    static constexpr std::chrono::microseconds kSpinTime{20};

  public:
    explicit Room(int size)
        : tables_{std::vector<Contribution>(size), std::vector<Contribution>(size)}, entered_(size), cancelled_(size) {}

    // The rank's own place in a round that it has not entered; its memory is used again from round to round.
    Contribution& place(std::uint64_t round, int rank) { return table(round)[static_cast<std::size_t>(rank)]; }

    // Everyone's contributions, valid until this rank enters the next round.
    Result<const std::vector<Contribution>*> enter(std::uint64_t round, int rank, const std::string& who,
                                                   Deadline deadline) {
        std::unique_lock lock(mutex_);
        if (given_up_)
            return Error{Errc::peer_lost, who + ": another rank has given up waiting; form a new generation"};
        entered_[static_cast<std::size_t>(rank)] = round;
        if (std::ranges::all_of(entered_, [&](std::uint64_t latest) { return latest >= round; })) {
            completed_ = round;
            lock.unlock();
            changed_.notify_all();
            return &table(round);
        }
        lock.unlock();
        spin_until_complete(round);
        lock.lock();
        const auto place = static_cast<std::size_t>(rank);
        const bool woken =
            changed_.wait_until(lock, deadline, [&] { return completed_ >= round || cancelled_[place]; });
        if (completed_ >= round) return &table(round);
        given_up_ = true;
        if (woken) return Error{Errc::peer_lost, who + ": cancelled while it waited for " + absent(round)};
        return Error{Errc::deadline_exceeded, who + ": did not come in time: " + absent(round)};
    }

    // A rank waits no more.
    void cancel(int rank) {
        {
            const std::lock_guard lock(mutex_);
            cancelled_[static_cast<std::size_t>(rank)] = true;
        }
        changed_.notify_all();
    }

  private:
    std::vector<Contribution>& table(std::uint64_t round) { return tables_[round % 2]; }

    // Waking a thread takes longer than what ranks mostly wait for each other.
    void spin_until_complete(std::uint64_t round) const {
        const TimePoint end = std::chrono::steady_clock::now() + kSpinTime;
        while (completed_ < round && std::chrono::steady_clock::now() < end) std::this_thread::yield();
    }

    std::string absent(std::uint64_t round) const {
        std::string ranks;
        for (std::size_t rank = 0; rank < entered_.size(); ++rank) {
            if (entered_[rank] < round) ranks += (ranks.empty() ? "rank " : ", rank ") + std::to_string(rank);
        }
        return ranks;
    }

    std::array<std::vector<Contribution>, 2> tables_;
    std::mutex mutex_;
    std::condition_variable changed_;
    std::vector<std::uint64_t> entered_;  // by rank: its latest round
    std::vector<bool> cancelled_;         // by rank
    std::atomic<std::uint64_t> completed_ = 0;
    bool given_up_ = false;
};

std::int64_t reduce(ReduceOp op, std::int64_t a, std::int64_t b) {
    switch (op) {
        // Unsigned, so that an overflow wraps as it does in MPI.
        case ReduceOp::sum:
            return static_cast<std::int64_t>(static_cast<std::uint64_t>(a) + static_cast<std::uint64_t>(b));
        case ReduceOp::min:
            return std::min(a, b);
        case ReduceOp::max:
            return std::max(a, b);
    }
    fatal("unknown ReduceOp");
}

class ThreadCollective final : public CheckedCollective {
  public:
    ThreadCollective(std::shared_ptr<Room> room, int rank, int size, Generation generation)
        : CheckedCollective(rank, size, generation), room_(std::move(room)) {}

  private:
    using Kind = Contribution::Kind;

    Status run_gather(std::span<const std::byte> mine, std::span<std::byte> all, int root, Deadline deadline) override {
        auto everyone = meet(Kind::gather, root, mine, deadline);
        if (!everyone.ok()) return everyone.error();
        if (all.empty()) return {};
        auto target = all.begin();
        for (const Contribution& one : **everyone) target = std::ranges::copy(one.bytes, target).out;
        return {};
    }

    Status run_broadcast(std::span<std::byte> data, int root, Deadline deadline) override {
        auto everyone = meet(Kind::broadcast, root, data, deadline);
        if (!everyone.ok()) return everyone.error();
        if (rank() != root) std::ranges::copy((**everyone)[static_cast<std::size_t>(root)].bytes, data.begin());
        return {};
    }

    Status run_all_reduce(std::span<std::int64_t> values, ReduceOp op, Deadline deadline) override {
        auto everyone = meet(Kind::all_reduce, static_cast<int>(op), std::as_bytes(values), deadline);
        if (!everyone.ok()) return everyone.error();
        for (std::size_t i = 0; i < values.size(); ++i) {
            values[i] = value_at((**everyone)[0], i);
            for (std::size_t rank = 1; rank < (*everyone)->size(); ++rank) {
                values[i] = reduce(op, values[i], value_at((**everyone)[rank], i));
            }
        }
        return {};
    }

    Status run_barrier(Deadline deadline) override {
        auto everyone = meet(Kind::barrier, 0, {}, deadline);
        return everyone.ok() ? Status{} : everyone.error();
    }

    void wake() override { room_->cancel(rank()); }

    static std::int64_t value_at(const Contribution& contribution, std::size_t index) {
        std::int64_t value;
        std::memcpy(&value, contribution.bytes.data() + index * sizeof value, sizeof value);
        return value;
    }

    Result<const std::vector<Contribution>*> meet(Kind kind, int root_or_op, std::span<const std::byte> bytes,
                                                  Deadline deadline) {
        const std::uint64_t round = ++round_;
        Contribution& mine = room_->place(round, rank());
        mine.kind = kind;
        mine.root_or_op = root_or_op;
        mine.bytes.assign(bytes.begin(), bytes.end());
        auto everyone = room_->enter(round, rank(), describe(), deadline);
        if (!everyone.ok()) return everyone;
        for (std::size_t other = 0; other < (*everyone)->size(); ++other) {
            if (mine.agrees_with((**everyone)[other])) continue;
            return Error{Errc::internal,
                         describe() + ": rank " + std::to_string(other) + " makes another call, or with another size"};
        }
        return everyone;
    }

    const std::shared_ptr<Room> room_;
    std::uint64_t round_ = 0;
};

}  // namespace

std::vector<std::unique_ptr<Collective>> make_thread_collectives(int size, Generation generation) {
    if (size < 1) fatal("collectives of " + std::to_string(size) + " ranks");
    auto room = std::make_shared<Room>(size);
    std::vector<std::unique_ptr<Collective>> ranks;
    for (int rank = 0; rank < size; ++rank) {
        ranks.push_back(std::make_unique<ThreadCollective>(room, rank, size, generation));
    }
    return ranks;
}

}  // namespace kvgrid::comm
