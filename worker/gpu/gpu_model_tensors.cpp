// The part of GpuModel that brings a layer call's tensors to where the kernels read them, and outputs back.

#include <cuda_runtime_api.h>

#include <cstring>

#include "kernels/cuda/cuda_error.h"
#include "worker/gpu/gpu_model.h"

namespace kvgrid::worker {

using kernels::check_cuda;
using kernels::DeviceSpan;

namespace {

// What a layer call may bring, or take, through mapped host memory. Beyond, copies are faster than loads over the bus.
constexpr std::size_t kMappedBytesMax = 256 << 10;

void copy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind, kernels::Stream stream) {
    if (bytes == 0) return;
    check_cuda(cudaMemcpyAsync(to, from, bytes, kind, stream), "cudaMemcpyAsync");
}

template <class T>
DeviceSpan<T> on_device(std::span<T> tensor) {
    return {tensor.empty() ? nullptr : tensor.data(), tensor.size()};
}

// q | k | v, and whole, or partial | lse, as they are staged.
struct StagedInputs {
    std::size_t k_at, v_at, bytes;
};
StagedInputs staged_inputs_of(const DeviceLayer& layer) {
    const std::size_t k_at = aligned_for_gpu(layer.q.size()), v_at = k_at + aligned_for_gpu(layer.k.size());
    return {k_at, v_at, v_at + layer.v.size()};
}
struct StagedOutputs {
    std::size_t lse_at, bytes;
};
StagedOutputs staged_outputs_of(const DeviceLayer& layer) {
    if (!layer.whole.empty()) return {0, layer.whole.size()};
    const std::size_t lse_at = aligned_for_gpu(layer.partial.size_bytes());
    return {lse_at, lse_at + layer.lse.size_bytes()};
}

}  // namespace

GpuModel::Places GpuModel::place(const DeviceLayer& layer) {
    const std::size_t host_inputs = layer.inputs_in == TensorMemory::host ? staged_inputs_of(layer).bytes : 0;
    const std::size_t host_outputs = layer.outputs_in == TensorMemory::host ? staged_outputs_of(layer).bytes : 0;
    Places places;
    places.in_host_memory = host_inputs <= kMappedBytesMax && host_outputs <= kMappedBytesMax;
    if (host_inputs > 0) {
        stage_inputs(layer, places);
    } else {
        if (layer.has_all_heads) cut_queries(layer, places);
        places.q = on_device(layer.q);
        places.k = on_device(layer.k);
        places.v = on_device(layer.v);
    }
    if (host_outputs > 0) {
        stage_outputs(layer, places);
    } else {
        places.whole = on_device(layer.whole);
        places.partial = on_device(layer.partial);
        places.lse = on_device(layer.lse);
    }
    return places;
}

// k and v are cut as they are appended.
void GpuModel::cut_queries(const DeviceLayer& layer, Places& places) {
    const std::size_t bytes =
        layer.q.empty() ? 0 : layer.token_count * shape_.heads.query_heads * shape_.spec.row_bytes();
    settle();
    staging_moves_ += inputs_.grow(bytes);
    places.q_copy = {inputs_.data(), bytes};
    const HeadRange kv = kv_heads_of_part(shape_.spec, shape_.grid, shape_.head_part);
    places.first_kv_head = kv.first;
}

void GpuModel::stage_inputs(const DeviceLayer& layer, Places& places) {
    settle();
    const auto [k_at, v_at, bytes] = staged_inputs_of(layer);
    staging_moves_ += inputs_.grow(bytes);
    std::byte* in = inputs_.data();
    if (places.in_host_memory) {
        staging_moves_ += host_inputs_.grow(kMappedBytesMax);
        in = host_inputs_.data();
        std::memcpy(in, layer.q.data(), layer.q.size());
        std::memcpy(in + k_at, layer.k.data(), layer.k.size());
        std::memcpy(in + v_at, layer.v.data(), layer.v.size());
        places.q_copy = {inputs_.data(), layer.q.size()};
    } else {
        copy(in, layer.q.data(), layer.q.size(), cudaMemcpyHostToDevice, stream_.get());
        copy(in + k_at, layer.k.data(), layer.k.size(), cudaMemcpyHostToDevice, stream_.get());
        copy(in + v_at, layer.v.data(), layer.v.size(), cudaMemcpyHostToDevice, stream_.get());
    }
    places.q = {in, layer.q.size()};
    places.k = {in + k_at, layer.k.size()};
    places.v = {in + v_at, layer.v.size()};
}

void GpuModel::stage_outputs(const DeviceLayer& layer, Places& places) {
    const auto [lse_at, bytes] = staged_outputs_of(layer);
    if (layer.inputs_in == TensorMemory::device) settle();
    staging_moves_ += places.in_host_memory ? host_outputs_.grow(kMappedBytesMax) : outputs_.grow(bytes);
    std::byte* const out = places.in_host_memory ? host_outputs_.data() : outputs_.data();
    places.whole = {out, layer.whole.size()};
    places.partial = {reinterpret_cast<float*>(out), layer.partial.size()};
    places.lse = {reinterpret_cast<float*>(out + lse_at), layer.lse.size()};
}

void GpuModel::fetch(const DeviceLayer& layer, const Places& places) {
    const auto take = [&](void* to, const void* from, std::size_t bytes) {
        if (bytes == 0) return;
        if (places.in_host_memory) {
            std::memcpy(to, from, bytes);
        } else {
            check_cuda(cudaMemcpy(to, from, bytes, cudaMemcpyDeviceToHost), "cudaMemcpy of outputs");
        }
    };
    take(layer.whole.data(), places.whole.data, layer.whole.size());
    take(layer.partial.data(), places.partial.data, layer.partial.size_bytes());
    take(layer.lse.data(), places.lse.data, layer.lse.size_bytes());
}

}  // namespace kvgrid::worker
