#pragma once

#include <cuda_runtime_api.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <vector>

#include "core/clock.h"
#include "kernels/cuda/cuda_error.h"

namespace kvgrid::bench {

inline Deadline soon() {
    return deadline_in(std::chrono::seconds(20));
}

inline double us_since(std::chrono::steady_clock::time_point began) {
    return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - began).count();
}

// Times what every rank does at the same time. Rank: stream(), wait() for it, and meet() with the others.
template <class Rank>
class RankTimer {
  public:
    explicit RankTimer(Rank& rank) : rank_(rank) {}

    // us of one of many in a replayed graph.
    double in_graphs(const std::function<void()>& join, int joins = 50) {
        constexpr int kTurns = 20;
        cudaGraph_t captured = nullptr;
        cudaGraphExec_t graph = nullptr;
        kernels::check_cuda(cudaStreamBeginCapture(rank_.stream(), cudaStreamCaptureModeThreadLocal),
                            "cudaStreamBeginCapture");
        for (int i = 0; i < joins; ++i) join();
        kernels::check_cuda(cudaStreamEndCapture(rank_.stream(), &captured), "cudaStreamEndCapture");
        kernels::check_cuda(cudaGraphInstantiate(&graph, captured, 0), "cudaGraphInstantiate");
        kernels::check_cuda(cudaGraphUpload(graph, rank_.stream()), "cudaGraphUpload");
        rank_.wait();
        std::vector<double> turns;
        for (int turn = 0; turn < kTurns; ++turn) {
            turns.push_back(
                timed([&] { kernels::check_cuda(cudaGraphLaunch(graph, rank_.stream()), "cudaGraphLaunch"); }));
        }
        rank_.meet();
        cudaGraphExecDestroy(graph);
        cudaGraphDestroy(captured);
        return median(turns) / joins;
    }
    // Launched one after the other.
    double queued(const std::function<void()>& join) {
        constexpr int kJoins = 100, kTurns = 7;
        std::vector<double> turns;
        for (int turn = 0; turn < kTurns; ++turn) {
            turns.push_back(timed([&] {
                for (int i = 0; i < kJoins; ++i) join();
            }));
        }
        return median(turns) / kJoins;
    }
    // From the launch until the host sees the end.
    double alone(const std::function<void()>& join) {
        std::vector<double> turns;
        for (int turn = 0; turn < 100; ++turn) turns.push_back(timed(join));
        return median(turns);
    }

  private:
    double timed(const std::function<void()>& work) {
        rank_.meet();
        const auto began = std::chrono::steady_clock::now();
        work();
        while (cudaStreamQuery(rank_.stream()) == cudaErrorNotReady) {
        }
        const double us = us_since(began);
        rank_.meet();
        return us;
    }
    static double median(std::vector<double> values) {
        std::ranges::nth_element(values, values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2));
        return values[values.size() / 2];
    }

    Rank& rank_;
};

}  // namespace kvgrid::bench
