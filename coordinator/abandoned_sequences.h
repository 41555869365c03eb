#pragma once

#include <chrono>
#include <set>

#include "coordinator/catalogue.h"
#include "coordinator/lead_link.h"
#include "core/clock.h"

namespace kvgrid::coordinator {

// Sequences that nobody has, but that the grid may hold: the lead did not say whether it had opened them, the catalogue could not confirm them, or
// they were kept and are no more. They are closed in the grid and then erased, however many tries it takes.
//
//   I/O thread only.
class AbandonedSequences {
  public:
    static constexpr std::size_t kCountMax = 4096;
    static constexpr int kUnderWayMax = 16;
    static constexpr std::chrono::milliseconds kTimeout{10'000};
    static constexpr std::chrono::milliseconds kRetry{1'000};

    AbandonedSequences(Catalogue& catalogue, LeadLink& lead, const Clock& clock)
        : catalogue_(catalogue), lead_(lead), clock_(clock) {}

    // `unavailable` when so many wait already that no sequence should be opened.
    Status has_room() const;

    void add(SequenceId id);
    // Closes some, if the last try is long enough ago.
    void advance();

    std::size_t count() const { return waiting_.size() + under_way_.size(); }

  private:
    void answered(SequenceId id, const Result<comm::Frame>& answer);

    Catalogue& catalogue_;
    LeadLink& lead_;
    const Clock& clock_;
    std::set<SequenceId> waiting_;
    std::set<SequenceId> under_way_;
    TimePoint retry_at_{};
};

}  // namespace kvgrid::coordinator
