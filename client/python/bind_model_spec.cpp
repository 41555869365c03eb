#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/vector.h>

#include "client/python/bindings.h"

namespace kvgrid::python {

namespace {

template <class Field>
auto per_layer(Field field) {
    return [field](const ModelSpec& spec) {
        std::vector<std::int64_t> values;
        for (const LayerSpec& layer : spec.layers) values.push_back(layer.*field);
        return values;
    };
}

}  // namespace

void bind_model_spec(nb::module_& module) {
    nb::class_<ModelSpec>(module, "ModelSpec")
        .def_static("from_json", [](std::string_view json) { return taken(parse_model_spec(json)); })
        .def_static("from_hugging_face",
                    [](std::string_view json, std::string name) {
                        return taken(parse_hugging_face_config(json, std::move(name)));
                    })
        .def("to_json", [](const ModelSpec& spec) { return to_json(spec); })
        .def_ro("name", &ModelSpec::name)
        .def_prop_ro("layers", &ModelSpec::layer_count)
        .def_ro("query_heads", &ModelSpec::query_heads)
        .def_ro("kv_heads", &ModelSpec::kv_heads)
        .def_ro("head_dim", &ModelSpec::head_dim)
        .def_prop_ro("dtype", [](const ModelSpec& spec) { return name_of(spec.dtype); })
        .def_prop_ro("kv_dtype", [](const ModelSpec& spec) { return name_of(spec.kv_dtype); })
        .def_prop_ro("kv_layer_of", per_layer(&LayerSpec::kv_layer))
        .def_prop_ro("window", per_layer(&LayerSpec::window))
        .def_prop_ro("sinks", per_layer(&LayerSpec::sinks))
        .def_ro("scale", &ModelSpec::scale)
        .def_ro("logit_soft_cap", &ModelSpec::logit_soft_cap)
        .def_ro("deterministic", &ModelSpec::deterministic)
        .def_prop_ro("non_finite", [](const ModelSpec& spec) { return spec.allows_non_finite ? "allow" : "refuse"; })
        .def_prop_ro("token_bytes", &ModelSpec::token_bytes)
        .def("same_as", [](const ModelSpec& spec, const ModelSpec& other) { return spec == other; });
}

}  // namespace kvgrid::python
