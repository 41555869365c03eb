#include "client/python/gpu/gpu_layer.h"

#include <fmt/format.h>

#include <array>
#include <optional>
#include <vector>

#include "client/layer_payload.h"

namespace kvgrid::python {

namespace {

constexpr auto aligned = SharedGpuMemory::aligned;

// As Step looks at a call's tensors: their sizes alone.
LayerInput sizes_of(const GpuLayer& call) {
    const auto bytes = [](const GpuSpan& tensor) {
        return std::span(reinterpret_cast<const std::byte*>(tensor.address), tensor.bytes);
    };
    return {bytes(call.q), bytes(call.k), bytes(call.v)};
}

// Where all of them lie already; nothing: somewhere else, or in several allocations.
std::optional<DeviceTensors> in_place(const SharedGpuMemory& memory, const GpuLayer& call) {
    DeviceTensors places;
    std::optional<int> common;
    const auto locate = [&](const GpuSpan& tensor, std::uint64_t& offset) {
        if (tensor.bytes == 0) return true;
        const auto found = memory.find(tensor.address);
        if (!found || found->offset % 16 != 0 || common.value_or(found->memory) != found->memory) return false;
        common = found->memory;
        offset = found->offset;
        return true;
    };
    const bool all =
        locate(call.q, places.q) && locate(call.k, places.k) && locate(call.v, places.v) && locate(call.o, places.o);
    if (!all || !common) return std::nullopt;
    places.memory = *common;
    return places;
}

Status call_in_memory(Step& step, SharedGpuMemory& memory, const GpuLayer& call, DeviceTensors places) {
    if (step.kind() == StepKind::iterate) {
        places.without_q = call.q.bytes == 0;
        places.without_kv = call.k.bytes == 0;
    }
    Status done = step.layer_on_device(call.layer, places);
    if (done || done.error() != Errc::wrong_state) return done;
    if (Status shared = memory.share_again(places.memory); !shared) return shared;
    return step.layer_on_device(call.layer, places);  // whose refusal, if it was about something else, is the same
}

// Through a place in shared memory.
Status call_in_place(Step& step, SharedGpuMemory& memory, const Gpu& gpu, const GpuLayer& call,
                     SharedGpuMemory::Place& place) {
    if (Status begun = place.begin_on(call.stream); !begun) return begun;
    DeviceTensors places{.memory = place.memory()};
    std::uint64_t end = 0;
    const auto put = [&](const GpuSpan& tensor, std::uint64_t& offset) {
        offset = place.offset() + end;
        const Gpu::Address to = place.address() + end;
        end += aligned(tensor.bytes);
        return gpu.copy(to, tensor.address, tensor.bytes, call.stream);
    };
    Status ready = put(call.q, places.q);
    if (ready) ready = put(call.k, places.k);
    if (ready) ready = put(call.v, places.v);
    if (ready) ready = gpu.synchronize(call.stream, memory.deadline());
    if (!ready) return place.give_up(), ready;
    places.o = place.offset() + end;
    if (Status done = call_in_memory(step, memory, call, places); !done) {
        if (may_be_under_way(done.error())) place.give_up();
        return done;
    }
    Status copied = gpu.copy(call.o.address, place.address() + end, call.o.bytes, call.stream);
    if (copied) copied = place.end_on(call.stream);
    if (!copied) place.give_up();
    return copied;
}

// Through the host's memory.
Status call_through_host(Step& step, const Gpu& gpu, const GpuLayer& call, Deadline deadline) {
    std::array<std::vector<std::byte>, 4> host;
    const std::array from{call.q, call.k, call.v};
    const auto address = [](std::vector<std::byte>& bytes) { return reinterpret_cast<Gpu::Address>(bytes.data()); };
    for (std::size_t i = 0; i < from.size(); ++i) {
        host[i].resize(from[i].bytes);
        Status copied = gpu.copy(address(host[i]), from[i].address, from[i].bytes, call.stream);
        if (!copied) return copied;
    }
    if (Status ready = gpu.synchronize(call.stream, deadline); !ready) return ready;
    host[3].resize(call.o.bytes);
    if (Status done = step.layer_into(call.layer, {host[0], host[1], host[2]}, host[3]); !done) return done;
    if (Status back = gpu.copy(call.o.address, address(host[3]), call.o.bytes, call.stream); !back) return back;
    return gpu.synchronize(call.stream, deadline);  // `host` ends here
}

}  // namespace

Status call_layer(Step& step, SharedGpuMemory& memory, const GpuLayer& call) {
    const LayerInput input = sizes_of(call);
    const LayerCall shape = layer_call(step.spec(), step.kind(), step.token_count(), call.layer, input);
    if (Status status = check_layer_input(shape, input); !status) return status;
    const auto gpu = memory.gpu(call.gpu);
    if (!gpu) return gpu.error();
    if (const auto places = in_place(memory, call)) {
        if (Status ready = gpu->synchronize(call.stream, memory.deadline()); !ready) return ready;
        return call_in_memory(step, memory, call, *places);
    }
    const auto place =
        memory.take(*gpu, aligned(call.q.bytes) + aligned(call.k.bytes) + aligned(call.v.bytes) + call.o.bytes);
    if (!place) {
        if (place.error() != Errc::unsupported) return place.error();
        return call_through_host(step, *gpu, call, memory.deadline());
    }
    return call_in_place(step, memory, *gpu, call, **place);
}

}  // namespace kvgrid::python
