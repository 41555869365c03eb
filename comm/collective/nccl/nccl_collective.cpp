#include "comm/collective/nccl/nccl_collective.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

namespace kvgrid::comm {

namespace {

void check(cudaError_t code, const char* call) {
    if (code != cudaSuccess) fatal(std::string(call) + ": " + cudaGetErrorString(code));
}

ncclRedOp_t nccl_op(ReduceOp op) {
    switch (op) {
        case ReduceOp::sum:
            return ncclSum;
        case ReduceOp::min:
            return ncclMin;
        case ReduceOp::max:
            return ncclMax;
    }
    fatal("unknown ReduceOp");
}

}  // namespace

NcclCollective::Staging::~Staging() {
    cudaFreeHost(host);
    cudaFree(device);
}

void NcclCollective::Staging::grow(std::size_t bytes) {
    if (bytes <= size) return;
    check(cudaFreeHost(std::exchange(host, nullptr)), "cudaFreeHost");
    check(cudaFree(std::exchange(device, nullptr)), "cudaFree");
    void *on_host = nullptr, *on_device = nullptr;
    check(cudaMallocHost(&on_host, bytes), "cudaMallocHost for a collective");
    host = static_cast<std::byte*>(on_host);
    check(cudaMalloc(&on_device, bytes), "cudaMalloc for a collective");
    device = static_cast<std::byte*>(on_device);
    size = bytes;
}

NcclCollective::NcclCollective(std::unique_ptr<NcclCommunicator> communicator, const Meeting& meeting, int rank,
                               int size, Generation generation)
    : CheckedCollective(rank, size, generation), communicator_(std::move(communicator)), meeting_(meeting) {
    check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
}

NcclCollective::~NcclCollective() {
    communicator_.reset();  // before the stream and the memory that its kernels use
    cudaStreamDestroy(stream_);
}

// All ranks come to need more in the same call.
Status NcclCollective::reserve(std::size_t mine, std::size_t all, Deadline deadline) {
    if (mine <= mine_.size && all <= all_.size) return {};
    if (Status met = meeting_.meet(deadline); !met) return met;
    mine_.grow(mine);
    all_.grow(all);
    return meeting_.meet(deadline);
}

Status NcclCollective::run_gather(std::span<const std::byte> mine, std::span<std::byte> all, int root,
                                  Deadline deadline) {
    if (Status reserved = reserve(mine.size(), mine.size() * size(), deadline); !reserved) return reserved;
    std::ranges::copy(mine, mine_.host);
    send_to_device(mine_, mine.size());
    if (Status done = finish(begin_gather(mine.size(), root), "gather", all.size(), deadline); !done) return done;
    std::copy_n(all_.host, all.size(), all.begin());
    return {};
}

// To all, or to one root.
ncclResult_t NcclCollective::begin_gather(std::size_t bytes, int root) {
    if (root < 0) return ncclAllGather(mine_.device, all_.device, bytes, ncclInt8, communicator_->get(), stream_);
    if (rank() != root) return communicator_->begin_gather(mine_.device, nullptr, bytes, root, stream_);
    check(cudaMemcpyAsync(all_.device + root * bytes, mine_.device, bytes, cudaMemcpyDeviceToDevice, stream_),
          "cudaMemcpyAsync");
    return communicator_->begin_gather(nullptr, all_.device, bytes, root, stream_);
}

Status NcclCollective::run_broadcast(std::span<std::byte> data, int root, Deadline deadline) {
    if (Status reserved = reserve(0, data.size(), deadline); !reserved) return reserved;
    if (rank() == root) {
        std::ranges::copy(data, all_.host);
        send_to_device(all_, data.size());
    }
    const ncclResult_t begun =
        ncclBroadcast(all_.device, all_.device, data.size(), ncclInt8, root, communicator_->get(), stream_);
    Status done = finish(begun, "broadcast", rank() == root ? 0 : data.size(), deadline);
    if (done && rank() != root) std::copy_n(all_.host, data.size(), data.begin());
    return done;
}

Status NcclCollective::run_all_reduce(std::span<std::int64_t> values, ReduceOp op, Deadline deadline) {
    if (Status reserved = reserve(0, values.size_bytes(), deadline); !reserved) return reserved;
    std::memcpy(all_.host, values.data(), values.size_bytes());
    send_to_device(all_, values.size_bytes());
    const ncclResult_t begun =
        ncclAllReduce(all_.device, all_.device, values.size(), ncclInt64, nccl_op(op), communicator_->get(), stream_);
    Status done = finish(begun, "all_reduce", values.size_bytes(), deadline);
    if (done) std::memcpy(values.data(), all_.host, values.size_bytes());
    return done;
}

Status NcclCollective::run_barrier(Deadline deadline) {
    std::int64_t nothing[] = {0};
    return run_all_reduce(nothing, ReduceOp::sum, deadline);
}

void NcclCollective::send_to_device(const Staging& staging, std::size_t bytes) {
    check(cudaMemcpyAsync(staging.device, staging.host, bytes, cudaMemcpyHostToDevice, stream_), "cudaMemcpyAsync");
}

// Waits for what was begun, and for `bytes` of its outcome to be in all_.host.
Status NcclCollective::finish(ncclResult_t begun, const char* call, std::size_t bytes, Deadline deadline) {
    const auto cancelled = [this] { return is_cancelled(); };
    Status done = communicator_->settled(begun, call, deadline, cancelled);
    if (done && bytes > 0) {  // only now the collective's kernel is in the stream
        check(cudaMemcpyAsync(all_.host, all_.device, bytes, cudaMemcpyDeviceToHost, stream_), "cudaMemcpyAsync");
    }
    if (done) done = communicator_->wait(stream_, deadline, cancelled);
    if (done) return done;
    communicator_->abort();  // frees the stream
    return {done.error().code, describe() + ": " + done.error().message};
}

}  // namespace kvgrid::comm
