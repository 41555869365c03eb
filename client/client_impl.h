#pragma once

#include <chrono>
#include <map>
#include <memory>
#include <mutex>

#include "client/cluster_link.h"
#include "client/kvgrid.h"

namespace kvgrid {

// Shared by a client's handles, so that each of them can still call after the Client is gone.
struct Client::Impl {
    Impl(comm::Endpoint coordinator, ClientOptions with) : options(with), link(std::move(coordinator)) {}

    Deadline deadline() const { return deadline_in(options.timeout); }
    Deadline deadline_within(std::chrono::milliseconds limit) const;  // for destructors

    // The model's geometry: as kept, or from the coordinator.
    Result<std::shared_ptr<const ModelSpec>> spec_of(ModelId model, Deadline until);
    std::shared_ptr<const ModelSpec> keep(ModelId model, const ModelSpec& spec);
    Result<std::vector<RegisteredModel>> list_models(Deadline until);
    Status share_device_memory(std::span<const std::byte> handle, std::uint64_t bytes,
                               int memory);  // 0 bytes: lets it go
    // A call that takes pages of a model. Refused for want of them (no_room), it is made again for as long as the cluster has a sequence to give up that it
    // only keeps; the last outcome counts.
    template <class Call>
    auto with_room(ModelId model, Deadline until, Call call) {
        auto outcome = call();
        while (!outcome && outcome.error() == Errc::no_room && give_up_prefix(model, until)) outcome = call();
        return outcome;
    }
    bool give_up_prefix(ModelId model, Deadline until);  // false: there was none, or nobody answered
    Result<SequencePage> list_sequences(const SequencePageOptions& page, Deadline until);

    ClientOptions options;
    ClusterLink link;

  private:
    std::mutex mutex_;
    std::map<ModelId, std::shared_ptr<const ModelSpec>> specs_;
};

}  // namespace kvgrid
