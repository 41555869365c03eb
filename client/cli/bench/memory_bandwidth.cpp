#include "client/cli/bench/memory_bandwidth.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <numeric>
#include <span>
#include <thread>
#include <vector>

namespace kvgrid::cli {

namespace {

constexpr std::uint64_t kBytesLeast = std::uint64_t{256} << 20;
constexpr std::uint64_t kCachesRead = 2;  // read in turn, so that the first half is gone when it comes again
constexpr int kPasses = 4;

double one_pass(std::span<const std::uint64_t> words, int threads) {
    std::atomic<std::uint64_t> sum = 0;  // used, so that nothing is left out
    const auto start = std::chrono::steady_clock::now();
    {
        std::vector<std::jthread> readers;
        const std::size_t share = words.size() / threads;
        for (int at = 0; at < threads; ++at) {
            readers.emplace_back([part = words.subspan(at * share, share), &sum] {
                sum += std::accumulate(part.begin(), part.end(), std::uint64_t{0});
            });
        }
    }
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    return sum == 0 ? 0 : static_cast<double>(words.size_bytes()) / took.count();
}

}  // namespace

double measure_memory_bandwidth(std::uint64_t cache_bytes) {
    const std::uint64_t bytes = std::max(kBytesLeast, kCachesRead * cache_bytes);
    const std::vector<std::uint64_t> words(bytes / sizeof(std::uint64_t), 1);
    const int threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
    double best = 0;
    for (int pass = 0; pass < kPasses; ++pass) best = std::max(best, one_pass(words, threads));
    return best;
}

}  // namespace kvgrid::cli
