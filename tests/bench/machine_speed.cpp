#include "tests/bench/machine_speed.h"

#include <benchmark/benchmark.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <numeric>
#include <random>
#include <string>
#include <thread>
#include <vector>

namespace kvgrid::bench {

namespace {

using Clock = std::chrono::steady_clock;
using Vector [[gnu::vector_size(32)]] = std::uint64_t;

// Reads kStreams equal parts of the memory, one line of each at a time.
template <int kStreams>
void read_streams(const std::byte* base, std::size_t bytes) {
    constexpr std::size_t kLine = 64;
    const std::size_t part = bytes / kStreams & ~(kLine - 1);
    Vector sums[kStreams][2] = {};
    for (std::size_t byte = 0; byte < part; byte += kLine) {
#pragma GCC unroll 4
        for (int stream = 0; stream < kStreams; ++stream) {
            const auto* const line = reinterpret_cast<const Vector*>(base + stream * part + byte);
            sums[stream][0] ^= line[0];
            sums[stream][1] ^= line[1];
        }
    }
    std::uint64_t sum = 0;
    for (const auto& stream : sums) sum ^= stream[0][0] ^ stream[0][3] ^ stream[1][1] ^ stream[1][2];
    benchmark::DoNotOptimize(sum);
}

constexpr std::array kReaders = {&read_streams<1>, &read_streams<2>, &read_streams<4>};

double seconds_since(Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
}

}  // namespace

int thread_count() {
    const char* given = std::getenv("KVGRID_THREADS");
    return given != nullptr ? std::atoi(given) : static_cast<int>(std::thread::hardware_concurrency());
}

void ReadSpeed::read(const std::byte* base, std::size_t bytes, kernels::ThreadPool& threads) {
    const auto reader = kReaders[turn_++ % kReaders.size()];
    const std::size_t share = (bytes / threads.thread_count()) & ~std::size_t{4095};
    const auto start = Clock::now();
    threads.run(threads.thread_count(), [&](int task) { reader(base + task * share, share); });
    const double speed = static_cast<double>(share) * threads.thread_count() / seconds_since(start);
    best_ = std::max(best_, speed);
    if (reader == kReaders[0]) best_one_stream_ = std::max(best_one_stream_, speed);
}

void ReadSpeed::read_random_pages(const std::byte* base, std::size_t bytes, std::size_t page_bytes,
                                  kernels::ThreadPool& threads) {
    std::vector<std::uint32_t> order(bytes / page_bytes);
    std::iota(order.begin(), order.end(), 0u);
    std::shuffle(order.begin(), order.end(), std::mt19937(1));
    const std::size_t share = order.size() / threads.thread_count();
    const auto start = Clock::now();
    threads.run(threads.thread_count(), [&](int task) {
        for (std::size_t index = task * share; index < (task + 1) * share; ++index) {
            read_streams<1>(base + order[index] * page_bytes, page_bytes);
        }
    });
    const double read_bytes = static_cast<double>(share * threads.thread_count() * page_bytes);
    best_random_ = std::max(best_random_, read_bytes / seconds_since(start));
}

double copy_speed(std::byte* target, const std::byte* source, std::size_t bytes, kernels::ThreadPool& threads) {
    const std::size_t share = bytes / threads.thread_count();
    const auto start = Clock::now();
    threads.run(threads.thread_count(),
                [&](int task) { std::memcpy(target + task * share, source + task * share, share); });
    return static_cast<double>(share * threads.thread_count()) / seconds_since(start);
}

std::size_t huge_page_bytes() {
    std::ifstream file("/proc/self/smaps_rollup");
    for (std::string word; file >> word;) {
        std::size_t kibibytes = 0;
        if (word == "AnonHugePages:" && file >> kibibytes) return kibibytes * 1024;
    }
    return 0;
}

}  // namespace kvgrid::bench
