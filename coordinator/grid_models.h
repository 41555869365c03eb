#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "coordinator/catalogue.h"
#include "coordinator/lead_link.h"
#include "core/clock.h"

namespace kvgrid::coordinator {

// Brings the catalogue's models into the grid: a new one when it is registered, all of them when a generation begins.
//
//   Addition   a model that the grid of this generation is not known to hold. It ends when the lead has added the model
//              (the record is then confirmed) or has surely refused it (a record that was never confirmed is then erased).
//              After any other outcome it is tried again, since the lead may hold the model and its memory: adding a model
//              is idempotent by its id.
//   Threads    the I/O thread only.
class GridModels {
  public:
    using Done = std::function<void(Result<ModelRecord>)>;

    struct Options {
        std::chrono::milliseconds lead_timeout{60'000};
        std::chrono::milliseconds retry{1'000};
    };

    GridModels(Catalogue& catalogue, LeadLink& lead, const Clock& clock, Options options)
        : catalogue_(catalogue), lead_(lead), clock_(clock), options_(options) {}

    // A generation begins: its grid holds no model that is known of. Whoever waits for the last one gets `unavailable`.
    void begin(std::vector<ModelRecord> catalogued);

    // Adds a reserved model. `done` is called once, when the lead has answered or the deadline has passed.
    void add(const ModelRecord& reserved, Deadline deadline, Done done);

    // Waits for a model whose addition somebody else has asked for. False: nobody has.
    bool join(ModelId id, Deadline deadline, Done done);

    // Tries again what is due.
    void advance();

    // Why the grid does not hold all confirmed models; nothing if it does.
    std::optional<std::string> obstacle() const;

  private:
    struct Addition {
        ModelRecord record;
        bool under_way = false;
        TimePoint retry_at{};
        std::string problem;  // of the last try
        std::vector<Done> waiting;
    };

    void send(Addition& addition, Deadline deadline);
    void answered(ModelId id, Generation generation, const Result<comm::Frame>& answer);
    void end(ModelId id, Result<ModelRecord> outcome);
    void put_off(Addition& addition, const Error& error);
    Result<ModelRecord> confirm(ModelRecord record, const Result<comm::Frame>& answer);

    Catalogue& catalogue_;
    LeadLink& lead_;
    const Clock& clock_;
    Options options_;
    std::map<ModelId, Addition> additions_;
};

}  // namespace kvgrid::coordinator
