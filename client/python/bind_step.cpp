#include <nanobind/stl/vector.h>

#include <optional>

#include "client/python/bindings.h"
#include "client/python/tensor.h"

namespace kvgrid::python {

namespace {

InputTensor input(nb::handle tensor, const TensorRule& rule) {
    return tensor.is_none() ? InputTensor() : InputTensor(tensor, rule);
}

// None where a tensor does not belong: what is missing, or too much, the step refuses. Returns `out`; where that is None a tensor of its own;
// in a write step, which has no q, None.
nb::object layer(const StepHandle& handle, int layer, nb::object q, nb::object k, nb::object v, nb::object out) {
    const std::shared_ptr<Step> step = handle.use();
    const ModelSpec& spec = step->spec();
    const Shape query_shape{step->token_count(), spec.query_heads, spec.head_dim};
    const Shape kv_shape{step->token_count(), spec.kv_heads, spec.head_dim};
    InputTensor query = input(q, {"q", query_shape, spec.dtype});
    InputTensor key = input(k, {"k", kv_shape, spec.dtype}), value = input(v, {"v", kv_shape, spec.dtype});

    std::optional<OutputTensor> given;
    std::vector<std::byte> made;
    std::span<std::byte> o;
    if (!out.is_none()) {
        o = given.emplace(out, TensorRule{"out", query_shape, spec.dtype}).bytes();
    } else if (!q.is_none()) {
        made.resize(static_cast<std::size_t>(step->token_count()) * spec.query_heads * spec.row_bytes());
        o = made;
    }
    handle.call([&](Step& on) { return on.layer_into(layer, {query.bytes(), key.bytes(), value.bytes()}, o); });
    if (q.is_none() || given) return out;
    return owned_tensor(std::move(made), query_shape, spec.dtype);
}

}  // namespace

void bind_step(nb::module_& module) {
    nb::class_<StepHandle>(module, "Step")
        .def_prop_ro("token_count", [](const StepHandle& step) { return step.use()->token_count(); })
        .def_prop_ro("lengths",
                     [](const StepHandle& step) {
                         const auto held = step.use();
                         return std::vector<std::int64_t>(held->lengths().begin(), held->lengths().end());
                     })
        .def("layer", &layer, nb::arg("layer"), nb::arg("q").none(), nb::arg("k").none(), nb::arg("v").none(),
             nb::arg("out").none())
        .def("commit", [](const StepHandle& step) { step.call([](Step& on) { return on.commit(); }); })
        .def("abort", [](const StepHandle& step) { step.call([](Step& on) { return on.abort(); }); })
        .def("end", &StepHandle::end)
        .def_prop_ro("ended", &StepHandle::ended);
}

}  // namespace kvgrid::python
