// A program that holds its own KV cache on its GPU: one rank, 32 query and 8 KV heads of 128, bf16. It appends a prompt in chunks, decodes
// with its own CUDA graph of all layers, compares one output with attention in fp64 on the host, and says what a layer call takes in the
// graph, beside the decode kernel alone, and what it takes without a graph.
//
//   embedded_decode [--test] [TOKENS]     tokens of the prompt, 4096 if not said; --test: ends with 77 where there is no GPU

#include <cuda_runtime_api.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <random>
#include <vector>

#include "kernels/cuda/cuda_error.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/device_buffer.h"
#include "worker/examples/bare_decode.h"
#include "worker/gpu/gpu_device.h"
#include "worker/shard.h"

namespace {

using namespace kvgrid;
using namespace kvgrid::worker;
using kernels::check_cuda;
using kernels::DeviceBytes;

constexpr ModelId kModel{1};
constexpr SequenceId kSequence{1};
constexpr int kLayers = 16;
constexpr int kChunkTokens = 512;
constexpr int kDecodes = 200;

ModelSpec make_spec() {
    ModelSpec spec{.name = "embedded",
                   .layers = {},
                   .query_heads = 32,
                   .kv_heads = 8,
                   .head_dim = 128,
                   .dtype = Dtype::bf16,
                   .scale = 1 / std::sqrt(128.0)};
    for (int layer = 0; layer < kLayers; ++layer) spec.layers.push_back({.kv_layer = layer});
    return spec;
}

// What a model would compute: here random numbers, the same in each layer and each step.
struct Tensors {
    explicit Tensors(const ModelSpec& spec)
        : q(spec.row_bytes() * spec.query_heads * kChunkTokens),
          k(spec.row_bytes() * spec.kv_heads * kChunkTokens),
          v(k.size()),
          host_q(random(q.size(), 1)),
          host_k(random(k.size(), 2)),
          host_v(random(v.size(), 3)) {
        q.upload(host_q.data(), host_q.size());
        k.upload(host_k.data(), host_k.size());
        v.upload(host_v.data(), host_v.size());
        check_cuda(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
        for (int layer = 0; layer < spec.layer_count(); ++layer) outputs.emplace_back(q.size());
    }
    static std::vector<std::byte> random(std::size_t bytes, unsigned seed) {
        std::mt19937 engine(seed);
        std::normal_distribution<float> normal;
        std::vector<std::byte> numbers(bytes);
        for (std::size_t i = 0; i < bytes / 2; ++i) store_element(numbers.data(), i, Dtype::bf16, normal(engine));
        return numbers;
    }

    DeviceBytes q, k, v;
    std::vector<std::byte> host_q, host_k, host_v;
    std::vector<DeviceBytes> outputs;  // of each layer
};

// A stream's work as a graph. The capture ends whatever happens in it.
class Graph {
  public:
    Graph(cudaStream_t stream, const std::function<void()>& queue) {
        check_cuda(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
        cudaGraph_t captured = nullptr;
        try {
            queue();
        } catch (...) {
            cudaStreamEndCapture(stream, &captured);
            if (captured != nullptr) cudaGraphDestroy(captured);
            throw;
        }
        check_cuda(cudaStreamEndCapture(stream, &captured), "cudaStreamEndCapture");
        const cudaError_t made = cudaGraphInstantiate(&graph_, captured, 0);
        cudaGraphDestroy(captured);
        check_cuda(made, "cudaGraphInstantiate");
    }
    ~Graph() { cudaGraphExecDestroy(graph_); }
    Graph(const Graph&) = delete;
    Graph& operator=(const Graph&) = delete;

    void launch(cudaStream_t stream) const { check_cuda(cudaGraphLaunch(graph_, stream), "cudaGraphLaunch"); }

  private:
    cudaGraphExec_t graph_ = nullptr;
};

// What queued work takes on the GPU. Something long comes before it, so that all of it is queued when it begins.
class Timer {
  public:
    Timer() {
        check_cuda(cudaEventCreate(&begun_), "cudaEventCreate");
        check_cuda(cudaEventCreate(&ended_), "cudaEventCreate");
    }
    ~Timer() {
        cudaEventDestroy(begun_);
        cudaEventDestroy(ended_);
    }
    Timer(const Timer&) = delete;
    Timer& operator=(const Timer&) = delete;

    double us(cudaStream_t stream, const std::function<void()>& queue) {
        check_cuda(cudaMemsetAsync(before_.data(), 0, before_.size(), stream), "cudaMemsetAsync");
        check_cuda(cudaEventRecord(begun_, stream), "cudaEventRecord");
        queue();
        check_cuda(cudaEventRecord(ended_, stream), "cudaEventRecord");
        check_cuda(cudaEventSynchronize(ended_), "cudaEventSynchronize");
        float ms = 0;
        check_cuda(cudaEventElapsedTime(&ms, begun_, ended_), "cudaEventElapsedTime");
        return 1e3 * ms;
    }

  private:
    DeviceBytes before_{512 << 20};
    cudaEvent_t begun_ = nullptr, ended_ = nullptr;
};

double median(std::vector<double> of) {
    std::ranges::nth_element(of, of.begin() + static_cast<std::ptrdiff_t>(of.size() / 2));
    return of[of.size() / 2];
}

class Program {
  public:
    Program(cudaStream_t stream, int prompt_tokens)
        : stream_(stream),
          device_(GpuDevice::make_on_stream(0, stream).value()),
          shard_(0, pool_bytes(prompt_tokens), *device_),
          tensors_(spec_) {
        shard_.add_model(kModel, spec_, {1, 1}, 0).value();
        shard_.open(kSequence, kModel, {}).value();
    }

    // Uncaptured: layer calls follow one another on the stream, and nobody waits for them.
    void run_step(int tokens) {
        const StepId step = begin(tokens);
        queue_layers(step, tokens);
        shard_.commit(step).value();
        rows_.push_back(tokens);
    }
    // The graph is good for as long as its number stays the same.
    double decode_us() {
        const StepId step = begin(1);
        const std::uint64_t epoch = shard_.prepare({&step, 1}).value();
        if (graph_ && epoch == epoch_) {
            shard_.replay({&step, 1}, epoch).value();
        } else {
            graph_.reset();
            graph_.emplace(stream_, [&] { queue_layers(step, 1); });
            epoch_ = epoch;
            ++captures_;
        }
        const double us = timer_.us(stream_, [&] { graph_->launch(stream_); });
        shard_.commit(step).value();
        rows_.push_back(1);
        return us / kLayers;
    }
    double uncaptured_us() {
        const StepId step = begin(1);
        shard_.prepare({&step, 1}).value();
        check_cuda(cudaStreamSynchronize(stream_), "cudaStreamSynchronize");
        const auto start = std::chrono::steady_clock::now();
        queue_layers(step, 1);
        check_cuda(cudaStreamSynchronize(stream_), "cudaStreamSynchronize");
        const std::chrono::duration<double, std::micro> taken = std::chrono::steady_clock::now() - start;
        shard_.commit(step).value();
        rows_.push_back(1);
        return taken.count() / kLayers;
    }
    double bare_us() {
        const auto tokens = static_cast<int>(shard_.length_of(kSequence));
        std::vector<std::unique_ptr<BareDecode>> layers;  // as many pages as the layers have
        for (int layer = 0; layer < kLayers; ++layer) {
            layers.push_back(std::make_unique<BareDecode>(spec_, tokens, stream_));
        }
        const Graph graph(stream_, [&] {
            for (const auto& layer : layers) layer->queue(stream_);
        });
        std::vector<double> us;
        for (int i = 0; i < kDecodes; ++i) us.push_back(timer_.us(stream_, [&] { graph.launch(stream_); }) / kLayers);
        return median(us);
    }
    // The largest difference of the last output of the last layer, one head of it, from attention in fp64.
    double error() const;
    int captures() const { return captures_; }

  private:
    std::uint64_t pool_bytes(int prompt_tokens) const {
        const std::uint64_t pages = (prompt_tokens + 4 * kDecodes) / kPageTokens + 1;
        return pages * kLayers * spec_.kv_heads * spec_.page_bytes();
    }
    StepId begin(int tokens) {
        const StepId step{++last_step_};
        shard_.begin({.step = step, .model = kModel, .kind = StepKind::attend, .parts = {{kSequence, tokens}}}).value();
        return step;
    }
    void queue_layers(StepId step, int tokens) {
        const std::size_t q = spec_.row_bytes() * spec_.query_heads * tokens;
        const std::size_t kv = spec_.row_bytes() * spec_.kv_heads * tokens;
        for (int layer = 0; layer < kLayers; ++layer) {
            shard_
                .layer({.steps = {&step, 1},
                        .layer = layer,
                        .q = {tensors_.q.data(), q},
                        .k = {tensors_.k.data(), kv},
                        .v = {tensors_.v.data(), kv},
                        .whole = {tensors_.outputs[layer].data(), q},
                        .partial = {},
                        .lse = {},
                        .inputs_in = TensorMemory::device,
                        .outputs_in = TensorMemory::device})
                .value();
        }
    }

    const ModelSpec spec_ = make_spec();
    const cudaStream_t stream_;
    std::unique_ptr<GpuDevice> device_;
    Shard shard_;
    Tensors tensors_;
    std::optional<Graph> graph_;
    std::uint64_t epoch_ = 0;
    int captures_ = 0;
    std::uint64_t last_step_ = 0;
    Timer timer_;
    std::vector<int> rows_;  // of each step: its tokens were the first so many
};

double Program::error() const {
    constexpr int kHead = 13;
    const int dim = spec_.head_dim, kv_head = kHead / spec_.group();
    const auto element = [](const std::vector<std::byte>& of, std::size_t at) {
        return double{load_element(of.data(), at, Dtype::bf16)};
    };
    std::vector<double> sums(dim);
    double weights = 0;
    for (int tokens : rows_) {
        for (int token = 0; token < tokens; ++token) {
            const std::size_t row = (std::size_t{1} * token * spec_.kv_heads + kv_head) * dim;
            double logit = 0;
            for (int d = 0; d < dim; ++d) {
                logit += element(tensors_.host_q, kHead * dim + d) * element(tensors_.host_k, row + d);
            }
            const double weight = std::exp(logit * spec_.scale);
            weights += weight;
            for (int d = 0; d < dim; ++d) sums[d] += weight * element(tensors_.host_v, row + d);
        }
    }
    std::vector<std::byte> got(spec_.row_bytes() * spec_.query_heads);
    tensors_.outputs.back().download(got.data(), got.size());
    double error = 0;
    for (int d = 0; d < dim; ++d) error = std::max(error, std::abs(element(got, kHead * dim + d) - sums[d] / weights));
    return error;
}

int run(int prompt_tokens) {
    cudaStream_t stream = nullptr;
    check_cuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
    double error = 0;
    {
        Program program(stream, prompt_tokens);
        for (int begun = 0; begun < prompt_tokens; begun += kChunkTokens) {
            program.run_step(std::min(kChunkTokens, prompt_tokens - begun));
        }
        std::vector<double> captured, uncaptured;
        program.run_step(1);  // as warm as it gets
        for (int i = 0; i < kDecodes; ++i) captured.push_back(program.decode_us());
        check_cuda(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
        error = program.error();
        for (int i = 0; i < kDecodes; ++i) uncaptured.push_back(program.uncaptured_us());
        const double bare = program.bare_us();
        std::printf("%s, %d tokens, %d layers; microseconds of one layer call, medians of %d steps\n",
                    kernels::current_device().name.c_str(), prompt_tokens, kLayers, kDecodes);
        std::printf("  in the program's graph  %6.2f   (captured %d times)\n", median(captured), program.captures());
        std::printf("  decode kernel alone     %6.2f   in a graph; the layer call takes %.2f more\n", bare,
                    median(captured) - bare);
        std::printf("  without a graph         %6.2f   until the last one is done\n", median(uncaptured));
        std::printf("one output, from attention in fp64: %.1e\n", error);
    }
    check_cuda(cudaStreamDestroy(stream), "cudaStreamDestroy");
    // An output is an average of values below 5; it and the weights are rounded to bf16, by 2^-9 of each at most.
    constexpr double kErrorMax = 2 * 5.0 / 512;
    return error < kErrorMax ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
    const bool is_test = argc > 1 && std::strcmp(argv[1], "--test") == 0;
    if (kvgrid::kernels::device_count() == 0) {
        std::printf("skipped: this machine has no CUDA device (or no driver for one)\n");
        return is_test ? 77 : 0;
    }
    const char* const tokens = argc > 1 + is_test ? argv[1 + is_test] : "4096";
    return run(std::max(1, std::atoi(tokens)));
}
