#pragma once

#include <cuda_runtime_api.h>

#include <array>
#include <cstring>
#include <vector>

#include "client/kvgrid.h"
#include "kernels/cuda/cuda_error.h"
#include "kernels/cuda/device_buffer.h"

namespace kvgrid::e2e {

// Tensors of a client in one allocation of its own GPU memory: q, k, v and o, with `part_bytes` of room each.
class GpuTensors {
  public:
    explicit GpuTensors(std::uint64_t part_bytes) : part_bytes_(part_bytes), memory_(4 * part_bytes) {}

    std::uint64_t bytes() const { return memory_.size(); }
    DeviceTensors places() const { return {.q = 0, .k = part_bytes_, .v = 2 * part_bytes_, .o = 3 * part_bytes_}; }
    std::array<std::byte, 64> handle() const {
        cudaIpcMemHandle_t handle;
        kernels::check_cuda(cudaIpcGetMemHandle(&handle, memory_.data()), "cudaIpcGetMemHandle");
        std::array<std::byte, 64> bytes;
        static_assert(sizeof(handle) == sizeof(bytes));
        std::memcpy(bytes.data(), &handle, sizeof(handle));
        return bytes;
    }

    // Poisons o. The GPU is through with all of it on return, as layer_on_device wants it.
    void put(const LayerInput& input) {
        memory_.upload(input.q.data(), input.q.size(), places().q);
        memory_.upload(input.k.data(), input.k.size(), places().k);
        memory_.upload(input.v.data(), input.v.size(), places().v);
        kernels::check_cuda(cudaMemset(memory_.data() + places().o, 0xff, part_bytes_), "cudaMemset");
        kernels::check_cuda(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
    }
    std::vector<std::byte> output(std::size_t bytes) const {
        std::vector<std::byte> o(bytes);
        memory_.download(o.data(), bytes, places().o);
        return o;
    }

  private:
    const std::uint64_t part_bytes_;
    kernels::DeviceBytes memory_;
};

// 2 layers, 8 query and 2 KV heads of 128.
inline ModelSpec gpu_client_spec() {
    ModelSpec spec{.name = "gpu-client",
                   .layers = {{0}, {1}},
                   .query_heads = 8,
                   .kv_heads = 2,
                   .head_dim = 128,
                   .dtype = Dtype::bf16,
                   .scale = 0.08838834764};
    spec.deterministic = true;
    return spec;
}

}  // namespace kvgrid::e2e
