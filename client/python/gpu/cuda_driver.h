#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "core/result.h"

namespace kvgrid::python {

// The few functions of the CUDA driver that tensors in GPU memory need, by the driver's names and with its types. They are looked for when the first
// such tensor comes: the extension links no CUDA, and needs none where tensors are on the CPU.
struct CudaDriver {
    using Code = int;  // CUresult; 0: success
    using Context = void*;
    using Stream = void*;  // nullptr: the legacy default stream
    using Event = void*;
    using Address = std::uint64_t;
    struct IpcHandle {
        std::array<std::byte, 64> bytes;
    };

    Code (*cuInit)(unsigned flags);
    Code (*cuGetErrorName)(Code code, const char** name);
    Code (*cuDeviceGet)(int* device, int ordinal);
    Code (*cuDevicePrimaryCtxRetain)(Context* context, int device);
    Code (*cuCtxPushCurrent)(Context context);
    Code (*cuCtxPopCurrent)(Context* context);
    Code (*cuMemAlloc)(Address* address, std::size_t bytes);
    Code (*cuMemFree)(Address address);
    Code (*cuIpcGetMemHandle)(IpcHandle* handle, Address address);
    Code (*cuMemcpyAsync)(Address to, Address from, std::size_t bytes, Stream stream);  // host addresses, too
    Code (*cuStreamQuery)(Stream stream);
    Code (*cuStreamWaitEvent)(Stream stream, Event event, unsigned flags);
    Code (*cuEventCreate)(Event* event, unsigned flags);
    Code (*cuEventRecord)(Event event, Stream stream);
    Code (*cuEventDestroy)(Event event);

    // Loaded and initialised once, for good. unsupported: there is no driver here, or it has no GPU.
    static Result<const CudaDriver*> load();

    static constexpr Code kNotReady = 600;  // of cuStreamQuery

    // What went wrong in `function`, by the driver's name for it. no_room: no memory is left. unsupported: the driver does not do that.
    Status status(Code code, const char* function) const;
};

}  // namespace kvgrid::python
