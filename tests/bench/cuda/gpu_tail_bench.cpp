// A decode over sequences that two GPUs hold the halves of, joined: in the tail of the decode kernel, and by an exchange kernel behind it; beside each
// half alone, and all of it on one GPU. Graph replay, medians; 32 query and 8 KV heads of 128, bf16, one new token each. Ranks are threads of this process.
//
//   gpu_tail_bench [NAME]       part of a row's name
//
//   one GPU     us of the whole
//   half        us of the slower GPU's half, not joined
//   tail        us with the join in the tail; + what it takes above `half`
//   exchange    us with an exchange kernel behind; + what it takes above `half`
//   times       one GPU / tail
//   FAILED      a rank waited in vain, or the two ways do not give the same bits: ends with 1. Fewer than two GPUs: 77

#include <cuda_runtime_api.h>

#include <cstdio>
#include <string>
#include <thread>
#include <vector>

#include "comm/collective/thread_world.h"
#include "core/build_info.h"
#include "kernels/cuda/device.h"
#include "tests/bench/cuda/decode_batch.h"
#include "tests/bench/cuda/rank_timer.h"
#include "worker/gpu/peer_mailboxes.h"

namespace kvgrid::bench {
namespace {

using kernels::check_cuda;
using kernels::DeviceArray;

constexpr int kRanks = 2;

enum class Split { none, sequence, heads };

struct Row {
    std::string name;
    int sequences, tokens;
    KvDtype kv_dtype = KvDtype::as_model;
};

// What one rank of so many holds.
DecodeCase case_of(const Row& row, Split split) {
    DecodeCase part{.name = row.name, .lengths = std::vector<int>(row.sequences, row.tokens)};
    part.kv_dtype = row.kv_dtype;
    if (split == Split::sequence) part.lengths.assign(row.sequences, row.tokens / kRanks);
    if (split == Split::heads) {
        part.query_heads /= kRanks;
        part.kv_heads /= kRanks;
    }
    return part;
}

struct Times {
    double one_gpu = 0, half = 0, tail = 0, exchange = 0;
};

class Rank {
  public:
    Rank(comm::Collective& control, const Row& row, Split split)
        : control_(control),
          split_(split),
          decode_(case_of(row, split)),
          mailboxes_(split == Split::none
                         ? nullptr
                         : worker::PeerMailboxes::form({control, 0, nullptr, soon()}, counts_).value()) {
        check_cuda(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
        const kernels::Decode work = decode_.work();
        const std::size_t rows = static_cast<std::size_t>(work.row_count) * work.shape.heads.query_heads;
        partial_ = DeviceArray<float>(rows * work.shape.heads.head_dim);
        lse_ = DeviceArray<float>(rows);
        merged_ = DeviceArray<std::byte>(kRanks * rows * work.shape.heads.head_dim * byte_size(work.dtype));
        void* words = nullptr;
        check_cuda(cudaHostAlloc(&words, 2 * sizeof(std::uint32_t), cudaHostAllocMapped), "cudaHostAlloc");
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
    void wait() { check_cuda(cudaStreamSynchronize(stream_), "cudaStreamSynchronize"); }
    void meet() { control_.barrier(soon()).value(); }
    bool has_failed() const { return words_[1] != 0; }
    std::vector<std::byte> merged() const { return merged_.download(); }

    void decode_alone() {
        kernels::Decode work = decode_.work();
        if (split_ != Split::none) {
            work.rounded = {};
            work.partial = partial_.span();
            work.lse = lse_.span();
        }
        kernels::decode(work, stream_);
    }
    void decode_and_exchange() {
        decode_alone();
        kernels::exchange_rows(exchange(), stream_);
    }
    void decode_and_join() {
        const kernels::PeerExchange join = exchange();
        kernels::Decode work = decode_.work();
        work.rounded = {};
        work.partial = partial_.span();
        work.lse = lse_.span();
        work.join = &join;
        kernels::decode(work, stream_);
    }

  private:
    kernels::PeerExchange exchange() {
        const kernels::Decode work = decode_.work();
        const int heads = work.shape.heads.query_heads;
        kernels::PeerExchange join{.rank = control_.rank(),
                                   .rank_count = kRanks,
                                   .root = 0,
                                   .sequence_parts = split_ == Split::heads ? 1 : kRanks,
                                   .first_heads = {0, heads, 2 * heads},
                                   .token_count = work.row_count,
                                   .head_dim = work.shape.heads.head_dim,
                                   .partial = partial_.span().data,
                                   .lse = lse_.span().data,
                                   .merged = merged_.span().data,
                                   .dtype = work.dtype,
                                   .mailboxes = {},
                                   .abort = &words_[0],
                                   .failed = &words_[1],
                                   .timeout_ns = 5'000'000'000};
        std::ranges::copy(mailboxes_->all(), join.mailboxes);
        return join;
    }

    comm::Collective& control_;
    const Split split_;
    const DecodeOnDevice decode_;
    worker::GpuMemoryCounts counts_;
    std::unique_ptr<worker::PeerMailboxes> mailboxes_;
    DeviceArray<float> partial_, lse_;
    DeviceArray<std::byte> merged_;
    volatile std::uint32_t* words_ = nullptr;
    cudaStream_t stream_ = nullptr;
};

// Every rank computes at the same time; what the lead sees is what counts, but for a half alone.
class Measurement {
  public:
    Measurement(const Row& row, Split split) : row_(row), split_(split) {}

    Times run() {
        comm::ThreadWorld world(kRanks);
        {
            std::vector<std::jthread> threads;
            for (int rank = 0; rank < kRanks; ++rank) {
                threads.emplace_back([&, rank] {
                    check_cuda(cudaSetDevice(rank), "cudaSetDevice");
                    const auto control = world.form(rank, std::vector<int>{0, 1}, Generation{1}).value();
                    measure(*control);
                });
            }
        }
        times_.half = std::max(halves_[0], halves_[1]);
        return times_;
    }
    bool has_failed() const { return has_failed_; }

  private:
    void measure(comm::Collective& control) {
        Rank rank(control, row_, split_);
        rank.decode_alone();
        rank.wait();
        rank.meet();
        for (int i = 0; i < 3; ++i) {  // loads the kernels, without anybody waiting for another kernel meanwhile
            rank.decode_and_exchange();
            rank.wait();
        }
        rank.meet();
        RankTimer timer(rank);
        const int calls = row_.sequences * row_.tokens > 500'000 ? 10 : 30;
        halves_[control.rank()] = timer.in_graphs([&] { rank.decode_alone(); }, calls);
        const double exchange = timer.in_graphs([&] { rank.decode_and_exchange(); }, calls);
        const std::vector<std::byte> exchanged = rank.merged();
        const double tail = timer.in_graphs([&] { rank.decode_and_join(); }, calls);
        if (rank.has_failed() || rank.merged() != exchanged) has_failed_ = true;  // the same, to the bit
        if (control.rank() == 0) {
            times_.exchange = exchange;
            times_.tail = tail;
        }
    }

    const Row row_;
    const Split split_;
    Times times_;
    double halves_[kRanks] = {};
    std::atomic<bool> has_failed_ = false;
};

double time_on_one_gpu(const Row& row) {
    double us = 0;
    comm::ThreadWorld world(1);
    std::jthread([&] {
        check_cuda(cudaSetDevice(0), "cudaSetDevice");
        const auto control = world.form(0, std::vector<int>{0}, Generation{1}).value();
        Rank rank(*control, row, Split::none);
        rank.decode_alone();
        rank.wait();
        us = RankTimer(rank).in_graphs([&] { rank.decode_alone(); }, row.sequences * row.tokens > 500'000 ? 10 : 30);
    }).join();
    return us;
}

// False: something failed.
bool run(const Row& row) {
    bool is_right = true;
    const double one_gpu = time_on_one_gpu(row);
    for (const Split split : {Split::sequence, Split::heads}) {
        Measurement measurement(row, split);
        const Times times = measurement.run();
        std::printf("%-22s %-9s %9.1f %9.1f %9.1f +%5.1f %9.1f +%5.1f %7.3f%s\n", row.name.c_str(),
                    split == Split::sequence ? "sequence" : "heads", one_gpu, times.half, times.tail,
                    times.tail - times.half, times.exchange, times.exchange - times.half, one_gpu / times.tail,
                    measurement.has_failed() ? "  FAILED" : "");
        std::fflush(stdout);
        is_right &= !measurement.has_failed();
    }
    return is_right;
}

std::vector<Row> rows() {
    std::vector<Row> all = {{"1 x 256", 1, 256},           {"1 x 4096", 1, 4'096},     {"1 x 131072", 1, 131'072},
                            {"1 x 1048576", 1, 1'048'576}, {"8 x 131072", 8, 131'072}, {"64 x 1024", 64, 1'024},
                            {"64 x 8192", 64, 8'192}};
    for (std::size_t i = 0, plain = all.size(); i < plain; ++i) {
        all.push_back(all[i]);
        all.back().name += ", fp8";
        all.back().kv_dtype = KvDtype::fp8_e4m3;
    }
    return all;
}

}  // namespace
}  // namespace kvgrid::bench

int main(int argc, char** argv) {
    using namespace kvgrid;
    if (kernels::device_count() < bench::kRanks) {
        std::printf("gpu_tail_bench: this machine has not two CUDA devices\n");
        return 77;
    }
    std::printf("2 x %s, commit %s; us\n%-22s %-9s %9s %9s %9s %6s %9s %6s %7s\n",
                kernels::current_device().name.c_str(), build_commit(), "sequences x tokens", "split by", "one GPU",
                "half", "tail", "", "exchange", "", "times");
    bool is_right = true;
    for (const auto& row : bench::rows()) {
        if (argc < 2 || row.name.find(argv[1]) != std::string::npos) is_right &= bench::run(row);
    }
    return is_right ? 0 : 1;
}
