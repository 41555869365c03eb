#include "client/python/gpu/cuda_driver.h"

#include <dlfcn.h>
#include <fmt/format.h>

namespace kvgrid::python {

namespace {

constexpr CudaDriver::Code kSuccess = 0, kOutOfMemory = 2, kNotSupported = 801, kCaptureFirst = 900, kCaptureLast = 907;

template <class Function>
bool found(void* library, const char* name, Function& function) {
    function = reinterpret_cast<Function>(dlsym(library, name));
    return function != nullptr;
}

bool found_all(void* library, CudaDriver& driver) {
    return found(library, "cuInit", driver.cuInit) && found(library, "cuGetErrorName", driver.cuGetErrorName) &&
           found(library, "cuDeviceGet", driver.cuDeviceGet) &&
           found(library, "cuDevicePrimaryCtxRetain", driver.cuDevicePrimaryCtxRetain) &&
           found(library, "cuCtxPushCurrent_v2", driver.cuCtxPushCurrent) &&
           found(library, "cuCtxPopCurrent_v2", driver.cuCtxPopCurrent) &&
           found(library, "cuMemAlloc_v2", driver.cuMemAlloc) && found(library, "cuMemFree_v2", driver.cuMemFree) &&
           found(library, "cuIpcGetMemHandle", driver.cuIpcGetMemHandle) &&
           found(library, "cuMemcpyAsync", driver.cuMemcpyAsync) &&
           found(library, "cuStreamQuery", driver.cuStreamQuery) &&
           found(library, "cuStreamWaitEvent", driver.cuStreamWaitEvent) &&
           found(library, "cuEventCreate", driver.cuEventCreate) &&
           found(library, "cuEventRecord", driver.cuEventRecord) &&
           found(library, "cuEventDestroy_v2", driver.cuEventDestroy);
}

Result<CudaDriver> load_now() {
    void* library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) {
        return {Errc::unsupported,
                fmt::format("a tensor is in GPU memory, and there is no CUDA driver here: {}", dlerror())};
    }
    CudaDriver driver;
    if (!found_all(library, driver)) {
        return {Errc::unsupported, "the CUDA driver (libcuda.so.1) lacks functions that kvgrid calls: is it very old?"};
    }
    if (Status ready = driver.status(driver.cuInit(0), "cuInit"); !ready) {
        return {Errc::unsupported, "the CUDA driver does not start: " + ready.error().message};
    }
    return driver;
}

}  // namespace

Result<const CudaDriver*> CudaDriver::load() {
    static const Result<CudaDriver> driver = load_now();
    if (!driver) return driver.error();
    return &*driver;
}

Status CudaDriver::status(Code code, const char* function) const {
    if (code == kSuccess) return {};
    const char* name = nullptr;
    if (cuGetErrorName(code, &name) != kSuccess || name == nullptr) name = "an error that it has no name for";
    const std::string said = fmt::format("{}: {}", function, name);
    if (code == kOutOfMemory) return {Errc::no_room, said};
    if (code == kNotSupported) return {Errc::unsupported, said};
    if (code >= kCaptureFirst && code <= kCaptureLast) {
        return {Errc::unsupported, said + ": a call of the grid waits, and cannot be captured into a CUDA graph"};
    }
    return {Errc::internal, said};
}

}  // namespace kvgrid::python
