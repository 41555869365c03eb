#include <array>

#include "client/python/bindings.h"
#include "client/python/gpu/gpu_layer.h"
#include "client/python/tensor.h"

namespace kvgrid::python {

namespace {

using Use = GpuTensor::Use;

// The shapes of one step's tensors.
struct LayerShapes {
    Shape query, kv;
    Dtype dtype;

    LayerShapes(const ModelSpec& spec, int tokens)
        : query{tokens, spec.query_heads, spec.head_dim}, kv{tokens, spec.kv_heads, spec.head_dim}, dtype(spec.dtype) {}
};

GpuTensor argument(nb::handle tensor, const TensorRule& rule, Use use) {
    return tensor.is_none() ? GpuTensor() : GpuTensor(tensor, rule, use);
}

GpuSpan span_of(const GpuTensor& tensor) {
    return {reinterpret_cast<Gpu::Address>(tensor.data()), tensor.bytes()};
}

// `stream` is a CUstream as a number. None where a tensor does not belong, as in Step.layer.
void layer(const GpuMemoryHandle& memory, const StepHandle& handle, int layer, nb::object q, nb::object k, nb::object v,
           nb::object out, std::uint64_t stream) {
    const std::shared_ptr<Step> step = handle.use();
    const LayerShapes shapes(step->spec(), step->token_count());
    const std::array tensors{argument(q, {"q", shapes.query, shapes.dtype}, Use::read),
                             argument(k, {"k", shapes.kv, shapes.dtype}, Use::read),
                             argument(v, {"v", shapes.kv, shapes.dtype}, Use::read),
                             argument(out, {"out", shapes.query, shapes.dtype}, Use::written)};
    int gpu = -1;
    for (const GpuTensor& tensor : tensors) {
        if (tensor.bytes() == 0) continue;
        if (gpu >= 0 && tensor.gpu() != gpu)
            fail(Errc::invalid_argument, "tensors of one call are on several GPUs: must be on one");
        gpu = tensor.gpu();
    }
    if (tensors[0].bytes() != tensors[3].bytes())
        fail(Errc::invalid_argument, "q and out come together: one is missing");
    const GpuLayer call{.layer = layer,
                        .gpu = gpu,
                        .q = span_of(tensors[0]),
                        .k = span_of(tensors[1]),
                        .v = span_of(tensors[2]),
                        .o = span_of(tensors[3]),
                        .stream = reinterpret_cast<Gpu::Stream>(stream)};
    const std::shared_ptr<SharedGpuMemory> shared = memory.use();
    handle.call([&](Step& on) { return call_layer(on, *shared, call); });
}

// (q, k, v, o), one behind the other in one allocation.
nb::tuple tensors(const GpuMemoryHandle& memory, const RegisteredModel& model, int tokens, int gpu) {
    if (tokens < 1) fail(Errc::invalid_argument, "tokens must be at least 1");
    const LayerShapes shapes(model.spec, tokens);
    const auto room = [&](const Shape& shape) {
        return SharedGpuMemory::aligned(static_cast<std::size_t>(shape[0]) * shape[1] * model.spec.row_bytes());
    };
    const std::size_t q_bytes = room(shapes.query), kv_bytes = room(shapes.kv);
    const auto place = memory.call([&](SharedGpuMemory& on) -> Result<std::shared_ptr<SharedGpuMemory::Place>> {
        const auto found = on.gpu(gpu);
        if (!found) return found.error();
        return on.take(*found, 2 * q_bytes + 2 * kv_bytes);
    });
    const auto part = [&](std::size_t offset, const Shape& shape) {
        return gpu_tensor(reinterpret_cast<void*>(place->address() + offset), gpu, place, shape, shapes.dtype);
    };
    return nb::make_tuple(part(0, shapes.query), part(q_bytes, shapes.kv), part(q_bytes + kv_bytes, shapes.kv),
                          part(q_bytes + 2 * kv_bytes, shapes.query));
}

}  // namespace

void bind_gpu_memory(nb::module_& module) {
    nb::class_<GpuMemoryHandle>(module, "GpuMemory")
        .def("layer", &layer, nb::arg("step"), nb::arg("layer"), nb::arg("q").none(), nb::arg("k").none(),
             nb::arg("v").none(), nb::arg("out").none(), nb::arg("stream"))
        .def("tensors", &tensors, nb::arg("model"), nb::arg("tokens"), nb::arg("gpu"))
        .def("end", [](const GpuMemoryHandle& memory) {
            memory.call([](SharedGpuMemory& on) {
                on.close();
                return Status();
            });
        });
    module.def("gpu_memory", [](const ClientHandle& client, int timeout_ms) {
        return GpuMemoryHandle(std::make_shared<SharedGpuMemory>(client.use(), std::chrono::milliseconds(timeout_ms)),
                               "client");
    });
}

}  // namespace kvgrid::python
