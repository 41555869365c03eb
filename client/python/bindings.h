#pragma once

#include <nanobind/nanobind.h>

#include <vector>

#include "client/kvgrid.h"
#include "client/python/call.h"
#include "client/python/gpu/shared_gpu_memory.h"

// kvgrid._native: the C++ client under the Python package's classes, one function for each part of it. Everything here is private to the
// package, which checks nothing twice: what C++ refuses is refused here.
namespace kvgrid::python {

using ClientHandle = Handle<Client>;
using SequenceHandle = Handle<Sequence>;
using StepHandle = Handle<Step>;
using GpuMemoryHandle = Handle<SharedGpuMemory>;

// Names of pages, one behind the other. Whole ones: the package makes them.
std::vector<PrefixHash> prefix_from(const nb::bytes& names);

void bind_model_spec(nb::module_& module);
void bind_records(nb::module_& module);  // what calls answer: status, occupancy, lists
void bind_client(nb::module_& module);
void bind_sequence(nb::module_& module);
void bind_step(nb::module_& module);
void bind_local_cluster(nb::module_& module);
void bind_gpu_memory(nb::module_& module);  // layer calls with tensors on a GPU

}  // namespace kvgrid::python
