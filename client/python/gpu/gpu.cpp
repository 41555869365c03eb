#include "client/python/gpu/gpu.h"

#include <fmt/format.h>

#include <chrono>
#include <thread>

namespace kvgrid::python {

namespace {

constexpr unsigned kEventDisableTiming = 2;
// A query takes a microsecond or less: work that a decode waits for is noticed at once.
constexpr int kPollsWithoutRest = 20'000;
constexpr std::chrono::microseconds kRest{50};

}  // namespace

template <class Call>
Status Gpu::within(const char* function, Call&& call) const {
    if (Status entered = driver_->status(driver_->cuCtxPushCurrent(context_), "cuCtxPushCurrent"); !entered)
        return entered;
    const CudaDriver::Code code = call(*driver_);
    CudaDriver::Context left;
    driver_->cuCtxPopCurrent(&left);
    return driver_->status(code, function);
}

Result<Gpu> Gpu::of(int index) {
    const auto driver = CudaDriver::load();
    if (!driver) return driver.error();
    int device = 0;
    if (Status found = (*driver)->status((*driver)->cuDeviceGet(&device, index), "cuDeviceGet"); !found) {
        return {Errc::unsupported, fmt::format("this process sees no GPU {}: {}", index, found.error().message)};
    }
    CudaDriver::Context context;
    const auto retained = (*driver)->cuDevicePrimaryCtxRetain(&context, device);  // never released: torch keeps it, too
    if (Status ready = (*driver)->status(retained, "cuDevicePrimaryCtxRetain"); !ready) return ready.error();
    return Gpu(**driver, index, context);
}

Result<Gpu::Address> Gpu::allocate(std::size_t bytes) const {
    Address address = 0;
    Status done = within("cuMemAlloc", [&](const CudaDriver& on) { return on.cuMemAlloc(&address, bytes); });
    if (done) return address;
    return {done.error().code, fmt::format("{} bytes of memory on GPU {} for tensors of layer calls: {}", bytes, index_,
                                           done.error().message)};
}

Status Gpu::free(Address address) const {
    return within("cuMemFree", [&](const CudaDriver& on) { return on.cuMemFree(address); });
}

Result<CudaDriver::IpcHandle> Gpu::ipc_handle(Address allocation) const {
    CudaDriver::IpcHandle handle;
    Status done =
        within("cuIpcGetMemHandle", [&](const CudaDriver& on) { return on.cuIpcGetMemHandle(&handle, allocation); });
    if (!done) return done.error();
    return handle;
}

Result<Gpu::Event> Gpu::make_event() const {
    Event event = nullptr;
    Status done =
        within("cuEventCreate", [&](const CudaDriver& on) { return on.cuEventCreate(&event, kEventDisableTiming); });
    if (!done) return done.error();
    return event;
}

Status Gpu::destroy(Event event) const {
    return within("cuEventDestroy", [&](const CudaDriver& on) { return on.cuEventDestroy(event); });
}

Status Gpu::copy(Address to, Address from, std::size_t bytes, Stream stream) const {
    if (bytes == 0) return {};
    return within("cuMemcpyAsync", [&](const CudaDriver& on) { return on.cuMemcpyAsync(to, from, bytes, stream); });
}

Status Gpu::synchronize(Stream stream, Deadline deadline) const {
    CudaDriver::Code code = CudaDriver::kNotReady;
    Status asked = within("cuStreamQuery", [&](const CudaDriver& on) {
        for (int polls = 0; code == CudaDriver::kNotReady; ++polls) {
            code = on.cuStreamQuery(stream);
            if (polls < kPollsWithoutRest) continue;
            if (std::chrono::steady_clock::now() > deadline) break;
            std::this_thread::sleep_for(kRest);
        }
        return code;
    });
    if (code != CudaDriver::kNotReady) return asked;
    return {Errc::deadline_exceeded,
            fmt::format("what is queued on the stream of GPU {} was not done in time", index_)};
}

Status Gpu::wait(Stream stream, Event event) const {
    return within("cuStreamWaitEvent", [&](const CudaDriver& on) { return on.cuStreamWaitEvent(stream, event, 0); });
}

Status Gpu::record(Event event, Stream stream) const {
    return within("cuEventRecord", [&](const CudaDriver& on) { return on.cuEventRecord(event, stream); });
}

}  // namespace kvgrid::python
