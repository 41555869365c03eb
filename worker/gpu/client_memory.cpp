#include "worker/gpu/client_memory.h"

#include <cudaTypedefs.h>
#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include <cstring>
#include <optional>

#include "core/log.h"
#include "kernels/cuda/cuda_error.h"

namespace kvgrid::worker {

using kernels::check_cuda;

namespace {

static_assert(sizeof(cudaIpcMemHandle_t) == DeviceMemory::kHandleBytes);

class OpenedMemory final : public DeviceMemory {
  public:
    OpenedMemory(int device, std::span<std::byte> bytes) : DeviceMemory(bytes), device_(device) {}

    ~OpenedMemory() override {
        cudaSetDevice(device_);
        const cudaError_t closed = cudaIpcCloseMemHandle(bytes().data());
        if (closed == cudaSuccess) {
            log_info(fmt::format("let {} bytes of a client's GPU memory go", bytes().size()));
        } else {
            cudaGetLastError();
            log_warn(fmt::format("a client's GPU memory was not closed: {}", cudaGetErrorString(closed)));
        }
    }

    Status read(std::span<const std::byte> part, std::span<std::byte> host) const override {
        return copy(host.data(), part.data(), part.size(), cudaMemcpyDeviceToHost);
    }
    Status write(std::span<std::byte> part, std::span<const std::byte> host) const override {
        return copy(part.data(), host.data(), part.size(), cudaMemcpyHostToDevice);
    }

  private:
    Status copy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) const {
        cudaSetDevice(device_);
        const cudaError_t copied = cudaMemcpy(to, from, bytes, kind);
        if (copied == cudaSuccess) return {};
        cudaGetLastError();
        return {Errc::unavailable,
                fmt::format("a copy of {} bytes of a client's GPU memory: {}", bytes, cudaGetErrorString(copied))};
    }

    const int device_;
};

Error refusal(cudaError_t error) {
    const bool out_of_reach = error == cudaErrorPeerAccessUnsupported || error == cudaErrorTooManyPeers ||
                              error == cudaErrorNotSupported || error == cudaErrorMapBufferObjectFailed;
    return {
        out_of_reach ? Errc::unsupported : Errc::invalid_argument,
        fmt::format("CUDA does not open the handle ({}: {}): it must be cudaIpcGetMemHandle's, of the beginning of a "
                    "cudaMalloc allocation that is still there, in another process of this host, on a GPU that the "
                    "worker's GPU can reach",
                    cudaGetErrorName(error), cudaGetErrorString(error))};
}

PFN_cuMemGetAddressRange_v3020 address_range_query() {
    void* found = nullptr;
    cudaDriverEntryPointQueryResult outcome = cudaDriverEntryPointSymbolNotFound;
#if CUDART_VERSION >= 12050
    const cudaError_t asked =
        cudaGetDriverEntryPointByVersion("cuMemGetAddressRange", &found, 3020, cudaEnableDefault, &outcome);
#else
    const cudaError_t asked = cudaGetDriverEntryPoint("cuMemGetAddressRange", &found, cudaEnableDefault, &outcome);
#endif
    if (asked != cudaSuccess) cudaGetLastError();
    const bool is_there = asked == cudaSuccess && outcome == cudaDriverEntryPointSuccess;
    return is_there ? reinterpret_cast<PFN_cuMemGetAddressRange_v3020>(found) : nullptr;
}

// How many bytes of its allocation there are from `data` on; nothing if the driver does not say. Asked of the driver itself, through the
// runtime, so that nothing links libcuda, which a host without a GPU does not have.
std::optional<std::size_t> bytes_from(const std::byte* data) {
    const auto query = address_range_query();
    const auto address = reinterpret_cast<CUdeviceptr>(data);
    CUdeviceptr base = 0;
    std::size_t bytes = 0;
    if (query == nullptr || query(&base, &bytes, address) != CUDA_SUCCESS) return std::nullopt;
    return base + bytes - address;
}

}  // namespace

Result<std::shared_ptr<DeviceMemory>> open_client_memory(int device, std::span<const std::byte> handle,
                                                         std::uint64_t bytes) {
    if (handle.size() != DeviceMemory::kHandleBytes) return refusal(cudaErrorInvalidValue);
    check_cuda(cudaSetDevice(device), "cudaSetDevice");
    cudaIpcMemHandle_t given;
    std::memcpy(&given, handle.data(), sizeof(given));
    void* mapped = nullptr;
    const cudaError_t opened = cudaIpcOpenMemHandle(&mapped, given, cudaIpcMemLazyEnablePeerAccess);
    if (opened != cudaSuccess) {
        cudaGetLastError();  // a refused handle is no fault of later calls
        return refusal(opened);
    }
    auto* const data = static_cast<std::byte*>(mapped);
    const auto there = bytes_from(data);
    if (!there || bytes > *there) {
        cudaIpcCloseMemHandle(mapped);
        if (!there) return {Errc::unsupported, "the driver does not say how large the allocation is"};
        return {Errc::invalid_argument,
                fmt::format("{} bytes of GPU memory were to be shared: the allocation has {}", bytes, *there)};
    }
    log_info(fmt::format("opened {} bytes of a client's GPU memory", bytes));
    return std::shared_ptr<DeviceMemory>(std::make_shared<OpenedMemory>(device, std::span(data, bytes)));
}

}  // namespace kvgrid::worker
