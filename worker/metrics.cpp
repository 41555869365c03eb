#include "worker/metrics.h"

#include "comm/monitor/families.h"

namespace kvgrid::worker {

namespace {

using comm::counter_family;
using comm::gauge_family;

prometheus::Family<prometheus::Histogram>& histograms(prometheus::Registry& registry, const char* name,
                                                      const char* help) {
    return prometheus::BuildHistogram().Name(name).Help(help).Register(registry);
}

prometheus::Counter& counter(prometheus::Registry& registry, const char* name, const char* help) {
    return prometheus::BuildCounter().Name(name).Help(help).Register(registry).Add({});
}

prometheus::Histogram& durations(prometheus::Family<prometheus::Histogram>& family,
                                 const prometheus::Labels& labels = {}) {
    return family.Add(labels, comm::duration_buckets());
}

const char* name_of(Phase phase) {
    switch (phase) {
        case Phase::decode:
            return "decode";
        case Phase::prefill:
            return "prefill";
        case Phase::write:
            break;
    }
    return "write";
}

// What has a value only at the moment of a scrape.
struct StateMetrics final : prometheus::Collectable {
    explicit StateMetrics(const WorkerMetrics::Now& when) : now(when) {}

    std::vector<prometheus::MetricFamily> Collect() const override {
        auto families = comm::connection_families(now.server);
        families.push_back(
            counter_family("kvgrid_mpi_abandoned_requests_total",
                           "MPI calls that were given up at their deadline; each has leaked its buffers.")
                .add(static_cast<double>(now.abandoned_mpi_requests)));
        families.push_back(gauge_family("kvgrid_ready", "1 while the worker takes work, else 0: /ready says why not.")
                               .add(now.state && now.state->not_ready.empty()));
        families.push_back(
            gauge_family("kvgrid_io_thread_answers", "0 while the I/O thread is stuck: /live says so too.")
                .add(now.state.has_value()));
        if (!now.state) return families;
        families.push_back(gauge_family("kvgrid_generation", "The membership that the worker is in; 0: none.")
                               .add(static_cast<double>(now.state->generation.value)));
        families.push_back(gauge_family("kvgrid_rank", "The worker's rank in the grid; 0: the lead, -1: a standby.")
                               .add(now.state->rank));
        if (now.state->lead) add_lead(*now.state->lead, families);
        return families;
    }

    static void add_lead(const LeadState& lead, std::vector<prometheus::MetricFamily>& families) {
        families.push_back(gauge_family("kvgrid_lead_queue_depth", "Requests that wait at the lead; it takes 4096.")
                               .add(static_cast<double>(lead.queue_depth)));
        families.push_back(
            gauge_family("kvgrid_lead_operations_under_way", "Operations that the ranks have not finished.")
                .add(static_cast<double>(lead.under_way)));
        families.push_back(gauge_family("kvgrid_open_steps", "Steps that are begun and neither committed nor aborted.")
                               .add(static_cast<double>(lead.open_steps)));
        families.push_back(counter_family("kvgrid_layer_operations_total",
                                          "Layer operations of this generation; calls that were merged count once.")
                               .add(static_cast<double>(lead.counters.layer_calls)));
        families.push_back(
            counter_family("kvgrid_merged_layer_calls_total",
                           "Clients' layer calls of this generation that shared an operation with another's.")
                .add(static_cast<double>(lead.counters.merged_layer_calls)));
        families.push_back(counter_family("kvgrid_non_finite_refusals_total",
                                          "Layer calls of this generation refused for a NaN or infinity in k or v.")
                               .add(static_cast<double>(lead.counters.non_finite_refusals)));
        families.push_back(
            counter_family("kvgrid_steps_given_up_total",
                           "Steps of this generation that were aborted because their client was lost or idle.")
                .add(static_cast<double>(lead.counters.steps_abandoned), {{"cause", "client_lost"}})
                .add(static_cast<double>(lead.counters.steps_timed_out), {{"cause", "idle"}}));
    }

    const WorkerMetrics::Now& now;
};

}  // namespace

WorkerMetrics::WorkerMetrics()
    : requests_(registry_),
      queue_wait_(durations(histograms(registry_, "kvgrid_queue_wait_seconds",
                                       "From a request's arrival at the lead until it was sent to the ranks."))),
      executor_wait_(durations(histograms(registry_, "kvgrid_executor_wait_seconds",
                                          "From an operation's arrival at this worker until its executor began it."))),
      committed_(durations(histograms(registry_, "kvgrid_step_duration_seconds",
                                      "From a step's begin to its end, at the lead, by how it ended."),
                           {{"end", "commit"}})),
      aborted_(durations(histograms(registry_, "kvgrid_step_duration_seconds",
                                    "From a step's begin to its end, at the lead, by how it ended."),
                         {{"end", "abort"}})),
      operations_(counter(registry_, "kvgrid_operations_total", "Operations that this worker has applied.")),
      join_bytes_(counter(registry_, "kvgrid_join_bytes_total",
                          "Bytes of other ranks' partial outputs that this worker received.")),
      tokens_committed_(
          counter(registry_, "kvgrid_tokens_committed_total", "New tokens of the steps that were committed.")),
      tokens_attended_(
          counter(registry_, "kvgrid_tokens_attended_total",
                  "Tokens of the contexts of each layer call, whole: this worker's part of them was read.")) {
    auto& kernels = histograms(registry_, "kvgrid_kernel_duration_seconds",
                               "Kernels of one layer operation on this worker: append and attention.");
    auto& joins = histograms(registry_, "kvgrid_join_duration_seconds",
                             "Join of one layer operation on this worker: waiting for the others, and merging.");
    for (const Phase phase : {Phase::decode, Phase::prefill, Phase::write}) {
        const prometheus::Labels labels{{"phase", name_of(phase)}};
        kernels_[static_cast<int>(phase)] = &durations(kernels, labels);
        joins_[static_cast<int>(phase)] = phase == Phase::write ? nullptr : &durations(joins, labels);
    }
}

void WorkerMetrics::waited_in_queue(std::chrono::nanoseconds wait) {
    queue_wait_.Observe(comm::seconds(wait));
}

void WorkerMetrics::waited_for_executor(std::chrono::nanoseconds wait) {
    executor_wait_.Observe(comm::seconds(wait));
}

void WorkerMetrics::step_ended(bool committed, std::chrono::nanoseconds duration) {
    (committed ? committed_ : aborted_).Observe(comm::seconds(duration));
}

void WorkerMetrics::operation_applied() {
    operations_.Increment();
}

void WorkerMetrics::layer_done(const LayerWork& work) {
    const int phase = static_cast<int>(work.phase);
    kernels_[phase]->Observe(comm::seconds(work.kernels));
    if (joins_[phase]) joins_[phase]->Observe(comm::seconds(work.join));
    tokens_attended_.Increment(static_cast<double>(work.tokens_attended));
    join_bytes_.Increment(static_cast<double>(work.join_bytes));
}

void WorkerMetrics::tokens_committed(std::int64_t tokens) {
    tokens_committed_.Increment(static_cast<double>(tokens));
}

std::string WorkerMetrics::text(const Now& now) const {
    const StateMetrics state(now);
    return comm::metrics_text({&registry_, &occupancy_, &device_, &process_, &state});
}

}  // namespace kvgrid::worker
