#include "worker/node_group.h"

#include <exception>
#include <mutex>
#include <thread>

namespace kvgrid::worker {

Status NodeGroup::run() {
    if (nodes_.size() == 1) return nodes_[0]->run();  // on the caller's thread, which is the one of MPI
    std::mutex mutex;
    Status first_status;
    std::exception_ptr first_failure;
    {
        std::vector<std::jthread> threads;
        for (const auto& node : nodes_) {
            threads.emplace_back([&, node = node.get()] {
                Status status;
                std::exception_ptr failure;
                try {
                    status = node->run();
                } catch (...) {
                    failure = std::current_exception();
                }
                const std::lock_guard lock(mutex);
                if (first_failure || !first_status) return;
                first_status = std::move(status);
                first_failure = failure;
                if (first_failure || !first_status) stop();
            });
        }
    }
    if (first_failure) std::rethrow_exception(first_failure);
    return first_status;
}

void NodeGroup::drain() {
    for (const auto& node : nodes_) node->drain();
}

void NodeGroup::stop() {
    for (const auto& node : nodes_) node->stop();
}

}  // namespace kvgrid::worker
