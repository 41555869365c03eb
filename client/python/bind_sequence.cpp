#include <nanobind/stl/vector.h>

#include <cstring>

#include "client/python/bindings.h"
#include "client/python/tensor.h"

namespace kvgrid::python {

namespace {

nb::tuple read_kv(const SequenceHandle& sequence, int layer, std::int64_t first, std::int64_t count) {
    const ModelSpec spec = sequence.use()->spec();
    KvRows rows = sequence.call([&](Sequence& on) { return on.read_kv(layer, first, count); });
    const Shape shape{count, spec.kv_heads, spec.head_dim};
    return nb::make_tuple(owned_tensor(std::move(rows.k), shape, spec.dtype),
                          owned_tensor(std::move(rows.v), shape, spec.dtype));
}

void rewrite_kv(const SequenceHandle& sequence, int layer, std::int64_t first, std::int64_t count, nb::handle k,
                nb::handle v) {
    const ModelSpec spec = sequence.use()->spec();
    const Shape shape{count, spec.kv_heads, spec.head_dim};
    InputTensor keys(k, {"k", shape, spec.dtype}), values(v, {"v", shape, spec.dtype});
    sequence.call([&](Sequence& on) { return on.rewrite_kv(layer, first, count, keys.bytes(), values.bytes()); });
}

}  // namespace

std::vector<PrefixHash> prefix_from(const nb::bytes& names) {
    std::vector<PrefixHash> prefix(names.size() / sizeof(PrefixHash));
    if (!prefix.empty()) std::memcpy(prefix.data(), names.c_str(), prefix.size() * sizeof(PrefixHash));
    return prefix;
}

void bind_sequence(nb::module_& module) {
    nb::class_<SequenceHandle>(module, "Sequence")
        .def_prop_ro("id", [](const SequenceHandle& sequence) { return sequence.use()->id().value; })
        .def_prop_ro("model", [](const SequenceHandle& sequence) { return sequence.use()->model().value; })
        .def_prop_ro("dtype", [](const SequenceHandle& sequence) { return name_of(sequence.use()->spec().dtype); })
        .def("fork",
             [](const SequenceHandle& sequence) {
                 return SequenceHandle(sequence.call([](Sequence& on) { return on.fork(); }), "sequence");
             })
        .def_prop_ro("prefix_length", [](const SequenceHandle& sequence) { return sequence.use()->prefix_length(); })
        .def("keep",
             [](const SequenceHandle& sequence, const nb::bytes& names) {
                 const std::vector<PrefixHash> prefix = prefix_from(names);
                 sequence.call([&](Sequence& on) { return on.keep(prefix); });
             })
        .def("truncate", [](const SequenceHandle& sequence,
                            std::int64_t length) { sequence.call([&](Sequence& on) { return on.truncate(length); }); })
        .def("set_window",
             [](const SequenceHandle& sequence, std::int64_t window, std::int64_t sinks) {
                 sequence.call([&](Sequence& on) { return on.set_window(window, sinks); });
             })
        .def("inspect",
             [](const SequenceHandle& sequence) { return sequence.call([](Sequence& on) { return on.inspect(); }); })
        .def("read_kv", &read_kv)
        .def("rewrite_kv", &rewrite_kv)
        .def("close",
             [](SequenceHandle& sequence) {
                 sequence.call([](Sequence& on) { return on.close(); });
                 sequence.end();
             })
        .def("release",
             [](SequenceHandle& sequence) {
                 const std::uint64_t id = sequence.use()->release().value;
                 sequence.end();
                 return id;
             })
        .def("end", &SequenceHandle::end)
        .def_prop_ro("ended", &SequenceHandle::ended);
}

}  // namespace kvgrid::python
