#pragma once

#include <optional>
#include <string>

#include "coordinator/abandoned_sequences.h"
#include "coordinator/catalogue.h"
#include "coordinator/grid_models.h"
#include "coordinator/lead_link.h"
#include "coordinator/reconciliation.h"
#include "core/clock.h"

namespace kvgrid::coordinator {

// Brings catalogue and grid to agree, once after each `begin`: asks the lead what the shards hold, lets reconcile() decide, and carries
// it out. What is to be closed in the grid or added to it is handed to those who do that anyway.
//
//   I/O thread only.
class Stocktaking {
  public:
    static constexpr std::chrono::milliseconds kTimeout{5'000};
    static constexpr std::chrono::milliseconds kRetry{500};

    Stocktaking(Catalogue& catalogue, LeadLink& lead, GridModels& models, AbandonedSequences& abandoned,
                const Clock& clock)
        : catalogue_(catalogue), lead_(lead), models_(models), abandoned_(abandoned), clock_(clock) {}

    // The lead of a generation has been connected.
    void begin(bool new_generation);
    // Asks, if that is due.
    void advance();

    // Why catalogue and grid do not agree yet; nothing if they do.
    std::optional<std::string> obstacle() const;
    const ReconciliationCounts& counts() const { return counts_; }

  private:
    enum class State { due, under_way, done };

    void answered(Generation generation, const Result<comm::Frame>& answer);
    Status settle(const Held& held);
    Status mend_catalogue(const Settlement& settlement);
    void put_off(std::string problem);

    Catalogue& catalogue_;
    LeadLink& lead_;
    GridModels& models_;
    AbandonedSequences& abandoned_;
    const Clock& clock_;
    State state_ = State::done;
    bool new_generation_ = false;
    TimePoint retry_at_{};
    std::string problem_;
    ReconciliationCounts counts_;
};

}  // namespace kvgrid::coordinator
