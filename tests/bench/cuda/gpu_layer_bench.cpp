// What a layer call costs a worker on a GPU, without any process around it: the kernels' time on the GPU, the host's until all is queued,
// and the whole call with q, k, v and the output in the host's memory. One rank, bf16, random tensors; medians of the whole call, means of
// the others.

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <random>
#include <vector>

#include "tests/bench/bench_model.h"
#include "worker/gpu/gpu_device.h"
#include "worker/gpu_choice.h"
#include "worker/shard.h"

namespace {

using namespace kvgrid;
using namespace kvgrid::worker;

constexpr ModelId kModel{1};
constexpr int kLayers = 4;
constexpr int kFillTokens = 4096;

struct Case {
    int sequences;
    int length;
    int new_tokens;
    int steps;
};

std::vector<std::byte> random_tensor(std::size_t count) {
    std::mt19937 random(3);
    std::normal_distribution<float> normal;
    std::vector<std::byte> tensor(2 * count);
    for (std::size_t i = 0; i < count; ++i) store_element(tensor.data(), i, Dtype::bf16, normal(random));
    return tensor;
}

class Bench {
  public:
    Bench() : device_(GpuDevice::make(0).value()), shard_(0, std::uint64_t{24} << 30, *device_) {
        shard_.add_model(kModel, spec_, {1, 1}, 0).value();
        const std::size_t tokens = 8 * kFillTokens;
        q_ = random_tensor(tokens * spec_.query_heads * spec_.head_dim);
        k_ = random_tensor(tokens * spec_.kv_heads * spec_.head_dim);
        whole_.resize(q_.size());
    }

    void run(const Case& shape) {
        for (int s = 1; s <= shape.sequences; ++s) {
            shard_.open(SequenceId{static_cast<std::uint64_t>(s)}, kModel, {}).value();
        }
        for (int filled = 0; filled < shape.length; filled += kFillTokens) {
            for (int s = 1; s <= shape.sequences; ++s) {
                const int tokens = std::min(kFillTokens, shape.length - filled);
                step({{SequenceId{static_cast<std::uint64_t>(s)}, tokens}}, StepKind::write);
            }
        }
        std::vector<StreamTable::Part> parts;
        for (int s = 1; s <= shape.sequences; ++s) {
            parts.push_back({SequenceId{static_cast<std::uint64_t>(s)}, shape.new_tokens});
        }
        for (int i = 0; i < 8; ++i) step(parts, StepKind::attend);  // graphs are captured
        const DeviceStatus before = device_->status();
        call_us_.clear();
        begin_us_.clear();
        for (int i = 0; i < shape.steps; ++i) step(parts, StepKind::attend);
        print(shape, before, device_->status());
        for (int s = 1; s <= shape.sequences; ++s) shard_.close(SequenceId{static_cast<std::uint64_t>(s)}).value();
    }

  private:
    using Clock = std::chrono::steady_clock;
    static double us_since(Clock::time_point start) {
        return std::chrono::duration<double, std::micro>(Clock::now() - start).count();
    }

    void step(const std::vector<StreamTable::Part>& parts, StepKind kind) {
        const StepId id{++last_step_};
        int tokens = 0;
        for (const auto& part : parts) tokens += part.tokens;
        const auto begun = Clock::now();
        shard_.begin({.step = id, .model = kModel, .kind = kind, .parts = parts}).value();
        begin_us_.push_back(us_since(begun));
        const std::size_t q = kind == StepKind::attend ? spec_.row_bytes() * spec_.query_heads * tokens : 0;
        const std::size_t kv = spec_.row_bytes() * spec_.kv_heads * tokens;
        for (int layer = 0; layer < kLayers; ++layer) {
            const auto start = Clock::now();
            shard_
                .layer({.steps = {&id, 1},
                        .layer = layer,
                        .q = std::span(q_).first(q),
                        .k = std::span(k_).first(kv),
                        .v = std::span(k_).first(kv),
                        .whole = std::span(whole_).first(q),
                        .partial = {},
                        .lse = {}})
                .value();
            call_us_.push_back(us_since(start));
        }
        shard_.commit(id).value();
    }

    void print(const Case& shape, const DeviceStatus& before, const DeviceStatus& after) {
        const auto median = [](std::vector<double>& of) {
            std::ranges::nth_element(of, of.begin() + of.size() / 2);
            return of[of.size() / 2];
        };
        const double calls = static_cast<double>(after.layer_calls - before.layer_calls);
        const double kernel_us = static_cast<double>(after.kernel_ns - before.kernel_ns) * 1e-3 / calls;
        const double queue_us = static_cast<double>(after.queue_ns - before.queue_ns) * 1e-3 / calls;
        const double bytes = static_cast<double>(after.kv_bytes - before.kv_bytes) / calls;
        const double call_us = median(call_us_);
        fmt::print("{:>4} x {:>7} + {:>4}  {:>10.1f}  {:>10.1f}  {:>10.1f}  {:>10.1f}  {:>8.2f}  {:>10.1f}\n",
                   shape.sequences, shape.length, shape.new_tokens, call_us, kernel_us, call_us - kernel_us, queue_us,
                   bytes / kernel_us * 1e-6, median(begin_us_));
    }

    const ModelSpec spec_ = bench::bench_model("bench", kLayers);
    std::unique_ptr<GpuDevice> device_;
    Shard shard_;
    std::uint64_t last_step_ = 0;
    std::vector<std::byte> q_, k_, whole_;
    std::vector<double> call_us_, begin_us_;
};

}  // namespace

int main() {
    if (usable_gpu_count() == 0) {
        fmt::print("skipped: no GPU\n");
        return 0;
    }
    Bench bench;
    fmt::print("{}, 32 query and 8 KV heads of 128, bf16, {} layers; microseconds of one layer call\n", "one GPU",
               kLayers);
    fmt::print("sequences x tokens + new        call     kernels       above    queueing      TB/s       begin\n");
    for (const Case& shape :
         {Case{1, 1024, 1, 100}, Case{1, 16384, 1, 100}, Case{1, 131072, 1, 50}, Case{8, 131072, 1, 20},
          Case{64, 8192, 1, 20}, Case{4, 131072, 4, 20}, Case{1, 131072, 512, 5}}) {
        bench.run(shape);
    }
}
