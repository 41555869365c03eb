#pragma once

#include <memory>
#include <optional>
#include <string>

#include "comm/rpc/io_thread.h"
#include "coordinator/abandoned_sequences.h"
#include "coordinator/catalogue.h"
#include "coordinator/grid_models.h"
#include "coordinator/lead_link.h"
#include "coordinator/membership.h"
#include "core/clock.h"

namespace kvgrid::coordinator {

// What the requests work on: who is there, what is catalogued, and the way to the lead. Carries out what Membership decides.
//
//   A generation  workers register -> the grid is formed and made durable, the last generation's sequences end -> every
//                 member has formed it -> all catalogued models are in the grid -> ready.
//   Threads       made anywhere; then everything on the I/O thread, `stop` included. After `stop` nothing calls back.
class Coordinator {
  public:
    struct Options {
        Membership::Options membership;
        std::chrono::milliseconds heartbeat{200};        // that workers are asked for
        std::chrono::milliseconds lead_timeout{60'000};  // of calls to the lead, if the client does not want it sooner
    };

    // Takes up the catalogue's grid, if there is one.
    static Result<std::unique_ptr<Coordinator>> start(comm::IoThread& io, const Clock& clock, Catalogue catalogue,
                                                      Options options);
    void stop();

    // Finds the dead and does what is due. To be called about as often as a worker's heartbeat comes.
    void tick();
    // Does what the last change of membership made possible.
    void advance();

    // `unavailable` with the reason, while the grid cannot take requests.
    Status require_ready() const;
    std::optional<std::string> obstacle() const;

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
    GridModels& models() { return models_; }
    AbandonedSequences& abandoned() { return abandoned_; }

  private:
    Coordinator(comm::IoThread& io, const Clock& clock, Catalogue catalogue, Grid grid, Options options);

    void form_grid();
    void begin_generation();
    void set_trouble(std::string trouble);
    void log_readiness();

    const Options options_;
    const Clock& clock_;
    Catalogue catalogue_;
    Membership membership_;
    LeadLink lead_;
    GridModels models_;
    AbandonedSequences abandoned_;
    std::string trouble_;  // of the coordinator itself; empty: none
    bool was_ready_ = false;
    std::string http_endpoint_;
};

}  // namespace kvgrid::coordinator
