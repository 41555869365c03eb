// Decode is measured against the machine's plain reading of the same memory by the same threads, in the same process and just
// before (`of_read`); prefill against nothing but the clock (GFLOP/s of the two products of visible pairs).
//
//   attention_bench [--benchmark_filter=decode] ...      KVGRID_THREADS=n (default: all cores)

#include <benchmark/benchmark.h>

#include <algorithm>
#include <bit>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <numeric>
#include <random>
#include <string>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "kernels/attention.h"

namespace kvgrid::kernels {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
}

int bench_threads() {
    const char* given = std::getenv("KVGRID_THREADS");
    return given != nullptr ? std::atoi(given) : static_cast<int>(std::thread::hardware_concurrency());
}

// Memory as a page pool gives it: aligned, in huge pages where the system has them.
struct Memory {
    explicit Memory(std::size_t bytes)
        : size(bytes), base(static_cast<std::byte*>(::operator new[](bytes, kAlignment))) {
#if defined(__linux__)
        madvise(base, bytes, MADV_HUGEPAGE);
#endif
    }
    ~Memory() {
        ::operator delete[](base, kAlignment);
    }
    Memory(const Memory&) = delete;
    Memory& operator=(const Memory&) = delete;

    static constexpr std::align_val_t kAlignment{std::size_t{1} << 21};
    std::size_t size;
    std::byte* base;
};

struct Shape {
    Dtype dtype;
    int query_heads, kv_heads, head_dim;
    int length;  // tokens of the sequence, the new ones among them
    int query_count;
};

// One sequence with pages in random order, elements of about normal size.
class Batch {
  public:
    explicit Batch(const Shape& shape)
        : shape_(shape),
          page_bytes_(std::size_t{2} * kPageTokens * shape.head_dim * byte_size(shape.dtype)),
          list_pages_((shape.length + kPageTokens - 1) / kPageTokens),
          slab_(page_bytes_ * list_pages_ * shape.kv_heads) {
        std::mt19937_64 random(1);
        fill(slab_.base, slab_.size, random);
        std::vector<std::uint32_t> order(std::size_t{1} * list_pages_ * shape.kv_heads);
        std::iota(order.begin(), order.end(), 0u);
        std::shuffle(order.begin(), order.end(), random);
        lists_.resize(shape.kv_heads);
        for (auto& list : lists_) {
            for (int first = 0; first < shape.length; first += kPageTokens) {
                const int count = std::min(kPageTokens, shape.length - first);
                list.push_back({order.back(), static_cast<std::uint32_t>(count), first});
                order.pop_back();
            }
        }
        streams_.assign(lists_.begin(), lists_.end());
        const std::size_t elements = std::size_t{1} * shape.query_count * shape.query_heads * shape.head_dim;
        q_.resize(elements * byte_size(shape.dtype));
        fill(q_.data(), q_.size(), random);
        partial_.resize(elements);
        lse_.resize(elements / shape.head_dim);
        item_ = {
            .streams = streams_, .first_query = shape.length - shape.query_count, .query_count = shape.query_count};
    }

    Attention work() {
        return {.heads = {shape_.query_heads, shape_.kv_heads, shape_.head_dim},
                .dtype = shape_.dtype,
                .scale = 1 / std::sqrt(static_cast<float>(shape_.head_dim)),
                .slab = {slab_.base, page_bytes_},
                .items = {&item_, 1},
                .row_count = shape_.query_count,
                .q = q_,
                .partial = partial_,
                .lse = lse_};
    }
    std::size_t kv_bytes() const {
        return std::size_t{2} * shape_.length * shape_.kv_heads * shape_.head_dim * byte_size(shape_.dtype);
    }
    double flops() const {
        const double pairs = shape_.query_count * (shape_.length - (shape_.query_count - 1) / 2.0);
        return 4.0 * pairs * shape_.query_heads * shape_.head_dim;
    }
    const Memory& slab() const { return slab_; }

  private:
    // Normal numbers in the dtype, out of a table: drawing each would take longer than the benchmark.
    void fill(std::byte* base, std::size_t bytes, std::mt19937_64& random) const {
        std::vector<std::uint32_t> pattern(1 << 16);
        std::normal_distribution<float> normal;
        for (std::uint32_t& word : pattern) {
            std::byte element[8];
            store_element(element, 0, shape_.dtype, normal(random));
            store_element(element, 1, shape_.dtype, normal(random));
            std::copy(element, element + 4, reinterpret_cast<std::byte*>(&word));
        }
        for (std::size_t byte = 0; byte < bytes; byte += 4) {
            std::copy_n(reinterpret_cast<const std::byte*>(&pattern[byte / 4 * 2654435761u >> 7 & 0xffff]), 4,
                        base + byte);
        }
    }

    Shape shape_;
    std::size_t page_bytes_;
    int list_pages_;
    Memory slab_;
    std::vector<std::vector<PageEntry>> lists_;
    std::vector<std::span<const PageEntry>> streams_;
    std::vector<std::byte> q_;
    std::vector<float> partial_, lse_;
    AttentionItem item_;
};

std::uint64_t sum_of(const std::byte* base, std::size_t bytes) {
    const auto* const words = reinterpret_cast<const std::uint64_t*>(base);
    std::uint64_t sums[8] = {};
    for (std::size_t word = 0; word < bytes / 8; word += 8) {
        for (int lane = 0; lane < 8; ++lane) sums[lane] += words[word + lane];
    }
    return std::accumulate(std::begin(sums), std::end(sums), std::uint64_t{0});
}

// Bytes per second of summing the memory up, the best of five turns.
double read_bandwidth(const Memory& memory, ThreadPool& threads) {
    double best = 0;
    const std::size_t chunk = (memory.size / (4 * threads.thread_count())) & ~std::size_t{63};
    for (int turn = 0; turn < 5; ++turn) {
        const auto start = Clock::now();
        threads.run(4 * threads.thread_count(), [&](int task) {
            std::uint64_t sum = sum_of(memory.base + task * chunk, chunk);
            benchmark::DoNotOptimize(sum);
        });
        best = std::max(best, 4.0 * threads.thread_count() * chunk / seconds_since(start));
    }
    return best;
}

void decode(benchmark::State& state, const Shape& shape) {
    ThreadPool threads(bench_threads());
    Batch batch(shape);
    const double read = read_bandwidth(batch.slab(), threads);
    const Attention work = batch.work();
    double best_seconds = 1e9, total = 0;
    for (auto _ : state) {
        const auto start = Clock::now();
        attention_cpu(work, threads);
        const double seconds = seconds_since(start);
        best_seconds = std::min(best_seconds, seconds);
        total += seconds;
        state.SetIterationTime(seconds);
    }
    const double bytes = static_cast<double>(batch.kv_bytes());
    const double read_after = read_bandwidth(batch.slab(), threads);
    state.counters["GB/s"] = bytes * state.iterations() / total / 1e9;
    state.counters["best_GB/s"] = bytes / best_seconds / 1e9;
    state.counters["read_GB/s"] = std::max(read, read_after) / 1e9;
    state.counters["best_of_read"] = bytes / best_seconds / std::max(read, read_after);
}

void prefill(benchmark::State& state, const Shape& shape) {
    ThreadPool threads(bench_threads());
    Batch batch(shape);
    const Attention work = batch.work();
    double best_seconds = 1e9;
    for (auto _ : state) {
        const auto start = Clock::now();
        attention_cpu(work, threads);
        const double seconds = seconds_since(start);
        best_seconds = std::min(best_seconds, seconds);
        state.SetIterationTime(seconds);
    }
    state.counters["best_GFLOP/s"] = batch.flops() / best_seconds / 1e9;
}

std::string name_of_case(const char* kind, const Shape& shape) {
    return std::string(kind) + "/" + name_of(shape.dtype) + "/heads:" + std::to_string(shape.query_heads) + "x" +
           std::to_string(shape.kv_heads) + "/d:" + std::to_string(shape.head_dim) +
           "/new:" + std::to_string(shape.query_count) + "/on:" + std::to_string(shape.length);
}

void add_cases() {
    const Shape decodes[] = {
        {Dtype::bf16, 32, 8, 128, 65536, 1}, {Dtype::f16, 32, 8, 128, 65536, 1}, {Dtype::f32, 32, 8, 128, 65536, 1},
        {Dtype::bf16, 9, 3, 64, 262144, 1},  {Dtype::f16, 9, 3, 64, 262144, 1},  {Dtype::f32, 9, 3, 64, 262144, 1},
        {Dtype::bf16, 16, 4, 256, 65536, 1}, {Dtype::f16, 16, 4, 256, 65536, 1}, {Dtype::f32, 16, 4, 256, 65536, 1},
        {Dtype::bf16, 32, 4, 128, 65536, 1}, {Dtype::bf16, 8, 8, 128, 65536, 1}, {Dtype::bf16, 32, 8, 128, 65536, 4},
        {Dtype::bf16, 32, 8, 128, 1024, 1},
    };
    const Shape prefills[] = {
        {Dtype::f32, 32, 8, 128, 10240, 2048}, {Dtype::bf16, 32, 8, 128, 10240, 2048},
        {Dtype::f16, 32, 8, 128, 10240, 2048}, {Dtype::f32, 9, 3, 64, 10240, 2048},
        {Dtype::bf16, 32, 8, 128, 2048, 2048},
    };
    for (const Shape& shape : decodes) {
        benchmark::RegisterBenchmark(name_of_case("decode", shape).c_str(), decode, shape)->UseManualTime();
    }
    for (const Shape& shape : prefills) {
        benchmark::RegisterBenchmark(name_of_case("prefill", shape).c_str(), prefill, shape)
            ->UseManualTime()
            ->Unit(benchmark::kMillisecond);
    }
}

}  // namespace
}  // namespace kvgrid::kernels

int main(int argc, char** argv) {
    kvgrid::kernels::add_cases();
    benchmark::Initialize(&argc, argv);
    if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
    benchmark::RunSpecifiedBenchmarks();
    benchmark::Shutdown();
    return 0;
}
