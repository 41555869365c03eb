#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "core/result.h"

namespace kvgrid::worker {

// A client's own GPU memory, opened for the kernels of this worker.
//
//   Ends   with its last owner, on whichever thread that is: nothing that uses it may be queued then.
//   Trust  the client may write to it at any time, and so change what its own calls see. It may not free it before the worker has let it go.
class DeviceMemory {
  public:
    static constexpr std::size_t kHandleBytes = 64;  // of a cudaIpcMemHandle_t

    explicit DeviceMemory(std::span<std::byte> bytes) : bytes_(bytes) {}
    virtual ~DeviceMemory() = default;
    DeviceMemory(const DeviceMemory&) = delete;
    DeviceMemory& operator=(const DeviceMemory&) = delete;

    std::span<std::byte> bytes() const { return bytes_; }  // device pointers

    // Between it and the host's memory, waiting; parts of one size. From any thread. `unavailable`: the GPU does not do it.
    virtual Status read(std::span<const std::byte> part, std::span<std::byte> host) const = 0;
    virtual Status write(std::span<std::byte> part, std::span<const std::byte> host) const = 0;

  private:
    const std::span<std::byte> bytes_;
};

// Where a client says that its tensors begin, in bytes from the beginning of the memory.
struct DeviceOffsets {
    std::uint64_t q = 0, k = 0, v = 0, o = 0;
};

// A client's memory as the lead has it.
struct DeviceRegion {
    std::shared_ptr<DeviceMemory> memory;
    std::uint64_t number = 0;         // no two of a lead have the same
    bool is_open_everywhere = false;  // on all other ranks, too
};

// Where a layer call's tensors begin in one of the memories that all ranks have opened; memory 0: in none.
struct PlaceInMemory {
    std::uint64_t memory = 0;
    DeviceOffsets at;
};

// The tensors of one layer call where they lie in a client's memory.
struct ClientTensors {
    std::shared_ptr<DeviceMemory> memory;  // null: there are none
    std::span<const std::byte> q, k, v;
    std::span<std::byte> o;
};

// What belongs to a layer call: k and v are of one size, as are q and o. 0: the call has none of these.
struct ClientTensorSizes {
    std::size_t q, k;
};

// invalid_argument names the tensor that does not begin at a multiple of 16 or is not within the memory, or that o would overwrite.
Result<ClientTensors> client_tensors(std::shared_ptr<DeviceMemory> memory, const DeviceOffsets& at,
                                     const ClientTensorSizes& sizes);

}  // namespace kvgrid::worker
