#include "client/python/bindings.h"
#include "core/log.h"
#include "core/version.h"

NB_MODULE(_native, module) {
    using namespace kvgrid;
    // What lives until the interpreter's end is no leak: variables of a notebook, for one.
    nanobind::set_leak_warnings(false);
    init_log("python", LogLevel::warn);
    module.attr("version") = kVersion;
    python::translate_errors();
    python::bind_model_spec(module);
    python::bind_records(module);
    python::bind_client(module);
    python::bind_sequence(module);
    python::bind_step(module);
    python::bind_local_cluster(module);
    python::bind_gpu_memory(module);
}
