#include <nanobind/stl/string.h>
#include <nanobind/stl/unique_ptr.h>
#include <nanobind/stl/vector.h>

#include <memory>

#include "client/python/bindings.h"
#include "client/python/cluster_thread.h"
#include "core/units.h"

namespace kvgrid::python {

namespace {

constexpr std::chrono::milliseconds kLookForSignals{100};
// Also what the workers of a killed interpreter wait for at most: nobody is left to tell them that no step is open.
constexpr std::chrono::milliseconds kDrainTimeout{1'000};

// As Python holds it: its end waits for the cluster's, without the GIL.
struct LocalCluster {
    std::unique_ptr<ClusterThread> thread;

    ~LocalCluster() {
        if (thread && thread->is_another_process()) {
            (void)thread.release();  // never destroyed: who waits in it is not here
            return;
        }
        const nb::gil_scoped_release waiting;
        thread.reset();
    }
};

struct Wish {
    int workers;
    std::string memory;  // of each worker, as "1GiB"
    int threads;         // of each worker; 0: the host's cores shared among them
    bool processes;
    int timeout_ms;
    std::vector<std::string> worker_arguments;
    std::string programs;  // their folder
};

cli::LocalClusterOptions options_of(const Wish& wish) {
    return {.workers = wish.workers,
            .memory_bytes_per_worker = taken(parse_bytes(wish.memory)),
            .threads_per_worker = wish.threads,
            .one_process = !wish.processes,
            .programs = wish.programs,
            .start_timeout = std::chrono::milliseconds(wish.timeout_ms),
            .drain_timeout = kDrainTimeout,
            .worker_arguments = wish.worker_arguments};
}

std::unique_ptr<LocalCluster> start(const Wish& wish) {
    if (wish.workers < 1) fail(Errc::invalid_argument, "workers must be at least 1");
    auto cluster = std::make_unique<LocalCluster>();
    cluster->thread = std::make_unique<ClusterThread>(options_of(wish));
    for (;;) {
        const auto started = [&] {
            const nb::gil_scoped_release waiting;
            return cluster->thread->wait_until_started(kLookForSignals);
        }();
        if (started) return taken(*started), std::move(cluster);
        if (PyErr_CheckSignals() != 0) throw nb::python_error();
    }
}

}  // namespace

void bind_local_cluster(nb::module_& module) {
    nb::class_<LocalCluster>(module, "LocalCluster")
        .def_prop_ro("endpoint", [](const LocalCluster& cluster) { return cluster.thread->endpoint(); })
        .def("log_ends", [](const LocalCluster& cluster) { return cluster.thread->log_ends(); })
        .def("stop", [](const LocalCluster& cluster) {
            taken([&] {
                const nb::gil_scoped_release waiting;
                return cluster.thread->stop();
            }());
        });
    module.def(
        "start_local_cluster",
        [](int workers, std::string memory, int threads, bool processes, int timeout_ms,
           std::vector<std::string> worker_arguments, std::string programs) {
            return start({workers, std::move(memory), threads, processes, timeout_ms, std::move(worker_arguments),
                          std::move(programs)});
        },
        nb::arg("workers"), nb::arg("memory"), nb::arg("threads"), nb::arg("processes"), nb::arg("timeout_ms"),
        nb::arg("worker_arguments"), nb::arg("programs"));
}

}  // namespace kvgrid::python
