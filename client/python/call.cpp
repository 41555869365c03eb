#include "client/python/call.h"

#include <nanobind/stl/string.h>

namespace kvgrid::python {

void translate_errors() {
    nb::register_exception_translator([](const std::exception_ptr& thrown, void*) {
        try {
            std::rethrow_exception(thrown);
        } catch (const CallFailed& failed) {
            const nb::object made = nb::module_::import_("kvgrid.errors")
                                        .attr("error_for")(name_of(failed.error().code), failed.error().message);
            PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(made.ptr())), made.ptr());
        }
    });
}

}  // namespace kvgrid::python
