#include "worker/device_metrics.h"

#include "comm/monitor/families.h"

namespace kvgrid::worker {

namespace {

using comm::counter_family;
using comm::gauge_family;

double seconds(std::uint64_t ns) {
    return static_cast<double>(ns) * 1e-9;
}

// What the driver counts as in use and nobody here has taken: fragments, the driver's growth, other programs.
double unexplained(const DeviceStatus& status) {
    double bytes =
        static_cast<double>(status.memory_total - status.memory_free) - static_cast<double>(status.memory_before);
    for (const DeviceStatus::Count& taken : status.memory_taken) bytes -= static_cast<double>(taken.value);
    return bytes;
}

void add_memory(const DeviceStatus& status, std::vector<prometheus::MetricFamily>& families) {
    auto taken =
        gauge_family("kvgrid_gpu_memory_bytes",
                     "GPU memory by what it is for. `before` was in use when the worker began, `unexplained` is what "
                     "the driver counts besides.");
    for (const DeviceStatus::Count& kind : status.memory_taken)
        taken.add(static_cast<double>(kind.value), {{"kind", kind.label}});
    taken.add(static_cast<double>(status.memory_before), {{"kind", "before"}});
    taken.add(static_cast<double>(status.memory_free), {{"kind", "free"}});
    taken.add(unexplained(status), {{"kind", "unexplained"}});
    families.push_back(taken);
    families.push_back(gauge_family("kvgrid_gpu_memory_total_bytes", "GPU memory in all; the kinds add up to it.")
                           .add(static_cast<double>(status.memory_total)));
    families.push_back(gauge_family("kvgrid_gpu_pinned_host_bytes", "Memory of this host that is pinned for transfers.")
                           .add(static_cast<double>(status.pinned_bytes)));
}

void add_work(const DeviceStatus& status, std::vector<prometheus::MetricFamily>& families) {
    auto calls =
        counter_family("kvgrid_gpu_attention_calls_total",
                       "Attention of layer calls by the way it was computed; `general` and `several passes` are slow.");
    for (const DeviceStatus::Count& path : status.attention_calls) {
        calls.add(static_cast<double>(path.value), {{"path", path.label}});
    }
    families.push_back(calls);
    families.push_back(counter_family("kvgrid_gpu_layer_calls_total", "Layer calls that the GPU has run.")
                           .add(static_cast<double>(status.layer_calls)));
    families.push_back(
        counter_family("kvgrid_gpu_graph_captures_total", "Layer calls that were captured in a CUDA graph.")
            .add(static_cast<double>(status.graph_captures)));
    families.push_back(
        counter_family("kvgrid_gpu_graph_launches_total", "Layer calls that were launched as a CUDA graph.")
            .add(static_cast<double>(status.graph_launches)));
    families.push_back(counter_family("kvgrid_gpu_kernel_seconds_total", "Time of layer calls on the GPU.")
                           .add(seconds(status.kernel_ns)));
    families.push_back(counter_family("kvgrid_gpu_queue_seconds_total",
                                      "Time of layer calls on the host until all their work was queued.")
                           .add(seconds(status.queue_ns)));
    families.push_back(gauge_family("kvgrid_gpu_schedule_imbalance_ratio",
                                    "Pages of the SM that has most over the mean of all, in the decodes so far.")
                           .add(status.schedule_imbalance));
    families.push_back(
        counter_family("kvgrid_gpu_kv_read_bytes_total",
                       "Bytes of the pages that layer calls attended to; over the kernel time: bytes per second.")
            .add(static_cast<double>(status.kv_bytes)));
}

void add_communicators(const DeviceStatus& status, std::vector<prometheus::MetricFamily>& families) {
    families.push_back(gauge_family("kvgrid_gpu_nccl_generation",
                                    "Generation of the NCCL communicator that the worker joins through; 0: none.")
                           .add(static_cast<double>(status.nccl_generation)));
    families.push_back(gauge_family("kvgrid_gpu_nccl_communicators", "NCCL communicators that are there.")
                           .add(status.nccl_communicators));
    families.push_back(
        counter_family("kvgrid_gpu_nccl_aborts_total",
                       "NCCL communicators that were aborted, since what they had begun did not end in time.")
            .add(static_cast<double>(status.nccl_aborts)));
}

}  // namespace

void DeviceMetrics::publish(DeviceStatus status) {
    auto published = std::make_shared<const DeviceStatus>(std::move(status));
    const std::lock_guard lock(mutex_);
    last_ = std::move(published);
}

std::vector<prometheus::MetricFamily> DeviceMetrics::Collect() const {
    std::shared_ptr<const DeviceStatus> status;
    {
        const std::lock_guard lock(mutex_);
        status = last_;
    }
    if (!status) return {};
    std::vector<prometheus::MetricFamily> families{
        gauge_family("kvgrid_device_info", "What the worker computes on.").add(1, {{"device", status->name}}),
        gauge_family("kvgrid_join_info", "Where the outputs of the grid's workers come together.")
            .add(1, {{"way", name_of(status->join)}})};
    if (!status->is_gpu) return families;
    add_memory(*status, families);
    add_work(*status, families);
    add_communicators(*status, families);
    return families;
}

}  // namespace kvgrid::worker
