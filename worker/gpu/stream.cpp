#include "worker/gpu/stream.h"

#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include <utility>

#include "core/result.h"
#include "kernels/cuda/cuda_error.h"

namespace kvgrid::worker {

using kernels::check_cuda;

GpuStream::GpuStream(kernels::Stream of_program) : is_own_(of_program == nullptr), stream_(of_program) {
    if (is_own_) check_cuda(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
}

GpuStream::~GpuStream() {
    if (is_own_) cudaStreamDestroy(stream_);
}

GpuStream::Capture GpuStream::capture() const {
    if (is_own_) return Capture::none;
    cudaStreamCaptureStatus state = cudaStreamCaptureStatusNone;
    check_cuda(cudaStreamIsCapturing(stream_, &state), "cudaStreamIsCapturing");
    if (state == cudaStreamCaptureStatusNone) return Capture::none;
    return state == cudaStreamCaptureStatusActive ? Capture::active : Capture::broken;
}

void GpuStream::wait(std::chrono::milliseconds timeout) const {
    const auto deadline = std::chrono::steady_clock::now() + timeout;
    for (;;) {
        const cudaError_t state = cudaStreamQuery(stream_);
        if (state == cudaSuccess) return;
        if (state != cudaErrorNotReady) check_cuda(state, "cudaStreamQuery");
        idle();
        if (std::chrono::steady_clock::now() >= deadline) {
            fatal(fmt::format("the GPU has not finished its work within {} ms: it is stuck, and its pages are lost",
                              timeout.count()));
        }
    }
}

GpuEvent::GpuEvent() {
    check_cuda(cudaEventCreate(&event_), "cudaEventCreate");
}

GpuEvent::~GpuEvent() {
    cudaEventDestroy(event_);
}

void GpuEvent::record(const GpuStream& stream) {
    check_cuda(cudaEventRecord(event_, stream.get()), "cudaEventRecord");
}

std::chrono::nanoseconds GpuEvent::since(const GpuEvent& start) const {
    float ms = 0;
    check_cuda(cudaEventElapsedTime(&ms, start.event_, event_), "cudaEventElapsedTime");
    return std::chrono::nanoseconds(static_cast<std::int64_t>(ms * 1e6f));
}

void GpuGraph::begin(const GpuStream& stream) {
    check_cuda(cudaStreamBeginCapture(stream.get(), cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
}

GpuGraph GpuGraph::end(const GpuStream& stream) {
    cudaGraph_t captured = nullptr;
    check_cuda(cudaStreamEndCapture(stream.get(), &captured), "cudaStreamEndCapture");
    GpuGraph graph;
    const cudaError_t made = cudaGraphInstantiate(&graph.graph_, captured, 0);
    cudaGraphDestroy(captured);
    check_cuda(made, "cudaGraphInstantiate");
    return graph;
}

GpuGraph::~GpuGraph() {
    if (graph_) cudaGraphExecDestroy(graph_);
}

GpuGraph::GpuGraph(GpuGraph&& other) noexcept : graph_(std::exchange(other.graph_, nullptr)) {}

GpuGraph& GpuGraph::operator=(GpuGraph&& other) noexcept {
    std::swap(graph_, other.graph_);
    return *this;
}

void GpuGraph::launch(const GpuStream& stream) const {
    check_cuda(cudaGraphLaunch(graph_, stream.get()), "cudaGraphLaunch");
}

}  // namespace kvgrid::worker
