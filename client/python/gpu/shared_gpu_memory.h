#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>

#include "client/kvgrid.h"
#include "client/python/gpu/gpu.h"
#include "core/free_ranges.h"

namespace kvgrid::python {

// GPU memory of this process that a client shares with the lead, and the places in it that layer calls have their tensors in.
//
//   Room     a place is taken where one is free, else in a new allocation of 32 MiB or what is needed; those that nobody uses are freed first.
//   Ends     an allocation is freed when nobody uses it and the lead has let it go. Where the lead cannot be asked, or a call in it was given up, it
//            stays: whoever frees memory that a worker may still write to ends the worker.
//   Threads  any.
class SharedGpuMemory : public std::enable_shared_from_this<SharedGpuMemory> {
  public:
    using Address = Gpu::Address;

    // Where the next of several tensors in a place begins.
    static constexpr std::size_t aligned(std::size_t bytes) { return (bytes + 255) / 256 * 256; }

    // `timeout` is that of each wait for a stream.
    SharedGpuMemory(std::shared_ptr<Client> client, std::chrono::milliseconds timeout)
        : timeout_(timeout), client_(std::move(client)) {}
    ~SharedGpuMemory();

    // Some bytes, given back with it, unless the call that used them was given up.
    class Place {
      public:
        Place(std::shared_ptr<SharedGpuMemory> from, int memory, std::uint64_t offset, std::size_t bytes,
              Address address)
            : from_(std::move(from)), memory_(memory), offset_(offset), bytes_(bytes), address_(address) {}
        ~Place();
        Place(const Place&) = delete;
        Place& operator=(const Place&) = delete;

        int memory() const { return memory_; }  // as DeviceTensors::memory
        std::uint64_t offset() const { return offset_; }
        Address address() const { return address_; }
        void give_up() { given_up_ = true; }

        // What is queued on `stream` from now on comes after what others have queued that used these bytes, until they called end_on.
        Status begin_on(Gpu::Stream stream) const;
        Status end_on(Gpu::Stream stream) const;

      private:
        const std::shared_ptr<SharedGpuMemory> from_;
        const int memory_;
        const std::uint64_t offset_;
        const std::size_t bytes_;
        const Address address_;
        bool given_up_ = false;
    };

    Result<Gpu> gpu(int index);  // as Gpu::of
    Deadline deadline() const { return deadline_in(timeout_); }

    // unsupported: the lead does not reach memory of this GPU, and will not be asked again. no_room: neither has the GPU any.
    Result<std::shared_ptr<Place>> take(const Gpu& gpu, std::size_t bytes);

    // Where an address lies: the number of the allocation, and bytes from its beginning; nothing if it is in none.
    struct Location {
        int memory;
        std::uint64_t offset;
    };
    std::optional<Location> find(Address address) const;

    // Once more, after a connection was lost.
    Status share_again(int memory);

    // Asks the lead to let everything go; places that are in use stay until they are given back.
    void close();

  private:
    struct Allocation {
        Gpu gpu;
        Address base;
        std::size_t bytes;
        CudaDriver::IpcHandle handle;
        Gpu::Event event;  // the last end_on
        FreeRanges free;
        int places = 0;  // that are taken
        bool shared = true;
    };

    Result<int> allocate(const Gpu& gpu, std::size_t bytes);
    std::shared_ptr<Place> place_in(int memory, Allocation& allocation, std::size_t bytes);
    void give_back(int memory, std::uint64_t offset, std::size_t bytes);
    void let_go_unused();
    bool let_go(int memory, Allocation& allocation);
    static void free(const Allocation& allocation);

    const std::chrono::milliseconds timeout_;
    mutable std::mutex mutex_;
    std::shared_ptr<Client> client_;  // null: closed
    std::map<int, Gpu> gpus_;
    std::map<int, Allocation> allocations_;
    std::map<int, Error> out_of_reach_;  // GPUs, and why
};

}  // namespace kvgrid::python
