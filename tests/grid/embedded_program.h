#pragma once

#include <cuda_runtime_api.h>

#include <functional>
#include <memory>
#include <vector>

#include "kernels/cuda/cuda_error.h"
#include "kernels/cuda/device_buffer.h"
#include "tests/grid/driver.h"
#include "worker/gpu/gpu_device.h"
#include "worker/shard.h"

// The same shard twice: in a program that has its tensors in GPU memory and a stream of its own, and called with tensors in the host's memory.
namespace kvgrid::tests {

using kernels::check_cuda;
using worker::GpuDevice;
using worker::GpuGraph;
using worker::GpuStream;
using worker::Shard;
using worker::ShardLayer;
using worker::StepKind;
using worker::TensorMemory;

inline constexpr ModelId kModel{1};
inline constexpr std::uint64_t kPoolBytes = 256 << 20;
inline constexpr int kTokensMax = 8192;  // of a step

using Parts = std::vector<worker::StreamTable::Part>;

// Tensors of one layer, at addresses that stay.
struct DeviceTensors {
    explicit DeviceTensors(const ModelSpec& spec)
        : q(spec.row_bytes() * spec.query_heads * kTokensMax),
          k(spec.row_bytes() * spec.kv_heads * kTokensMax),
          v(spec.row_bytes() * spec.kv_heads * kTokensMax),
          whole(q.size()),
          partial(sizeof(float) * spec.head_dim * spec.query_heads * kTokensMax),
          lse(sizeof(float) * spec.query_heads * kTokensMax) {}

    kernels::DeviceBytes q, k, v, whole, partial, lse;
};

// What comes out of a layer: whole, or partial and lse, as bytes.
using Output = std::vector<std::byte>;

// A program that embeds a shard.
class Program {
  public:
    explicit Program(const ModelSpec& spec)
        : device_(GpuDevice::make_on_stream(0, stream_.get()).value()), spec_(spec) {
        shard_ = std::make_unique<Shard>(0, kPoolBytes, *device_);
        shard_->add_model(kModel, spec, {1, 1}, 0).value();
        for (int layer = 0; layer < spec.layer_count(); ++layer) tensors_.emplace_back(spec);
    }

    StepId begin(const Parts& parts) {
        const StepId step{++last_step_};
        shard_->begin({.step = step, .model = kModel, .kind = StepKind::attend, .parts = parts}).value();
        return step;
    }
    // Behind what the stream has, as a program's own kernels would.
    void put(int layer, const LayerTensors& tensors, int tokens) {
        const std::size_t row = spec_.row_bytes() * tokens, q = row * spec_.query_heads, kv = row * spec_.kv_heads;
        const std::byte* const from = tensors.bytes.data();
        copy(tensors_[layer].q.data(), from, q, cudaMemcpyHostToDevice);
        copy(tensors_[layer].k.data(), from + q, kv, cudaMemcpyHostToDevice);
        copy(tensors_[layer].v.data(), from + q + kv, kv, cudaMemcpyHostToDevice);
    }
    Status layer(StepId step, int layer, bool is_whole) {
        const std::size_t tokens = shard_->size_of_step(step).tokens;
        const std::size_t row = spec_.row_bytes() * tokens, q = row * spec_.query_heads, kv = row * spec_.kv_heads;
        DeviceTensors& at = tensors_[layer];
        ShardLayer call{.steps = {&step, 1},
                        .layer = layer,
                        .q = {at.q.data(), q},
                        .k = {at.k.data(), kv},
                        .v = {at.v.data(), kv},
                        .whole = {},
                        .partial = {},
                        .lse = {},
                        .inputs_in = TensorMemory::device,
                        .outputs_in = TensorMemory::device};
        if (is_whole) {
            call.whole = {at.whole.data(), q};
        } else {
            call.partial = {reinterpret_cast<float*>(at.partial.data()), tokens * spec_.query_heads * spec_.head_dim};
            call.lse = {reinterpret_cast<float*>(at.lse.data()), tokens * spec_.query_heads};
        }
        return shard_->layer(call);
    }
    void poison_outputs() {
        for (DeviceTensors& at : tensors_) {
            check_cuda(cudaMemsetAsync(at.whole.data(), 0xff, at.whole.size(), stream_.get()), "cudaMemsetAsync");
        }
    }
    Output output(int layer, int tokens, bool is_whole) {
        const std::size_t rows = static_cast<std::size_t>(tokens) * spec_.query_heads;
        Output out;
        const auto add = [&](const kernels::DeviceBytes& from, std::size_t bytes) {
            out.resize(out.size() + bytes);
            copy(out.data() + out.size() - bytes, from.data(), bytes, cudaMemcpyDeviceToHost);
            wait();
        };
        if (is_whole) {
            add(tensors_[layer].whole, rows * spec_.row_bytes());
        } else {
            add(tensors_[layer].partial, rows * spec_.head_dim * sizeof(float));
            add(tensors_[layer].lse, rows * sizeof(float));
        }
        return out;
    }
    GpuGraph capture(const std::function<void()>& queue) {
        return GpuGraph::capture(stream_, [&](kernels::Stream) { queue(); });
    }
    void wait() { check_cuda(cudaStreamSynchronize(stream_.get()), "cudaStreamSynchronize"); }

    const GpuStream& stream() const { return stream_; }
    Shard& shard() { return *shard_; }
    worker::DeviceStatus status() const { return device_->status(); }
    DeviceTensors& tensors(int layer) { return tensors_[layer]; }
    void drop() { shard_.reset(); }

  private:
    void copy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) {
        check_cuda(cudaMemcpyAsync(to, from, bytes, kind, stream_.get()), "cudaMemcpyAsync");
    }

    GpuStream stream_;  // the program's
    std::unique_ptr<GpuDevice> device_;
    const ModelSpec spec_;
    std::unique_ptr<Shard> shard_;
    std::vector<DeviceTensors> tensors_;
    std::uint64_t last_step_ = 0;
};

// The same shard, called with tensors in the host's memory.
class HostCalls {
  public:
    explicit HostCalls(const ModelSpec& spec) : device_(GpuDevice::make(0).value()), spec_(spec) {
        shard_ = std::make_unique<Shard>(0, kPoolBytes, *device_);
        shard_->add_model(kModel, spec, {1, 1}, 0).value();
    }

    std::vector<Output> step(const Parts& parts, const std::vector<LayerTensors>& tensors, bool is_whole) {
        const StepId step{++last_step_};
        shard_->begin({.step = step, .model = kModel, .kind = StepKind::attend, .parts = parts}).value();
        const std::size_t tokens = shard_->size_of_step(step).tokens, rows = tokens * spec_.query_heads;
        const std::size_t q = rows * spec_.row_bytes(), kv = tokens * spec_.kv_heads * spec_.row_bytes();
        std::vector<Output> outputs;
        for (int layer = 0; layer < spec_.layer_count(); ++layer) {
            const std::span<const std::byte> all(tensors[layer].bytes);
            Output whole(is_whole ? q : 0);
            std::vector<float> partial(is_whole ? 0 : rows * spec_.head_dim), lse(is_whole ? 0 : rows);
            shard_
                ->layer({.steps = {&step, 1},
                         .layer = layer,
                         .q = all.first(q),
                         .k = all.subspan(q, kv),
                         .v = all.subspan(q + kv, kv),
                         .whole = whole,
                         .partial = partial,
                         .lse = lse})
                .value();
            for (const auto part : {std::as_bytes(std::span(partial)), std::as_bytes(std::span(lse))}) {
                whole.insert(whole.end(), part.begin(), part.end());
            }
            outputs.push_back(std::move(whole));
        }
        shard_->commit(step).value();
        return outputs;
    }
    Shard& shard() { return *shard_; }

  private:
    std::unique_ptr<GpuDevice> device_;
    const ModelSpec spec_;
    std::unique_ptr<Shard> shard_;
    std::uint64_t last_step_ = 0;
};

}  // namespace kvgrid::tests
