#include "worker/device_memory.h"

#include <fmt/format.h>

#include <utility>

namespace kvgrid::worker {

namespace {

constexpr std::uint64_t kAlignment = 16;  // of the kernels' loads and stores

struct Range {
    const char* name;
    std::uint64_t offset, bytes;
};

Status check_range(const Range& range, std::uint64_t memory_bytes) {
    if (range.bytes == 0) return {};
    if (range.offset % kAlignment != 0) {
        return {Errc::invalid_argument, fmt::format("{} begins at byte {} of the shared GPU memory: must be a multiple "
                                                    "of {}",
                                                    range.name, range.offset, kAlignment)};
    }
    if (range.offset > memory_bytes || range.bytes > memory_bytes - range.offset) {
        return {Errc::invalid_argument,
                fmt::format("{} of {} bytes at byte {}: this connection has shared {} bytes of GPU memory", range.name,
                            range.bytes, range.offset, memory_bytes)};
    }
    return {};
}

bool overlap(const Range& a, const Range& b) {
    return a.bytes > 0 && b.bytes > 0 && a.offset < b.offset + b.bytes && b.offset < a.offset + a.bytes;
}

}  // namespace

Result<ClientTensors> client_tensors(std::shared_ptr<DeviceMemory> memory, const DeviceOffsets& at,
                                     const ClientTensorSizes& sizes) {
    const std::span<std::byte> bytes = memory->bytes();
    const Range o{"o", at.o, sizes.q};
    const Range inputs[] = {{"q", at.q, sizes.q}, {"k", at.k, sizes.k}, {"v", at.v, sizes.k}};
    if (Status valid = check_range(o, bytes.size()); !valid) return valid.error();
    for (const Range& input : inputs) {
        if (Status valid = check_range(input, bytes.size()); !valid) return valid.error();
        if (overlap(input, o)) {
            return {Errc::invalid_argument,
                    fmt::format("o at byte {} would overwrite {} at byte {}, {} bytes long, while it is read", o.offset,
                                input.name, input.offset, input.bytes)};
        }
    }
    const auto part = [&](const Range& range) {
        return range.bytes == 0 ? std::span<std::byte>() : bytes.subspan(range.offset, range.bytes);
    };
    return ClientTensors{std::move(memory), part(inputs[0]), part(inputs[1]), part(inputs[2]), part(o)};
}

}  // namespace kvgrid::worker
