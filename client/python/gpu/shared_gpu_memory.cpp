#include "client/python/gpu/shared_gpu_memory.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/log.h"

namespace kvgrid::python {

namespace {

constexpr std::size_t kAllocationBytes = 32 << 20;
constexpr std::size_t kGranularity = 2 << 20;  // smaller allocations share a block of the driver's with others
constexpr int kAllocationsMax = 16;            // of a connection

std::size_t allocation_bytes(std::size_t needed) {
    return std::max(kAllocationBytes, (needed + kGranularity - 1) / kGranularity * kGranularity);
}

}  // namespace

SharedGpuMemory::Place::~Place() {
    if (!given_up_) from_->give_back(memory_, offset_, bytes_);
}

Status SharedGpuMemory::Place::begin_on(Gpu::Stream stream) const {
    const std::lock_guard lock(from_->mutex_);
    const Allocation& allocation = from_->allocations_.at(memory_);
    return allocation.gpu.wait(stream, allocation.event);
}

// The event stands for all ends so far: each waits for the one before.
Status SharedGpuMemory::Place::end_on(Gpu::Stream stream) const {
    const std::lock_guard lock(from_->mutex_);
    const Allocation& allocation = from_->allocations_.at(memory_);
    if (Status waits = allocation.gpu.wait(stream, allocation.event); !waits) return waits;
    return allocation.gpu.record(allocation.event, stream);
}

SharedGpuMemory::~SharedGpuMemory() {
    close();
}

Result<Gpu> SharedGpuMemory::gpu(int index) {
    const std::lock_guard lock(mutex_);
    if (const auto found = gpus_.find(index); found != gpus_.end()) return found->second;
    auto gpu = Gpu::of(index);
    if (gpu) gpus_.emplace(index, *gpu);
    return gpu;
}

Result<std::shared_ptr<SharedGpuMemory::Place>> SharedGpuMemory::take(const Gpu& gpu, std::size_t bytes) {
    const std::lock_guard lock(mutex_);
    if (!client_) return {Errc::wrong_state, "the client of this GPU memory is closed"};
    bytes = aligned(std::max(bytes, std::size_t{1}));
    for (auto& [memory, allocation] : allocations_) {
        if (allocation.gpu.index() != gpu.index()) continue;
        if (auto place = place_in(memory, allocation, bytes)) return place;
    }
    const auto memory = allocate(gpu, bytes);
    if (!memory) return memory.error();
    return place_in(*memory, allocations_.at(*memory), bytes);
}

std::shared_ptr<SharedGpuMemory::Place> SharedGpuMemory::place_in(int memory, Allocation& allocation,
                                                                  std::size_t bytes) {
    const auto offset = allocation.free.take(bytes);
    if (!offset) return nullptr;
    ++allocation.places;
    return std::make_shared<Place>(shared_from_this(), memory, *offset, bytes, allocation.base + *offset);
}

Result<int> SharedGpuMemory::allocate(const Gpu& gpu, std::size_t bytes) {
    if (const auto found = out_of_reach_.find(gpu.index()); found != out_of_reach_.end()) return found->second;
    let_go_unused();
    int memory = 0;
    while (allocations_.contains(memory)) ++memory;
    if (memory == kAllocationsMax) {
        return {Errc::no_room, fmt::format("{} bytes for tensors of a layer call on GPU {}: all {} allocations of this "
                                           "client are in use; let some "
                                           "calls end, or use another client",
                                           bytes, gpu.index(), kAllocationsMax)};
    }
    bytes = allocation_bytes(bytes);
    const auto base = gpu.allocate(bytes);
    if (!base) return base.error();
    Allocation made{.gpu = gpu, .base = *base, .bytes = bytes, .handle = {}, .event = nullptr, .free = {}};
    const auto event = gpu.make_event();
    const auto handle = gpu.ipc_handle(*base);
    if (event) made.event = *event;
    if (handle) made.handle = *handle;
    Status shared = !event    ? Status(event.error())
                    : !handle ? Status(handle.error())
                              : client_->share_device_memory(made.handle.bytes, bytes, memory);
    if (!shared) {
        if (shared.error() == Errc::unsupported) out_of_reach_.emplace(gpu.index(), shared.error());
        free(made);
        return shared.error();
    }
    made.free.give_back(0, bytes);
    allocations_.emplace(memory, std::move(made));
    return memory;
}

std::optional<SharedGpuMemory::Location> SharedGpuMemory::find(Address address) const {
    const std::lock_guard lock(mutex_);
    for (const auto& [memory, allocation] : allocations_) {
        if (address >= allocation.base && address - allocation.base < allocation.bytes)
            return Location{memory, address - allocation.base};
    }
    return std::nullopt;
}

Status SharedGpuMemory::share_again(int memory) {
    const std::lock_guard lock(mutex_);
    if (!client_) return {Errc::wrong_state, "the client of this GPU memory is closed"};
    const Allocation& allocation = allocations_.at(memory);
    return client_->share_device_memory(allocation.handle.bytes, allocation.bytes, memory);
}

void SharedGpuMemory::give_back(int memory, std::uint64_t offset, std::size_t bytes) {
    const std::lock_guard lock(mutex_);
    Allocation& allocation = allocations_.at(memory);
    allocation.free.give_back(offset, bytes);
    --allocation.places;
    if (!client_) let_go_unused();
}

void SharedGpuMemory::let_go_unused() {
    for (auto next = allocations_.begin(); next != allocations_.end();) {
        auto& [memory, allocation] = *next;
        if (allocation.places > 0 || !let_go(memory, allocation)) {
            ++next;
            continue;
        }
        free(allocation);
        next = allocations_.erase(next);
    }
}

// False: the lead may still have it.
bool SharedGpuMemory::let_go(int memory, Allocation& allocation) {
    if (!allocation.shared) return true;
    if (!client_) return false;
    if (Status done = client_->unshare_device_memory(memory); !done) {
        log_warn(fmt::format("{} bytes of GPU memory stay allocated: the lead was asked to let them go, and {}",
                             allocation.bytes, done.error().to_string()));
        return false;
    }
    allocation.shared = false;
    return true;
}

void SharedGpuMemory::close() {
    const std::lock_guard lock(mutex_);
    if (!client_) return;
    for (auto& [memory, allocation] : allocations_) let_go(memory, allocation);
    client_.reset();
    let_go_unused();
}

void SharedGpuMemory::free(const Allocation& allocation) {
    if (allocation.event) (void)allocation.gpu.destroy(allocation.event);
    if (Status done = allocation.gpu.free(allocation.base); !done)
        log_warn(fmt::format("GPU memory was not freed: {}", done.error().to_string()));
}

}  // namespace kvgrid::python
