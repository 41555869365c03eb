// What it costs to look for NaN and infinities in the k and v of one layer call, against the attention of the same call: both on one
// thread, one after the other in the same turn, the best of the turns.
//
//   non_finite_bench [--benchmark_filter=bf16] ...

#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <string>
#include <vector>

#include "kernels/attention.h"
#include "kernels/non_finite.h"

namespace kvgrid::kernels {
namespace {

constexpr int kQueryHeads = 32, kKvHeads = 8, kHeadDim = 128;

struct Call {
    Dtype dtype;
    int new_tokens;
    int context;  // the new ones among them
};

// One sequence, pages one behind the other; every element is 0.5.
class Batch {
  public:
    explicit Batch(const Call& call)
        : call_(call), page_bytes_(std::size_t{2} * kPageTokens * kHeadDim * byte_size(call.dtype)) {
        const int pages = (call.context + kPageTokens - 1) / kPageTokens;
        slab_ = halves(std::size_t{1} * kKvHeads * pages * 2 * kPageTokens * kHeadDim);
        lists_.resize(kKvHeads);
        for (int head = 0; head < kKvHeads; ++head) {
            for (int page = 0; page < pages; ++page) {
                const int first = page * kPageTokens;
                const int count = std::min(kPageTokens, call.context - first);
                lists_[head].push_back(
                    {static_cast<std::uint32_t>(head * pages + page), static_cast<std::uint32_t>(count), first});
            }
        }
        streams_.assign(lists_.begin(), lists_.end());
        q_ = halves(std::size_t{1} * call.new_tokens * kQueryHeads * kHeadDim);
        kv = halves(std::size_t{2} * call.new_tokens * kKvHeads * kHeadDim);
        partial_.resize(std::size_t{1} * call.new_tokens * kQueryHeads * kHeadDim);
        lse_.resize(partial_.size() / kHeadDim);
        item_ = {.streams = streams_, .first_query = call.context - call.new_tokens, .query_count = call.new_tokens};
    }

    void attend(ThreadPool& threads) {
        attention_cpu({.heads = {kQueryHeads, kKvHeads, kHeadDim},
                       .dtype = call_.dtype,
                       .scale = 1 / std::sqrt(static_cast<float>(kHeadDim)),
                       .slab = {slab_.data(), page_bytes_},
                       .items = {&item_, 1},
                       .row_count = call_.new_tokens,
                       .q = q_,
                       .partial = partial_,
                       .lse = lse_},
                      threads);
    }

    std::vector<std::byte> kv;

  private:
    std::vector<std::byte> halves(std::size_t count) const {
        std::vector<std::byte> bytes(count * byte_size(call_.dtype));
        for (std::size_t i = 0; i < count; ++i) store_element(bytes.data(), i, call_.dtype, 0.5f);
        return bytes;
    }

    Call call_;
    std::size_t page_bytes_;
    std::vector<std::byte> slab_, q_;
    std::vector<std::vector<PageEntry>> lists_;
    std::vector<std::span<const PageEntry>> streams_;
    std::vector<float> partial_, lse_;
    AttentionItem item_;
};

template <class Work>
double seconds_of(Work work) {
    const auto start = std::chrono::steady_clock::now();
    work();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

void check(benchmark::State& state, const Call& call) {
    ThreadPool one_thread(1);
    Batch batch(call);
    double check_best = 1e9, attention_best = 1e9;
    for (auto _ : state) {
        attention_best = std::min(attention_best, seconds_of([&] { batch.attend(one_thread); }));
        const double seconds =
            seconds_of([&] { benchmark::DoNotOptimize(first_non_finite_cpu(batch.kv, call.dtype)); });
        check_best = std::min(check_best, seconds);
        state.SetIterationTime(seconds);
    }
    state.counters["best_us"] = check_best * 1e6;
    state.counters["best_GB/s"] = static_cast<double>(batch.kv.size()) / check_best / 1e9;
    state.counters["attention_us"] = attention_best * 1e6;
    state.counters["of_attention"] = check_best / attention_best;
}

void add_cases() {
    for (const Dtype dtype : {Dtype::bf16, Dtype::f32}) {
        for (const auto& [new_tokens, context] : {std::pair{1, 256}, {1, 8'192}, {256, 8'192}, {2'048, 8'192}}) {
            const std::string name = std::string("non_finite/") + name_of(dtype) +
                                     "/new:" + std::to_string(new_tokens) + "/on:" + std::to_string(context);
            benchmark::RegisterBenchmark(name.c_str(), check, Call{dtype, new_tokens, context})
                ->UseManualTime()
                ->Iterations(new_tokens > 1 ? 5 : 200)
                ->Unit(benchmark::kMicrosecond);
        }
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
