#include "client/python/cluster_thread.h"

#include <unistd.h>

#include <utility>

namespace kvgrid::python {

ClusterThread::ClusterThread(cli::LocalClusterOptions options) : options_(std::move(options)), process_id_(getpid()) {
    options_.interrupted = [this] { return interrupted_.load(); };
    thread_ = std::thread([this] { run(); });
}

ClusterThread::~ClusterThread() {
    interrupt();
    (void)stop();
    thread_.join();
}

bool ClusterThread::is_another_process() const {
    return process_id_ != getpid();
}

void ClusterThread::run() {
    auto cluster = cli::LocalCluster::start(options_);
    std::unique_lock lock(mutex_);
    started_ = cluster ? Status() : Status(cluster.error());
    if (!cluster) {
        stopped_ = Status();
        changed_.notify_all();
        return;
    }
    endpoint_ = cluster->endpoint();
    cluster_.emplace(*std::move(cluster));
    changed_.notify_all();
    changed_.wait(lock, [this] { return stop_wanted_; });
    lock.unlock();
    Status stopped = cluster_->stop();
    lock.lock();
    stopped_ = std::move(stopped);
    changed_.notify_all();
}

std::optional<Status> ClusterThread::wait_until_started(std::chrono::milliseconds limit) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, limit, [this] { return started_.has_value(); });
    return started_;
}

std::string ClusterThread::endpoint() const {
    const std::lock_guard lock(mutex_);
    return endpoint_;
}

std::string ClusterThread::log_ends() const {
    const std::lock_guard lock(mutex_);
    return cluster_ && !stop_wanted_ ? cluster_->log_ends() : "";
}

Status ClusterThread::stop() {
    if (is_another_process()) return {};
    std::unique_lock lock(mutex_);
    stop_wanted_ = true;
    changed_.notify_all();
    changed_.wait(lock, [this] { return stopped_.has_value(); });
    return *stopped_;
}

}  // namespace kvgrid::python
