// Layer calls of shards that a program has on two GPUs, joined in the decode kernels' tails, as one graph on each: append, attention and join. To be
// read beside gpu_tail_bench, which has the kernel and the join alone. One sequence, 32 query and 8 KV heads of 128, bf16, one new token.
// Ranks are threads of this process.
//
//   gpu_embedded_join_bench
//
//   layer      us of a layer call, of 16 in a graph, medians
//   FAILED     a rank waited in vain, or did not join in the tail: ends with 1. Fewer than two GPUs: 77

#include <cuda_runtime_api.h>

#include <cstdio>
#include <random>
#include <thread>
#include <vector>

#include "comm/collective/thread_world.h"
#include "core/build_info.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/device_buffer.h"
#include "tests/bench/bench_model.h"
#include "tests/bench/cuda/rank_timer.h"
#include "worker/gpu/gpu_device.h"
#include "worker/shard.h"

namespace kvgrid::bench {
namespace {

using kernels::check_cuda;
using kernels::DeviceArray;
using worker::Shard;
using worker::ShardLayer;
using worker::StepKind;
using worker::TensorMemory;

constexpr int kRanks = 2, kLayers = 16, kChunkTokens = 4096;
constexpr ModelId kModel{1};
constexpr SequenceId kSequence{1};

cudaStream_t new_stream(int device) {
    check_cuda(cudaSetDevice(device), "cudaSetDevice");
    cudaStream_t stream = nullptr;
    check_cuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
    return stream;
}

class Rank {
  public:
    Rank(comm::Collective& control, GridShape grid, int tokens)
        : control_(control),
          grid_(grid),
          stream_(new_stream(control.rank())),
          device_(worker::GpuDevice::make_on_stream(control.rank(), stream_).value()),
          shard_(control.rank(), pool_bytes(tokens), *device_),
          tensors_(kChunkTokens * spec_.query_heads * spec_.row_bytes()),
          o_(spec_.query_heads * spec_.row_bytes()) {
        shard_.add_model(kModel, spec_, grid, 0).value();
        shard_.open(kSequence, kModel, {}).value();
        join_ = device_->make_join({control, 0, nullptr, soon()}).value();
        std::vector<std::byte> numbers(tensors_.span().size);
        std::mt19937 engine(control.rank());
        std::normal_distribution<float> normal;
        for (std::size_t i = 0; i < numbers.size() / 2; ++i)
            store_element(numbers.data(), i, Dtype::bf16, normal(engine));
        tensors_.upload(numbers);
        for (int written = 0; written < tokens; written += kChunkTokens)
            write(std::min(kChunkTokens, tokens - written));
    }
    ~Rank() {
        join_.reset();
        wait();
    }
    Rank(const Rank&) = delete;

    cudaStream_t stream() const { return stream_; }
    void wait() { check_cuda(cudaStreamSynchronize(stream_), "cudaStreamSynchronize"); }
    void meet() { control_.barrier(soon()).value(); }
    bool has_failed() const { return has_failed_; }

    double layer_us() {
        const StepId step = begin(1, StepKind::attend);
        shard_.prepare({&step, 1}).value();
        join_->prepare(spec_, grid_, 1, ++operation_);  // its memory, which cannot be had in a capture
        wait();
        meet();
        const double us = RankTimer(*this).in_graphs([&] { queue_layers(step); }, 1) / kLayers;
        has_failed_ = has_failed_ || !join_->finish(soon());
        shard_.abort(step).value();
        return us;
    }

  private:
    std::uint64_t pool_bytes(int tokens) const {
        const std::uint64_t pages = tokens / kPageTokens + 2 * grid_.sequence_parts;
        return pages * kLayers * spec_.kv_heads * spec_.page_bytes() / kRanks + (std::uint64_t{64} << 20);
    }
    HeadRange kv_heads() const { return kv_heads_of_part(spec_, grid_, grid_.head_part(control_.rank())); }
    std::span<const std::byte> numbers(std::size_t bytes) const { return {tensors_.span().data, bytes}; }

    StepId begin(int tokens, StepKind kind) {
        const StepId step{++last_step_};
        shard_.begin({.step = step, .model = kModel, .kind = kind, .parts = {{kSequence, tokens}}}).value();
        return step;
    }
    ShardLayer call(const StepId& step, int layer, int tokens, bool attends) const {
        const std::size_t kv = tokens * kv_heads().count * spec_.row_bytes();
        return {.steps = {&step, 1},
                .layer = layer,
                .q = numbers(attends ? kv * spec_.group() : 0),
                .k = numbers(kv),
                .v = numbers(kv),
                .whole = {},
                .partial = {},
                .lse = {},
                .inputs_in = TensorMemory::device,
                .outputs_in = TensorMemory::device};
    }
    void write(int tokens) {
        const StepId step = begin(tokens, StepKind::write);
        for (int layer = 0; layer < kLayers; ++layer) shard_.layer(call(step, layer, tokens, false)).value();
        shard_.commit(step).value();
    }
    void queue_layers(const StepId& step) {
        for (int layer = 0; layer < kLayers; ++layer) {
            join_->prepare(spec_, grid_, 1, ++operation_);
            if (control_.rank() == 0) join_->joins_into({o_.span().data, o_.span().size});
            ShardLayer work = call(step, layer, 1, true);
            work.partial = join_->partial();
            work.lse = join_->lse();
            work.tail = join_->tail();
            shard_.layer(work).value();
            has_failed_ = has_failed_ || work.tail == nullptr || !work.tail->is_queued;
        }
    }

    comm::Collective& control_;
    const ModelSpec spec_ = bench_model("bench", kLayers);
    const GridShape grid_;
    const cudaStream_t stream_;  // of the whole run
    std::unique_ptr<worker::GpuDevice> device_;
    Shard shard_;
    std::unique_ptr<worker::Join> join_;
    DeviceArray<std::byte> tensors_, o_;
    std::uint64_t last_step_ = 0, operation_ = 0;
    bool has_failed_ = false;
};

// False: something failed.
bool run(GridShape grid, int tokens) {
    double us = 0;
    std::atomic<bool> has_failed = false;
    comm::ThreadWorld world(kRanks);
    {
        std::vector<std::jthread> threads;
        for (int index = 0; index < kRanks; ++index) {
            threads.emplace_back([&, index] {
                const auto control = world.form(index, std::vector<int>{0, 1}, Generation{1}).value();
                Rank rank(*control, grid, tokens);
                const double of_rank = rank.layer_us();
                if (index == 0) us = of_rank;
                if (rank.has_failed()) has_failed = true;
            });
        }
    }
    std::printf("1 x %-18d %-9s %9.1f%s\n", tokens, grid.head_parts > 1 ? "heads" : "sequence", us,
                has_failed ? "  FAILED" : "");
    std::fflush(stdout);
    return !has_failed;
}

}  // namespace
}  // namespace kvgrid::bench

int main() {
    using namespace kvgrid;
    if (kernels::device_count() < bench::kRanks) {
        std::printf("gpu_embedded_join_bench: this machine has not two CUDA devices\n");
        return 77;
    }
    std::printf("2 x %s, commit %s; us\n%-22s %-9s %9s\n", kernels::current_device().name.c_str(), build_commit(),
                "sequences x tokens", "split by", "layer");
    bool is_right = true;
    for (const int tokens : {256, 4'096, 131'072}) {
        for (const GridShape grid : {GridShape{1, 2}, GridShape{2, 1}}) is_right &= bench::run(grid, tokens);
    }
    return is_right ? 0 : 1;
}
