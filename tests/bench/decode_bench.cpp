// Attention of one new token over a long context, which is reading K and V once: against the machine's plain reading of the same memory by
// as many threads. Reading and attention alternate, so that what disturbs the machine hits both, and the best of each counts.
//
//   decode_bench [--benchmark_filter=bf16.*d:128] ...      KVGRID_THREADS=n (default: all cores)
//
//   GB/s         bytes of K and V per second
//   read_GB/s    plain reading; read1_GB/s as one stream per thread, random_GB/s pages in random order
//   of_read      GB/s / read_GB/s
//   goal         what `of_read` is to reach; 0: none is set
//   huge         the share of K and V that lies in huge pages

#include <benchmark/benchmark.h>

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

void decode(benchmark::State& state, const Case& run) {
    kernels::ThreadPool threads(thread_count());
    const std::size_t huge_before = huge_page_bytes();
    AttentionBatch batch(run.shape);
    const kernels::Attention work = batch.work();
    const std::size_t bytes = batch.kv_bytes();
    ReadSpeed plain;
    double best_seconds = 1e9;
    for (auto _ : state) {
        plain.read(batch.base(), bytes, threads);
        plain.read_random_pages(batch.base(), bytes, batch.page_bytes(), threads);
        const auto start = Clock::now();
        attention_cpu(work, threads);
        const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
        best_seconds = std::min(best_seconds, seconds);
        state.SetIterationTime(seconds);
    }
    const double speed = static_cast<double>(bytes) / best_seconds;
    state.counters["GB/s"] = speed / 1e9;
    state.counters["read_GB/s"] = plain.best() / 1e9;
    state.counters["read1_GB/s"] = plain.best_one_stream() / 1e9;
    state.counters["random_GB/s"] = plain.best_random() / 1e9;
    state.counters["of_read"] = speed / plain.best();
    state.counters["goal"] = run.goal;
    const std::size_t huge = std::max(huge_page_bytes(), huge_before) - huge_before;
    state.counters["huge"] = std::min(1.0, static_cast<double>(huge) / static_cast<double>(bytes));
}

// No floor but the call itself: how long a short context takes, which must not be lost in waking threads.
void decode_short(benchmark::State& state, const AttentionShape& shape) {
    kernels::ThreadPool threads(thread_count());
    AttentionBatch batch(shape);
    const kernels::Attention work = batch.work();
    for (auto _ : state) attention_cpu(work, threads);
    state.counters["GB/s"] =
        benchmark::Counter(static_cast<double>(batch.kv_bytes()) / 1e9, benchmark::Counter::kIsIterationInvariantRate);
}

void add_cases() {
    const Case cases[] = {
        {{Dtype::bf16, 32, 8, 128, 65536, 1, PageOrder::filled}, 0.8},
        {{Dtype::bf16, 32, 8, 128, 65536, 1, PageOrder::grown}, 0.8},
        {{Dtype::bf16, 32, 8, 128, 65536, 1, PageOrder::random}},
        {{Dtype::bf16, 32, 8, 128, 16384, 1, PageOrder::filled}, 0.8},
        {{Dtype::f16, 32, 8, 128, 65536, 1, PageOrder::filled}, 0.6},
        {{Dtype::f32, 32, 8, 128, 65536, 1, PageOrder::filled}, 0.6},
        {{Dtype::bf16, 9, 3, 64, 262144, 1, PageOrder::filled}, 0.6},
        {{Dtype::f16, 9, 3, 64, 262144, 1, PageOrder::filled}, 0.6},
        {{Dtype::f32, 9, 3, 64, 262144, 1, PageOrder::filled}, 0.6},
        {{Dtype::bf16, 16, 4, 256, 65536, 1, PageOrder::filled}, 0.6},
        {{Dtype::f16, 16, 4, 256, 65536, 1, PageOrder::filled}, 0.6},
        {{Dtype::f32, 16, 4, 256, 65536, 1, PageOrder::filled}, 0.6},
        {{Dtype::bf16, 8, 8, 128, 65536, 1, PageOrder::filled}},
        {{Dtype::bf16, 32, 4, 128, 65536, 1, PageOrder::filled}},
        {{Dtype::bf16, 32, 8, 128, 65536, 4, PageOrder::filled}},
    };
    for (const Case& run : cases) {
        benchmark::RegisterBenchmark(("decode/" + run.shape.to_string()).c_str(), decode, run)
            ->UseManualTime()
            ->Unit(benchmark::kMillisecond);
    }
    for (const int length : {64, 256, 1024}) {
        const AttentionShape shape{Dtype::bf16, 32, 8, 128, length, 1};
        benchmark::RegisterBenchmark(("decode_short/" + shape.to_string()).c_str(), decode_short, shape)
            ->UseRealTime()
            ->Unit(benchmark::kMicrosecond);
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
