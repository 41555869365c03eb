// What joining the ranks' rows costs: pushed into the lead's memory and merged there as they arrive, beside NCCL's gather with a merge kernel after
// it. Ranks are threads of this process, on the GPUs in turn: with one GPU they share it. All ranks hold parts of the same heads.
//
//   gpu_join_bench [RANKS]       default: 2 and 4
//
//   in graphs   us of one join of many in a replayed graph
//   queued      us of one of many launched one after the other
//   alone       us from the launch to its end, seen by the lead's host thread; p50
//   NCCL        - where it is not built in, or cannot serve so many ranks on these GPUs

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include "comm/collective/thread_world.h"
#include "core/build_info.h"
#include "kernels/cuda/cuda_error.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/device_buffer.h"
#include "kernels/cuda/device_merge_parts.h"
#include "kernels/cuda/peer_exchange.h"
#include "tests/bench/cuda/rank_timer.h"
#include "worker/gpu/peer_mailboxes.h"
#if KVGRID_HAS_NCCL
#include "comm/collective/nccl/nccl_world.h"
#endif

namespace kvgrid::bench {
namespace {

using kernels::check_cuda;

constexpr int kHeads = 8, kHeadDim = 128;
constexpr std::size_t kRowBytes = kHeadDim * sizeof(float);

// One rank's memory and stream.
class Rank {
  public:
    Rank(comm::Collective& control, int tokens)
        : control_(control),
          rows_(static_cast<std::size_t>(tokens) * kHeads),
          tokens_(tokens),
          mailboxes_(worker::PeerMailboxes::form({control, 0, nullptr, soon()}, counts_).value()) {
        check_cuda(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
        blocks_ = kernels::DeviceArray<float>(block_floats() * control.size());
        merged_ = kernels::DeviceArray<std::byte>(rows_ * kHeadDim * 2);
        check_cuda(cudaMemset(blocks_.span().data, 0, blocks_.span().size * sizeof(float)), "cudaMemset");
        void* words = nullptr;
        check_cuda(cudaHostAlloc(&words, 8, cudaHostAllocMapped), "cudaHostAlloc");
        words_ = static_cast<volatile std::uint32_t*>(words);
        words_[0] = 0;
        words_[1] = 0;
        check_cuda(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
    }
    ~Rank() {
        cudaFreeHost(const_cast<std::uint32_t*>(words_));
        cudaStreamDestroy(stream_);
    }
    Rank(const Rank&) = delete;

    cudaStream_t stream() const { return stream_; }
    bool is_lead() const { return control_.rank() == 0; }
    bool has_failed() const { return words_[1] != 0; }
    std::size_t block_floats() const { return (rows_ * (kHeadDim + 1) + 63) / 64 * 64; }
    float* block() { return blocks_.span().data + control_.rank() * block_floats(); }
    float* blocks() { return blocks_.span().data; }
    void meet() { control_.barrier(soon()).value(); }

    void push() {
        kernels::PeerExchange work{.rank = control_.rank(),
                                   .rank_count = control_.size(),
                                   .root = 0,
                                   .sequence_parts = control_.size(),
                                   .first_heads = {0, kHeads},
                                   .token_count = tokens_,
                                   .head_dim = kHeadDim,
                                   .partial = block(),
                                   .lse = block() + rows_ * kHeadDim,
                                   .merged = merged_.span().data,
                                   .dtype = Dtype::bf16,
                                   .mailboxes = {},
                                   .abort = &words_[0],
                                   .failed = &words_[1],
                                   .timeout_ns = 5'000'000'000};
        std::ranges::copy(mailboxes_->all(), work.mailboxes);
        kernels::exchange_rows(work, stream_);
    }
    void merge() {
        const std::size_t size = blocks_.span().size;
        kernels::merge_parts_on_device({.partial = {blocks(), size},
                                        .lse = {blocks() + rows_ * kHeadDim, size - rows_ * kHeadDim},
                                        .part_stride = block_floats(),
                                        .part_count = control_.size(),
                                        .token_count = tokens_,
                                        .head_count = kHeads,
                                        .head_dim = kHeadDim,
                                        .merged = merged_.span(),
                                        .merged_dtype = Dtype::bf16,
                                        .merged_heads = kHeads,
                                        .first_head = 0},
                                       stream_);
    }
    void wait() { check_cuda(cudaStreamSynchronize(stream_), "cudaStreamSynchronize"); }

  private:
    comm::Collective& control_;
    const std::size_t rows_;
    const int tokens_;
    worker::GpuMemoryCounts counts_;
    std::unique_ptr<worker::PeerMailboxes> mailboxes_;
    kernels::DeviceArray<float> blocks_;
    kernels::DeviceArray<std::byte> merged_;
    volatile std::uint32_t* words_ = nullptr;
    cudaStream_t stream_ = nullptr;
};

void print(bool is_lead, const char* form, std::initializer_list<double> times) {
    if (!is_lead) return;
    std::printf("  %-24s", form);
    for (double us : times) us < 0 ? std::printf("%12s", "-") : std::printf("%12.2f", us);
    std::printf("\n");
    std::fflush(stdout);
}

#if KVGRID_HAS_NCCL
void run_nccl(comm::Collective& control, Rank& rank, bool shares_gpu) {
    comm::NcclWorld nccl;
    auto gather = nccl.form_gather(control, {.blocks_max = shares_gpu ? 2 : 0, .share_process = false}, soon());
    if (!gather) {
        print(rank.is_lead(), "NCCL's gather, merged", {-1, -1, -1});
        return;
    }
    rank.meet();
    const std::size_t bytes = rank.block_floats() * sizeof(float);
    const auto join = [&] {
        const auto* const mine = rank.is_lead() ? nullptr : reinterpret_cast<const std::byte*>(rank.block());
        auto* const all = rank.is_lead() ? reinterpret_cast<std::byte*>(rank.blocks()) : nullptr;
        (*gather)->queue(mine, all, bytes, 0, rank.stream(), soon()).value();
        if (rank.is_lead()) rank.merge();
    };
    for (int i = 0; i < 3; ++i) {
        join();
        rank.wait();
    }
    RankTimer timer(rank);
    const double queued = timer.queued(join), alone = timer.alone(join);
    print(rank.is_lead(), "NCCL's gather, merged", {-1, queued, alone});
    rank.meet();
}
#else
void run_nccl(comm::Collective&, Rank& rank, bool) {
    print(rank.is_lead(), "NCCL's gather, merged", {-1, -1, -1});
}
#endif

void run_rank(comm::Collective& control, int tokens) {
    const int gpus = kernels::device_count();
    check_cuda(cudaSetDevice(control.rank() % gpus), "cudaSetDevice");
    Rank rank(control, tokens);
    if (rank.is_lead()) std::printf("%zu KB of rows to a rank\n", tokens * kHeads * kRowBytes >> 10);
    rank.merge();  // loads the kernel
    rank.wait();
    rank.meet();
    RankTimer timer(rank);
    const auto push = [&] { rank.push(); };
    const double graphs = timer.in_graphs(push), queued = timer.queued(push), alone = timer.alone(push);
    print(rank.is_lead(), rank.has_failed() ? "pushed: FAILED" : "pushed and merged", {graphs, queued, alone});
    run_nccl(control, rank, control.size() > gpus);
}

void run(int ranks) {
    std::printf("%d ranks on %d GPUs%25s%12s%12s\n", ranks, std::min(ranks, kernels::device_count()), "in graphs",
                "queued", "alone");
    comm::ThreadWorld world(ranks);
    std::vector<int> everyone(ranks);
    for (int rank = 0; rank < ranks; ++rank) everyone[rank] = rank;
    std::uint64_t generation = 0;
    for (int tokens : {1, 4, 16, 64}) {
        ++generation;
        std::vector<std::jthread> threads;
        for (int rank = 0; rank < ranks; ++rank) {
            threads.emplace_back([&, rank] {
                auto control = world.form(rank, everyone, Generation{generation}).value();
                run_rank(*control, tokens);
            });
        }
    }
}

}  // namespace
}  // namespace kvgrid::bench

int main(int argc, char** argv) {
    using namespace kvgrid;
#if KVGRID_HAS_NCCL
    comm::prepare_nccl_environment();
#endif
    if (kernels::device_count() == 0) {
        std::printf("gpu_join_bench: this machine has no CUDA device\n");
        return 0;
    }
    std::printf("%s, commit %s; us, rows of %d heads of %d dims in f32, joined to bf16\n",
                kernels::current_device().name.c_str(), build_commit(), bench::kHeads, bench::kHeadDim);
    if (argc > 1) {
        bench::run(std::atoi(argv[1]));
        return 0;
    }
    for (int ranks : {2, 4}) bench::run(ranks);
    return 0;
}
