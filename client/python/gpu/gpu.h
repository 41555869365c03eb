#pragma once

#include <cstddef>
#include <span>

#include "client/python/gpu/cuda_driver.h"
#include "core/clock.h"

namespace kvgrid::python {

// One GPU of this process, by its primary context, which torch and the CUDA runtime use, too. Copied as one likes; of nothing it is the owner.
//
//   Threads  any; the thread's own context is as it was after each call.
class Gpu {
  public:
    using Address = CudaDriver::Address;
    using Stream = CudaDriver::Stream;
    using Event = CudaDriver::Event;

    // By CUDA's number for it. unsupported: no driver, no such GPU.
    static Result<Gpu> of(int index);
    int index() const { return index_; }

    Result<Address> allocate(std::size_t bytes) const;
    Status free(Address address) const;
    Result<CudaDriver::IpcHandle> ipc_handle(Address allocation) const;
    Result<Event> make_event() const;
    Status destroy(Event event) const;

    // Queued on `stream`. Between GPU memories, or the host's memory, whose copy may have been done by then.
    Status copy(Address to, Address from, std::size_t bytes, Stream stream) const;
    // Until everything that is queued there is done. deadline_exceeded: it is not.
    Status synchronize(Stream stream, Deadline deadline) const;
    Status wait(Stream stream, Event event) const;  // the stream, not the host
    Status record(Event event, Stream stream) const;

  private:
    Gpu(const CudaDriver& driver, int index, CudaDriver::Context context)
        : driver_(&driver), index_(index), context_(context) {}

    template <class Call>
    Status within(const char* function, Call&& call) const;

    const CudaDriver* driver_;
    int index_;
    CudaDriver::Context context_;
};

}  // namespace kvgrid::python
