#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <string>
#include <utility>
#include <vector>

#include "core/ids.h"

namespace kvgrid::python {

// A struct as Python reads it: fields that cannot be assigned, ids as integers, and a repr that names all of them.
template <class T>
class Record {
  public:
    Record(nanobind::module_& module, const char* name, const char* meaning)
        : class_(module, name, meaning), text_(name) {}

    // Before the last of them, `finish`.
    template <class Value>
    Record& field(const char* name, Value T::*member, const char* meaning = "") {
        names_.emplace_back(name);
        class_.def_prop_ro(
            name, [member](const T& record) { return shown(record.*member); }, meaning);
        return *this;
    }

    void finish() {
        class_.def("__repr__", [name = text_, names = names_](nanobind::handle self) {
            std::string text = name + "(";
            for (const std::string& each : names) {
                if (&each != &names.front()) text += ", ";
                text += each + "=" + nanobind::cast<std::string>(nanobind::repr(self.attr(each.c_str())));
            }
            return text + ")";
        });
    }

  private:
    template <class Tag>
    static std::uint64_t shown(Id<Tag> id) {
        return id.value;
    }
    template <class Value>
    static Value shown(const Value& value) {
        return value;
    }

    nanobind::class_<T> class_;
    std::string text_;
    std::vector<std::string> names_;
};

}  // namespace kvgrid::python
