#include "tests/bench/cuda/device_tools.h"

#include <cuda_runtime.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <thread>
#include <vector>

#include "kernels/cuda/cuda_error.h"
#include "kernels/cuda/device_buffer.h"
#include "kernels/cuda/ptx.cuh"

namespace kvgrid::bench {

namespace {

using kernels::check_cuda;
using kernels::check_launch;

// Triangular, with variance 1: as good as normal for attention.
__device__ float random_number(std::uint64_t index, std::uint64_t seed) {
    std::uint64_t bits = index * 0x9e3779b97f4a7c15ull + seed;
    bits ^= bits >> 33;
    bits *= 0xff51afd7ed558ccdull;
    bits ^= bits >> 33;
    bits *= 0xc4ceb9fe1a85ec53ull;
    bits ^= bits >> 33;
    const float first = static_cast<float>(bits >> 40) * 0x1p-24f;
    const float second = static_cast<float>(bits >> 16 & 0xffffff) * 0x1p-24f;
    return (first + second - 1) * 2.449f;
}

template <class Element>
__global__ void fill(std::uint32_t* words, std::size_t count, std::uint64_t seed) {
    const std::size_t stride = std::size_t{gridDim.x} * blockDim.x;
    for (std::size_t at = blockIdx.x * std::size_t{blockDim.x} + threadIdx.x; at < count; at += stride) {
        words[at] = Element::pack(random_number(2 * at, seed), random_number(2 * at + 1, seed));
    }
}

__global__ void read_all(const uint4* words, std::size_t count, unsigned* sink) {
    const std::size_t stride = std::size_t{gridDim.x} * blockDim.x;
    unsigned seen = 0;
    std::size_t at = blockIdx.x * std::size_t{blockDim.x} + threadIdx.x;
    for (; at + 7 * stride < count; at += 8 * stride) {
        uint4 loaded[8];
        for (int index = 0; index < 8; ++index) loaded[index] = words[at + index * stride];
        for (const uint4& word : loaded) seen ^= word.x ^ word.y ^ word.z ^ word.w;
    }
    for (; at < count; at += stride) seen ^= words[at].x;
    if (seen == 0x12345678u) *sink = seen;
}

class Event {
  public:
    Event() { check_cuda(cudaEventCreate(&event_), "cudaEventCreate"); }
    ~Event() { cudaEventDestroy(event_); }
    Event(const Event&) = delete;
    Event& operator=(const Event&) = delete;

    void record(cudaStream_t stream) { check_cuda(cudaEventRecord(event_, stream), "cudaEventRecord"); }
    double us_since(const Event& earlier) const {
        check_cuda(cudaEventSynchronize(event_), "cudaEventSynchronize");
        float ms = 0;
        check_cuda(cudaEventElapsedTime(&ms, earlier.event_, event_), "cudaEventElapsedTime");
        return ms * 1e3;
    }

  private:
    cudaEvent_t event_{};
};

}  // namespace

void fill_with_normal(kernels::DeviceSpan<std::byte> memory, Dtype dtype, std::uint64_t seed) {
    auto* const words = reinterpret_cast<std::uint32_t*>(memory.data);
    if (dtype == Dtype::f16) {
        fill<kernels::F16><<<2048, 256>>>(words, memory.size / 4, seed);
    } else {
        fill<kernels::Bf16><<<2048, 256>>>(words, memory.size / 4, seed);
    }
    check_launch("fill");
    check_cuda(cudaDeviceSynchronize(), "fill");
}

double read_bytes_per_second(std::size_t bytes) {
    const kernels::DeviceArray<std::byte> memory(bytes);
    const kernels::DeviceArray<unsigned> sink(1);
    fill_with_normal(memory.span(), Dtype::bf16, 1);
    double best_us = 1e30;
    for (int turn = 0; turn < 12; ++turn) {
        Event begin, end;
        begin.record(nullptr);
        read_all<<<132 * 16, 256>>>(reinterpret_cast<const uint4*>(memory.span().data), bytes / 16, sink.span().data);
        end.record(nullptr);
        check_launch("read_all");
        best_us = std::min(best_us, end.us_since(begin));
    }
    return static_cast<double>(bytes) / best_us * 1e6;
}

double median_us(const std::function<void(kernels::Stream)>& call, const Replay& replay) {
    cudaStream_t stream;
    check_cuda(cudaStreamCreate(&stream), "cudaStreamCreate");
    call(stream);
    check_cuda(cudaStreamSynchronize(stream), "the first call");
    cudaGraph_t graph;
    cudaGraphExec_t ready;
    check_cuda(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
    for (int index = 0; index < replay.calls; ++index) call(stream);
    check_cuda(cudaStreamEndCapture(stream, &graph), "cudaStreamEndCapture");
    check_cuda(cudaGraphInstantiate(&ready, graph, 0), "cudaGraphInstantiate");
    check_cuda(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
    std::this_thread::sleep_for(std::chrono::duration<double, std::milli>(replay.rest_ms));
    std::vector<double> times;
    double warm_up_us = replay.warm_up_ms * 1e3;
    while (times.size() < static_cast<std::size_t>(replay.turns)) {
        Event begin, end;
        begin.record(stream);
        check_cuda(cudaGraphLaunch(ready, stream), "cudaGraphLaunch");
        end.record(stream);
        const double us = end.us_since(begin);
        if (warm_up_us <= 0) times.push_back(us / replay.calls);
        warm_up_us -= us;
    }
    cudaGraphExecDestroy(ready);
    cudaGraphDestroy(graph);
    cudaStreamDestroy(stream);
    std::sort(times.begin(), times.end());
    return times[times.size() / 2];
}

double relative_difference(kernels::DeviceSpan<const float> a, kernels::DeviceSpan<const float> b) {
    std::vector<float> left(a.size), right(b.size);
    check_cuda(cudaMemcpy(left.data(), a.data, a.size * sizeof(float), cudaMemcpyDeviceToHost), "cudaMemcpy");
    check_cuda(cudaMemcpy(right.data(), b.data, b.size * sizeof(float), cudaMemcpyDeviceToHost), "cudaMemcpy");
    double difference = 0, size = 0;
    for (std::size_t index = 0; index < left.size(); ++index) {
        difference += (double{left[index]} - right[index]) * (double{left[index]} - right[index]);
        size += double{right[index]} * right[index];
    }
    return std::sqrt(difference / size);
}

}  // namespace kvgrid::bench
