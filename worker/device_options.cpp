#include "worker/device_options.h"

#include <fmt/format.h>

#include <charconv>
#include <optional>

#include "core/units.h"
#include "worker/cpu_device.h"
#include "worker/gpu_choice.h"

namespace kvgrid::worker {

namespace {

constexpr std::uint64_t kCpuBytes = std::uint64_t{1} << 30;
// What a worker leaves of a GPU's memory: for page lists and scratch, the driver, and other programs.
constexpr std::uint64_t kGpuReserveBytes = std::uint64_t{2} << 30;

std::optional<int> number_in(std::string_view text) {
    int value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc{} || end != text.data() + text.size() || value < 0) return std::nullopt;
    return value;
}

// The index; -1: a CPU.
Result<int> gpu_index(const DeviceOptions& options) {
    if (options.device == "cpu") return -1;
    const int count = usable_gpu_count();
    if (options.device == "auto") return count == 0 ? -1 : options.local_rank % count;
    if (options.device == "gpu") return count == 0 ? 0 : options.local_rank % count;
    if (options.device.starts_with("gpu:")) {
        if (const auto index = number_in(std::string_view(options.device).substr(4))) return *index;
    }
    return {Errc::invalid_argument,
            fmt::format("device is \"{}\": must be auto, cpu, gpu, or gpu:N for GPU N of this host", options.device)};
}

Result<std::uint64_t> gpu_memory(const DeviceOptions& options, const DeviceStatus& gpu) {
    const std::uint64_t free = gpu.memory_free > kGpuReserveBytes ? gpu.memory_free - kGpuReserveBytes : 0;
    if (options.memory_bytes == 0 && free > 0) {
        const int gpus = std::max(1, usable_gpu_count());
        return free / ((options.local_count + gpus - 1) / gpus);  // shared with those that were started on it together
    }
    if (options.memory_bytes > 0 && options.memory_bytes <= free) return options.memory_bytes;
    return {Errc::no_room,
            fmt::format(
                "{} has {} free of {}, and {} of it stay free for the driver and scratch: {} of pages do not fit; give "
                "the worker less memory, or another device",
                gpu.name, format_bytes(gpu.memory_free), format_bytes(gpu.memory_total), format_bytes(kGpuReserveBytes),
                format_bytes(options.memory_bytes))};
}

Result<ChosenDevice> device_named(const DeviceOptions& options) {
    const auto index = gpu_index(options);
    if (!index) return index.error();
    if (*index < 0) {
        return ChosenDevice{std::make_unique<CpuDevice>(options.threads),
                            options.memory_bytes == 0 ? kCpuBytes : options.memory_bytes};
    }
    const int gpus = std::max(1, usable_gpu_count());
    auto gpu = make_gpu_device(*index, std::max(1, (options.ranks + gpus - 1) / gpus));
    if (!gpu) return gpu.error();
    const auto memory = gpu_memory(options, (*gpu)->status());
    if (!memory) return memory.error();
    return ChosenDevice{std::move(*gpu), *memory};
}

}  // namespace

Result<ChosenDevice> choose_device(const DeviceOptions& options) {
    const auto wish = parse_join_wish(options.join);
    if (!wish) return wish.error();
    auto chosen = device_named(options);
    if (chosen) chosen->device->set_join_wish(*wish);
    return chosen;
}

}  // namespace kvgrid::worker
