#pragma once

#include "client/kvgrid.h"

namespace kvgrid::e2e {

// One layer, f32, every query sees all tokens alike.
ModelSpec counting_spec();

// A sequence that notices if a token of it is lost, doubled or mixed up: token t has the value t in every element of v, and since all
// keys are alike, attention gives the mean, length / 2 - 1 / 2. Steps add one token.
class CountingSequence {
  public:
    CountingSequence(Client& client, Sequence sequence) : client_(&client), sequence_(std::move(sequence)) {}

    // Begin, layer, commit. A wrong output is `corrupt`.
    Status step();
    // The same from the step's layers on, for one that was begun by the caller.
    Status finish(Step step);
    Result<Step> begin();

    // A commit that got no answer may have happened or not.
    Status find_length();
    std::int64_t length() const { return length_; }
    Sequence& sequence() { return sequence_; }

  private:
    Client* client_;
    Sequence sequence_;
    std::int64_t length_ = 0;
};

}  // namespace kvgrid::e2e
