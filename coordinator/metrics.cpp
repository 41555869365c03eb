#include "coordinator/metrics.h"

#include "comm/monitor/families.h"

namespace kvgrid::coordinator {

namespace {

using comm::counter_family;
using comm::Family;
using comm::gauge_family;

Family workers_by_state(const Membership& membership) {
    int members = 0, standbys = 0, dead = 0;
    for (const Worker& worker : membership.workers()) {
        if (!worker.alive())
            ++dead;
        else if (membership.rank_of(worker.id) >= 0)
            ++members;
        else
            ++standbys;
    }
    return gauge_family("kvgrid_workers",
                        "Workers that are known: in the grid, standing by, or not heard of for too long.")
        .add(members, {{"state", "member"}})
        .add(standbys, {{"state", "standby"}})
        .add(dead, {{"state", "dead"}});
}

Family heartbeat_ages(const Membership& membership, TimePoint now) {
    Family ages =
        gauge_family("kvgrid_heartbeat_age_seconds", "How long ago each member of the grid was heard of, by its rank.");
    for (const Worker& member : membership.members()) {
        ages.add(comm::seconds(now - member.last_heard), {{"rank", std::to_string(membership.rank_of(member.id))}});
    }
    return ages;
}

Family differences_by_kind(const ReconciliationCounts& counts) {
    Family differences = counter_family("kvgrid_reconciliation_differences_total",
                                        "Differences between catalogue and grid that were found and settled, by kind.");
    for (int kind = 0; kind < kDifferenceKinds; ++kind) {
        differences.add(static_cast<double>(counts.differences[kind]),
                        {{"kind", name_of(static_cast<DifferenceKind>(kind))}});
    }
    return differences;
}

// What has a value only at the moment of a scrape.
struct StateMetrics final : prometheus::Collectable {
    StateMetrics(Coordinator& who, const comm::Server& its_server) : coordinator(who), server(its_server) {}

    std::vector<prometheus::MetricFamily> Collect() const override {
        const Membership& membership = coordinator.membership();
        auto families = comm::connection_families(server);
        families.push_back(workers_by_state(membership));
        families.push_back(heartbeat_ages(membership, coordinator.clock().now()));
        families.push_back(gauge_family("kvgrid_workers_expected", "Workers that make up the grid.")
                               .add(membership.options().expected_workers));
        families.push_back(gauge_family("kvgrid_ready", "1 while the grid takes work, else 0: /ready says why not.")
                               .add(!coordinator.obstacle()));
        families.push_back(
            gauge_family("kvgrid_generation", "The number of the membership; grows when a grid is formed.")
                .add(static_cast<double>(membership.grid().generation.value)));
        if (const auto models = coordinator.catalogue().models())
            families.push_back(gauge_family("kvgrid_catalogue_models", "Models in the catalogue.")
                                   .add(static_cast<double>(models->size())));
        if (const auto sequences = coordinator.catalogue().sequence_count())
            families.push_back(gauge_family("kvgrid_catalogue_sequences", "Sequences in the catalogue.")
                                   .add(static_cast<double>(*sequences)));
        families.push_back(gauge_family("kvgrid_abandoned_sequences",
                                        "Sequences that the grid may hold for nobody, to be closed there.")
                               .add(static_cast<double>(coordinator.abandoned().count())));
        const KeptPrefixes& prefixes = coordinator.prefixes();
        families.push_back(gauge_family("kvgrid_kept_prefixes", "Sequences that are kept for their tokens.")
                               .add(static_cast<double>(prefixes.size())));
        const PrefixCounts& reused = prefixes.counts();
        families.push_back(counter_family("kvgrid_prefix_lookups_total", "Sequences opened with the names of a prompt.")
                               .add(static_cast<double>(reused.lookups)));
        families.push_back(counter_family("kvgrid_prefix_hits_total", "Those that began with a kept sequence's tokens.")
                               .add(static_cast<double>(reused.hits)));
        families.push_back(counter_family("kvgrid_prefix_tokens_reused_total", "Tokens that they began with.")
                               .add(static_cast<double>(reused.tokens_reused)));
        families.push_back(counter_family("kvgrid_prefixes_given_up_total",
                                          "Kept sequences that were closed for their pages or place.")
                               .add(static_cast<double>(reused.given_up)));
        const ReconciliationCounts& reconciled = coordinator.stocktaking().counts();
        families.push_back(counter_family("kvgrid_reconciliations_total",
                                          "How often the catalogue was compared with what the grid holds.")
                               .add(static_cast<double>(reconciled.runs)));
        families.push_back(differences_by_kind(reconciled));
        return families;
    }

    Coordinator& coordinator;
    const comm::Server& server;
};

}  // namespace

CoordinatorMetrics::CoordinatorMetrics()
    : requests_(registry_),
      catalogue_writes_(prometheus::BuildHistogram()
                            .Name("kvgrid_catalogue_write_duration_seconds")
                            .Help("One change of the catalogue, until it was on the disk.")
                            .Register(registry_)
                            .Add({}, comm::duration_buckets())) {}

void CoordinatorMetrics::catalogue_written(std::chrono::nanoseconds took) {
    catalogue_writes_.Observe(comm::seconds(took));
}

std::string CoordinatorMetrics::text(Coordinator& coordinator, const comm::Server& server) const {
    const StateMetrics state(coordinator, server);
    return comm::metrics_text({&registry_, &process_, &state});
}

}  // namespace kvgrid::coordinator
