#include <algorithm>
#include <cstring>
#include <limits>
#include <thread>

#include "comm/collective/mpi_collective_impl.h"
#include "core/log.h"

namespace kvgrid::comm {
namespace {

using namespace std::chrono_literals;

// Most collectives end within the first tests. After them the core is given away, as there may be more ranks than cores: first to whoever
// wants it (two ranks that only slept, 20 us at a time, took 200 us for 4 KB instead of 6: they kept missing each other), then by sleeping
// for 1/50 of the time waited so far within these bounds, which adds 2 % to a long wait and costs next to nothing in it.
constexpr int kTestsBeforeYield = 5;
constexpr std::chrono::nanoseconds kYieldTime = 100us;
constexpr std::chrono::nanoseconds kSleepMin = 20us, kSleepMax = 200us;
constexpr int kSleepShare = 50;

void give_core_away(std::chrono::nanoseconds waited, std::chrono::nanoseconds left) {
    if (waited < kYieldTime) return std::this_thread::yield();
    std::this_thread::sleep_for(std::min(std::clamp(waited / kSleepShare, kSleepMin, kSleepMax), left));
}

constexpr int kGatherTag = 1;
constexpr std::size_t kBytesMax = std::numeric_limits<int>::max();  // MPI counts in int

MPI_Op mpi_op(ReduceOp op) {
    switch (op) {
        case ReduceOp::sum:
            return MPI_SUM;
        case ReduceOp::min:
            return MPI_MIN;
        case ReduceOp::max:
            return MPI_MAX;
    }
    fatal("unknown ReduceOp");
}

std::string text_of(int code) {
    char text[MPI_MAX_ERROR_STRING] = "";
    int length = 0;
    MPI_Error_string(code, text, &length);
    return text;
}

}  // namespace

void check_mpi(int code, const char* call) {
    if (code != MPI_SUCCESS) fatal(std::string(call) + ": " + text_of(code));
}

MpiCollective::MpiCollective(MPI_Comm comm, int rank, int size, Generation generation, Counter abandoned)
    : CheckedCollective(rank, size, generation, kBytesMax), comm_(comm), abandoned_(std::move(abandoned)) {}

// The standard calls MPI_Comm_free collective, so it could hang where a peer is lost; Open MPI's talks to nobody. A broken communicator is
// kept for good nevertheless: its abandoned request may still use it.
MpiCollective::~MpiCollective() {
    int finalized = 0;
    MPI_Finalized(&finalized);
    if (!is_broken() && finalized == 0 && comm_ != MPI_COMM_NULL) MPI_Comm_free(&comm_);
}

Status MpiCollective::confirm_generation(Deadline deadline) {
    const std::uint64_t mine = generation().value;
    std::vector<std::uint64_t> all(static_cast<std::size_t>(size()));
    auto gathered = all_gather(std::as_bytes(std::span(&mine, 1)), std::as_writable_bytes(std::span(all)), deadline);
    forget_counts();
    if (!gathered.ok()) return gathered;
    for (std::size_t other = 0; other < all.size(); ++other) {
        if (all[other] == mine) continue;
        return {Errc::stale_generation, "formed generation " + std::to_string(mine) + " with rank " +
                                            std::to_string(other) + ", which is in generation " +
                                            std::to_string(all[other])};
    }
    return {};
}

// To one root by plain messages: MPI_Igather's schedule costs more than the bytes of a join do.
Status MpiCollective::run_gather(std::span<const std::byte> mine, std::span<std::byte> all, int root,
                                 Deadline deadline) {
    buffers_->mine.assign(mine.begin(), mine.end());
    buffers_->all.resize(all.size());
    const int count = static_cast<int>(mine.size());
    int begun = MPI_SUCCESS;
    if (root < 0) {
        begun = MPI_Iallgather(buffers_->mine.data(), count, MPI_BYTE, buffers_->all.data(), count, MPI_BYTE, comm_,
                               new_request());
    } else if (rank() != root) {
        begun = MPI_Isend(buffers_->mine.data(), count, MPI_BYTE, root, kGatherTag, comm_, new_request());
    } else {
        std::ranges::copy(mine, buffers_->all.begin() + root * mine.size());
        for (int other = 0; other < size() && begun == MPI_SUCCESS; ++other) {
            if (other == root) continue;
            begun = MPI_Irecv(buffers_->all.data() + other * mine.size(), count, MPI_BYTE, other, kGatherTag, comm_,
                              new_request());
        }
    }
    Status done = wait(begun, deadline);
    if (done.ok()) std::ranges::copy(buffers_->all, all.begin());
    return done;
}

Status MpiCollective::run_broadcast(std::span<std::byte> data, int root, Deadline deadline) {
    buffers_->all.assign(data.begin(), data.end());
    const int begun =
        MPI_Ibcast(buffers_->all.data(), static_cast<int>(data.size()), MPI_BYTE, root, comm_, new_request());
    Status done = wait(begun, deadline);
    if (done.ok() && rank() != root) std::ranges::copy(buffers_->all, data.begin());
    return done;
}

Status MpiCollective::run_all_reduce(std::span<std::int64_t> values, ReduceOp op, Deadline deadline) {
    const auto bytes = std::as_writable_bytes(values);
    buffers_->all.assign(bytes.begin(), bytes.end());
    const int begun = MPI_Iallreduce(MPI_IN_PLACE, buffers_->all.data(), static_cast<int>(values.size()), MPI_INT64_T,
                                     mpi_op(op), comm_, new_request());
    Status done = wait(begun, deadline);
    if (done.ok()) std::ranges::copy(buffers_->all, bytes.begin());
    return done;
}

Status MpiCollective::run_barrier(Deadline deadline) {
    const int begun = MPI_Ibarrier(comm_, new_request());
    return wait(begun, deadline);
}

MPI_Request* MpiCollective::new_request() {
    return &buffers_->requests.emplace_back(MPI_REQUEST_NULL);
}

Status MpiCollective::wait(int begun, Deadline deadline) {
    if (begun != MPI_SUCCESS) return fail(begun);
    Status status;
    for (int i = 0; i < kTestsBeforeYield; ++i) {
        if (test(status)) return status;
    }
    const TimePoint started = std::chrono::steady_clock::now();
    for (TimePoint now = started; now < deadline; now = std::chrono::steady_clock::now()) {
        give_core_away(now - started, deadline - now);
        if (test(status)) return status;
        if (is_cancelled()) return abandon(cancelled_error());
    }
    return abandon({Errc::deadline_exceeded, describe() + ": not all ranks came in time"});
}

// Whether the requests have ended, in `status` how.
bool MpiCollective::test(Status& status) {
    int done = 0;
    auto& requests = buffers_->requests;
    const int code = MPI_Testall(static_cast<int>(requests.size()), requests.data(), &done, MPI_STATUSES_IGNORE);
    if (code == MPI_SUCCESS && done != 0) requests.clear();
    if (code == MPI_SUCCESS) return done != 0;
    status = fail(code);
    return true;
}

// MPI does not say what else it will do with the buffers.
Status MpiCollective::fail(int code) {
    buffers_.release();
    buffers_ = std::make_unique<Buffers>();
    return {Errc::peer_lost, describe() + ": " + text_of(code)};
}

Status MpiCollective::abandon(Error why) {
    const std::size_t leaked = buffers_->mine.capacity() + buffers_->all.capacity();
    buffers_.release();
    buffers_ = std::make_unique<Buffers>();
    ++*abandoned_;
    log_warn(describe() + ": abandoned, " + std::to_string(leaked) + " bytes are leaked on purpose");
    return why;
}

}  // namespace kvgrid::comm
