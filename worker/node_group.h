#pragma once

#include <memory>
#include <vector>

#include "worker/node.h"

namespace kvgrid::worker {

// The workers of one process, each on a thread of its own: one as a rule, several where ranks share a GPU or a test has one process only.
// They end together: a process is what fails.
class NodeGroup {
  public:
    explicit NodeGroup(std::vector<std::unique_ptr<Node>> nodes) : nodes_(std::move(nodes)) {}

    // Until all have been stopped, or one of them could not start or has failed: then the others are stopped, and its reason is returned
    // or thrown.
    Status run();
    void drain();  // from any thread, here and below
    void stop();

  private:
    const std::vector<std::unique_ptr<Node>> nodes_;
};

}  // namespace kvgrid::worker
