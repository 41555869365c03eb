#pragma once

#include <chrono>
#include <functional>
#include <utility>

#include "kernels/cuda/device_span.h"

struct CUevent_st;
struct CUgraphExec_st;

namespace kvgrid::worker {

// A stream of the current GPU: one of its own, or the program's. Throws CudaError where the runtime refuses, here and below.
class GpuStream {
  public:
    enum class Capture { none, active, broken };

    explicit GpuStream(kernels::Stream of_program = nullptr);
    ~GpuStream();
    GpuStream(const GpuStream&) = delete;
    GpuStream& operator=(const GpuStream&) = delete;

    kernels::Stream get() const { return stream_; }
    // By the program; none of a stream of its own.
    Capture capture() const;

    bool is_own() const { return is_own_; }  // not the program's

    // Polls until all work queued so far is done. After `timeout` the GPU counts as broken: Fatal.
    void wait(std::chrono::milliseconds timeout) const;

    // What waits do meanwhile, here and where others poll the stream.
    void set_idle_work(std::function<void()> work) { idle_work_ = std::move(work); }
    void idle() const {
        if (idle_work_) idle_work_();
    }

  private:
    const bool is_own_;
    kernels::Stream stream_;
    std::function<void()> idle_work_;
};

// A moment in a stream.
class GpuEvent {
  public:
    GpuEvent();
    ~GpuEvent();
    GpuEvent(const GpuEvent&) = delete;
    GpuEvent& operator=(const GpuEvent&) = delete;

    void record(const GpuStream& stream);
    // Both have passed. Resolution: half a microsecond.
    std::chrono::nanoseconds since(const GpuEvent& start) const;

  private:
    CUevent_st* event_ = nullptr;
};

// Work that was captured once and is launched many times.
class GpuGraph {
  public:
    GpuGraph() = default;
    // What `queue(stream)` queues. It may launch kernels and asynchronous copies only.
    template <class Queue>
    static GpuGraph capture(const GpuStream& stream, Queue&& queue) {
        begin(stream);
        try {
            queue(stream.get());
        } catch (...) {
            end(stream);
            throw;
        }
        return end(stream);
    }
    ~GpuGraph();
    GpuGraph(GpuGraph&& other) noexcept;
    GpuGraph& operator=(GpuGraph&& other) noexcept;

    void launch(const GpuStream& stream) const;

  private:
    static void begin(const GpuStream& stream);
    static GpuGraph end(const GpuStream& stream);

    CUgraphExec_st* graph_ = nullptr;
};

}  // namespace kvgrid::worker
