#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "client/cli/top/top_view.h"
#include "client/kvgrid.h"

namespace kvgrid::cli {

// One look at a cluster. `problem` says what did not answer; the rest is then as far as it came.
TopSnapshot take_snapshot(Client& client, const std::string& coordinator);

// Looks again and again, on a thread of its own, so that a cluster that is silent does not keep the display waiting.
class TopSource {
  public:
    TopSource(Client client, std::string coordinator, std::chrono::milliseconds period);
    ~TopSource();  // waits for a look that is under way: until the client's time-out

    // Can be read when there is a newer snapshot.
    int descriptor() const;
    // The newest one, once.
    std::optional<TopSnapshot> take();

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace kvgrid::cli
