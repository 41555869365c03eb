#include "comm/collective/nccl/nccl_communicator.h"

#include <optional>
#include <string>
#include <thread>
#include <utility>

namespace kvgrid::comm {

namespace {

using namespace std::chrono_literals;

constexpr std::chrono::milliseconds kFarewell{5'000};  // for the end of a communicator that nothing is wrong with

bool never_cancelled() {
    return false;
}

// Polls `ended` without giving the core away for long: what NCCL does takes microseconds, but where it forms or ends.
template <class Ended>
Status poll(const Ended& ended, Deadline deadline, const NcclCommunicator::IsCancelled& is_cancelled,
            const char* what) {
    const TimePoint began = std::chrono::steady_clock::now();
    for (;;) {
        const auto outcome = ended();
        if (outcome) return *outcome;
        const TimePoint now = std::chrono::steady_clock::now();
        if (now >= deadline) return {Errc::deadline_exceeded, std::string(what) + ": not all ranks came in time"};
        if (is_cancelled()) return {Errc::peer_lost, std::string(what) + ": cancelled"};
        if (now - began > 1ms) std::this_thread::sleep_for(50us);
    }
}

}  // namespace

NcclCommunicator::NcclCommunicator(int size, Counters counters) : size_(size), counters_(std::move(counters)) {
    ++*counters_.alive;
}

Result<std::unique_ptr<NcclCommunicator>> NcclCommunicator::form(const Membership& membership, int blocks_max,
                                                                 Counters counters, Deadline deadline) {
    const std::string name = "kvgrid generation " + std::to_string(membership.generation.value);
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    config.commName = name.c_str();
    if (blocks_max > 0) {
        config.minCTAs = 1;
        config.maxCTAs = blocks_max;
    }
    std::unique_ptr<NcclCommunicator> made(new NcclCommunicator(membership.size, std::move(counters)));
    const ncclResult_t begun =
        ncclCommInitRankConfig(&made->comm_, membership.size, membership.id, membership.rank, &config);
    if (Status formed = made->settled(begun, "ncclCommInitRankConfig", deadline, never_cancelled); !formed) {
        made->abort();
        return formed.error();
    }
    return made;
}

NcclCommunicator::~NcclCommunicator() {
    if (comm_ != nullptr) {
        const Deadline deadline = deadline_in(kFarewell);
        if (settled(ncclCommFinalize(comm_), "ncclCommFinalize", deadline, never_cancelled)) {
            ncclCommDestroy(comm_);
            comm_ = nullptr;
        } else {
            abort();
        }
    }
    --*counters_.alive;
}

Status NcclCommunicator::trouble(ncclResult_t result, const char* call) const {
    const char* const last = ncclGetLastError(comm_);
    std::string text = std::string(call) + ": " + ncclGetErrorString(result);
    if (last != nullptr && *last != '\0') text += std::string(" (") + last + ")";
    // A remote error says that a peer is gone; the others, that this machine or its set-up is at fault.
    return {result == ncclRemoteError ? Errc::peer_lost : Errc::unavailable, std::move(text)};
}

// The others send, and the root receives.
ncclResult_t NcclCommunicator::begin_gather(const std::byte* mine, std::byte* all, std::size_t bytes, int root,
                                            cudaStream_t stream) {
    if (all == nullptr) return ncclSend(mine, bytes, ncclInt8, root, comm_, stream);
    ncclGroupStart();
    for (int other = 0; other < size_; ++other) {
        if (other != root) ncclRecv(all + other * bytes, bytes, ncclInt8, other, comm_, stream);
    }
    return ncclGroupEnd();
}

Status NcclCommunicator::settled(ncclResult_t begun, const char* call, Deadline deadline,
                                 const IsCancelled& is_cancelled) {
    if (begun != ncclSuccess && begun != ncclInProgress) return trouble(begun, call);
    if (comm_ == nullptr) return {Errc::unavailable, std::string(call) + ": NCCL made no communicator"};
    return poll(
        [&]() -> std::optional<Status> {
            ncclResult_t state = ncclSuccess;
            if (const ncclResult_t asked = ncclCommGetAsyncError(comm_, &state); asked != ncclSuccess) {
                return trouble(asked, "ncclCommGetAsyncError");
            }
            if (state == ncclInProgress) return std::nullopt;
            return state == ncclSuccess ? Status() : trouble(state, call);
        },
        deadline, is_cancelled, call);
}

Status NcclCommunicator::wait(cudaStream_t stream, Deadline deadline, const IsCancelled& is_cancelled) {
    return poll(
        [&]() -> std::optional<Status> {
            const cudaError_t state = cudaStreamQuery(stream);
            if (state == cudaSuccess) return Status();
            if (state != cudaErrorNotReady) fatal(std::string("cudaStreamQuery: ") + cudaGetErrorString(state));
            ncclResult_t error = ncclSuccess;
            if (ncclCommGetAsyncError(comm_, &error) != ncclSuccess ||
                (error != ncclSuccess && error != ncclInProgress)) {
                return trouble(error, "a collective");
            }
            return std::nullopt;
        },
        deadline, is_cancelled, "a collective");
}

void NcclCommunicator::abort() {
    if (comm_ == nullptr) return;
    ncclCommAbort(std::exchange(comm_, nullptr));
    ++*counters_.aborts;
}

}  // namespace kvgrid::comm
