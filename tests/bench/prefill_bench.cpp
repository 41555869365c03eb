// Attention of a long chunk over a context, which is two multiplications: against OpenBLAS's sgemm on the same shapes by as many threads,
// in turn with it; the best of each counts. The library has no bf16 on most CPUs, so that f32 is the measure for all dtypes
// (torch_attention.py has PyTorch's bf16 beside it).
//
//   prefill_bench [--benchmark_filter=bf16] ...      KVGRID_THREADS=n (default: all cores)
//
//   GFLOP/s        of both products, visible pairs only; softmax is not counted
//   sgemm_GFLOP/s  Q K^T and P V for as many rows as one KV head's group has in 256 tokens, over the context
//   of_sgemm       GFLOP/s / sgemm_GFLOP/s
//   goal           what `of_sgemm` is to reach; 0: none is set

#include <benchmark/benchmark.h>
#include <cblas.h>

#include <algorithm>
#include <chrono>

#include "tests/bench/attention_batch.h"
#include "tests/bench/machine_speed.h"

namespace kvgrid::bench {
namespace {

using Clock = std::chrono::steady_clock;

struct Case {
    AttentionShape shape;
    double goal = 0;
};

// The two products of one KV head, whole, without a softmax between them.
class Multiplication {
  public:
    explicit Multiplication(const AttentionShape& shape)
        : rows_(256 * shape.query_heads / shape.kv_heads),
          keys_(shape.length),
          head_dim_(shape.head_dim),
          q_(std::size_t{1} * rows_ * head_dim_, 0.5f),
          k_(std::size_t{1} * keys_ * head_dim_, 0.5f),
          v_(k_),
          scores_(std::size_t{1} * rows_ * keys_),
          outputs_(q_.size()) {
        openblas_set_num_threads(thread_count());
    }

    double flops_per_second() {
        const auto start = Clock::now();
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, rows_, keys_, head_dim_, 1, q_.data(), head_dim_,
                    k_.data(), head_dim_, 0, scores_.data(), keys_);
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, rows_, head_dim_, keys_, 1, scores_.data(), keys_,
                    v_.data(), head_dim_, 0, outputs_.data(), head_dim_);
        const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
        benchmark::DoNotOptimize(outputs_.data());
        return 4.0 * rows_ * keys_ * head_dim_ / seconds;
    }

  private:
    int rows_, keys_, head_dim_;
    std::vector<float> q_, k_, v_, scores_, outputs_;
};

void prefill(benchmark::State& state, const Case& run) {
    kernels::ThreadPool threads(thread_count());
    AttentionBatch batch(run.shape);
    Multiplication multiplication(run.shape);
    const kernels::Attention work = batch.work();
    double best_seconds = 1e9, best_multiplication = 0;
    for (auto _ : state) {
        for (int turn = 0; turn < 5; ++turn) {
            best_multiplication = std::max(best_multiplication, multiplication.flops_per_second());
        }
        const auto start = Clock::now();
        attention_cpu(work, threads);
        const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
        best_seconds = std::min(best_seconds, seconds);
        state.SetIterationTime(seconds);
    }
    const double speed = batch.flops() / best_seconds;
    state.counters["GFLOP/s"] = speed / 1e9;
    state.counters["sgemm_GFLOP/s"] = best_multiplication / 1e9;
    state.counters["of_sgemm"] = speed / best_multiplication;
    state.counters["goal"] = run.goal;
}

void add_cases() {
    const Case cases[] = {
        {{Dtype::f32, 32, 8, 128, 10240, 2048}, 0.5}, {{Dtype::bf16, 32, 8, 128, 10240, 2048}, 0.5},
        {{Dtype::f16, 32, 8, 128, 10240, 2048}},      {{Dtype::bf16, 9, 3, 64, 10240, 2048}},
        {{Dtype::bf16, 16, 4, 256, 10240, 2048}},     {{Dtype::bf16, 32, 8, 128, 2048, 2048}},
        {{Dtype::bf16, 32, 8, 128, 8448, 256}},
    };
    for (const Case& run : cases) {
        benchmark::RegisterBenchmark(("prefill/" + run.shape.to_string()).c_str(), prefill, run)
            ->UseManualTime()
            ->MinTime(3)
            ->Unit(benchmark::kMillisecond);
    }
}

}  // namespace
}  // namespace kvgrid::bench

int main(int argc, char** argv) {
    kvgrid::bench::add_cases();
    benchmark::Initialize(&argc, argv);
    if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
    benchmark::RunSpecifiedBenchmarks();
    benchmark::Shutdown();
    return 0;
}
