#pragma once

#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "comm/rpc/io_thread.h"
#include "comm/rpc/server.h"
#include "coordinator/abandoned_sequences.h"
#include "coordinator/catalogue.h"
#include "coordinator/grid_models.h"
#include "coordinator/kept_prefixes.h"
#include "coordinator/lead_link.h"
#include "coordinator/membership.h"
#include "coordinator/stocktaking.h"
#include "core/clock.h"

namespace kvgrid::coordinator {

// A record of a sequence that is kept, of a model of this geometry.
KeptPrefix kept_prefix(const SequenceRecord& record, const ModelSpec& spec);

// What the requests work on: who is there, what is catalogued, and the way to the lead. Carries out what Membership decides.
//
//   A generation  workers register -> the grid is formed and made durable, the last generation's sequences end -> every
//                 member has formed it -> the catalogue agrees with what the grid holds -> all catalogued models are in
//                 the grid -> ready. After a restart the generation goes on, if its members do, from the third of these.
//   Threads       made anywhere; then everything on the I/O thread, `stop` included. After `stop` nothing calls back.
class Coordinator {
  public:
    struct Options {
        Membership::Options membership;
        std::chrono::milliseconds heartbeat{200};        // that workers are asked for
        std::chrono::milliseconds lead_timeout{60'000};  // of calls to the lead, if the client does not want it sooner
        std::size_t prefixes_max = 256;                  // sequences that are kept
    };

    // Takes up the catalogue's grid, if there is one.
    static Result<std::unique_ptr<Coordinator>> start(comm::IoThread& io, const Clock& clock, Catalogue catalogue,
                                                      Options options);
    void stop();

    // Finds the dead and does what is due. To be called about as often as a worker's heartbeat comes.
    void tick();
    // Does what the last change of membership made possible.
    void advance();

    // A worker's connection, and the end of one, which may have been a worker's.
    void worker_connected(WorkerId worker, comm::ConnectionId connection);
    void connection_lost(comm::ConnectionId connection);

    // `unavailable` with the reason, while the grid cannot take requests.
    Status require_ready() const;
    // The same for what a draining grid still does.
    Status require_lead() const;
    std::optional<std::string> obstacle() const;  // to anything new

    // Where this process's metrics are, for those who ask for the status; empty: nowhere.
    void set_http_endpoint(std::string endpoint) { http_endpoint_ = std::move(endpoint); }
    const std::string& http_endpoint() const { return http_endpoint_; }

    const Options& options() const { return options_; }
    const Clock& clock() const { return clock_; }
    Deadline lead_deadline(Deadline of_client) const;
    Catalogue& catalogue() { return catalogue_; }
    Membership& membership() { return membership_; }
    const Membership& membership() const { return membership_; }
    LeadLink& lead() { return lead_; }
    const LeadLink& lead() const { return lead_; }
    GridModels& models() { return models_; }
    AbandonedSequences& abandoned() { return abandoned_; }
    KeptPrefixes& prefixes() { return prefixes_; }
    // They are closed in the grid, in the background.
    void abandon(std::span<const SequenceId> sequences);
    const Stocktaking& stocktaking() const { return stocktaking_; }

  private:
    Coordinator(comm::IoThread& io, const Clock& clock, Catalogue catalogue, Grid grid, std::uint64_t term,
                Options options);

    std::optional<std::string> obstacle_to_anything() const;

    void form_grid();
    void begin_generation();
    Status take_up_prefixes(std::span<const ModelRecord> models);
    void set_trouble(std::string trouble);
    void log_readiness();

    const Options options_;
    const Clock& clock_;
    Catalogue catalogue_;
    Membership membership_;
    LeadLink lead_;
    GridModels models_;
    AbandonedSequences abandoned_;
    KeptPrefixes prefixes_;
    Stocktaking stocktaking_;
    std::map<comm::ConnectionId, WorkerId> worker_of_connection_;
    bool new_generation_ = false;  // it was formed since the start
    std::string trouble_;          // of the coordinator itself; empty: none
    bool was_ready_ = false;
    std::string http_endpoint_;
};

}  // namespace kvgrid::coordinator
