#include "tests/grid/thread_grid.h"

#include <fmt/format.h>

#include <future>
#include <optional>
#include <stdexcept>

#include "comm/collective/thread_collective.h"
#include "tests/grid/test_device.h"

namespace kvgrid::tests {

using worker::Operation;
using worker::OperationResult;

namespace {

constexpr std::chrono::seconds kPatience{60};

}  // namespace

struct ThreadGrid::Links final : worker::GridLinks {
    explicit Links(ThreadGrid& grid) : grid_(grid) {}

    int rank_count() const override { return grid_.rank_count(); }

    Status send(int rank, const Operation& operation) override {
        grid_.ranks_[rank]->queue.post([this, rank, operation] {
            OperationResult result = grid_.ranks_[rank]->executor->apply(operation);
            if (rank != 0) return;
            grid_.post([this, number = operation.number, result = std::move(result)]() mutable {
                grid_.lead_->completed(number, std::move(result));
            });
        });
        return {};
    }

  private:
    ThreadGrid& grid_;
};

ThreadGrid::ThreadGrid(int ranks, std::uint64_t memory_bytes, int threads_per_rank, const MakeDevice& make_device) {
    auto collectives = comm::make_thread_collectives(ranks, Generation{1});
    for (int r = 0; r < ranks; ++r) {
        auto rank = std::make_unique<Rank>();
        rank->device =
            make_device ? make_device(threads_per_rank, r, ranks) : make_test_device(threads_per_rank, r, ranks);
        rank->collective = std::move(collectives[r]);
        rank->shard = std::make_unique<worker::Shard>(r, memory_bytes, *rank->device);
        rank->executor = std::make_unique<worker::Executor>(*rank->shard, *rank->collective, kPatience);
        ranks_.push_back(std::move(rank));
    }
    links_ = std::make_unique<Links>(*this);
    lead_ = std::make_unique<worker::Lead>(*links_);
    for (auto& rank : ranks_) {
        rank->thread = std::thread([&rank = *rank] {
            rank.queue.run();
            rank.executor.reset();  // what the ranks have between them ends when all of them end it
        });
    }
}

ThreadGrid::~ThreadGrid() {
    violation();  // waits for what is under way
    for (auto& rank : ranks_) rank->queue.stop();
    for (auto& rank : ranks_) rank->thread.join();
}

void ThreadGrid::post(std::function<void()> work) {
    {
        const std::lock_guard lock(mutex_);
        work_.push_back(std::move(work));
    }
    posted_.notify_one();
}

void ThreadGrid::wait_for(const std::function<bool()>& condition) {
    while (!condition()) {
        std::unique_lock lock(mutex_);
        if (!posted_.wait_for(lock, kPatience, [this] { return !work_.empty(); }))
            throw std::runtime_error("the grid hangs");
        auto work = std::move(work_.front());
        work_.pop_front();
        lock.unlock();
        work();
    }
}

OperationResult ThreadGrid::submit(worker::OperationBody body, std::vector<std::byte> tensors) {
    std::optional<OperationResult> result;
    const auto take = [&](OperationResult done) { result = std::move(done); };
    if (tensors.empty()) {
        lead_->submit(std::move(body), take);
    } else {
        lead_->submit(std::move(body), comm::Payload::own(std::move(tensors)), take);
    }
    wait_for([&] { return result.has_value(); });
    return std::move(*result);
}

std::pair<StepId, OperationResult> ThreadGrid::begin(worker::BeginStep begin, worker::Lead::Owner owner) {
    std::optional<std::pair<StepId, OperationResult>> result;
    lead_->begin(std::move(begin), owner, [&](StepId step, OperationResult done) { result = {step, std::move(done)}; });
    wait_for([&] { return result.has_value(); });
    return std::move(*result);
}

OperationResult ThreadGrid::layer(StepId step, worker::Lead::LayerOfStep layer, std::vector<std::byte> tensors) {
    std::optional<OperationResult> result;
    lead_->layer(step, layer, comm::Payload::own(std::move(tensors)),
                 [&](OperationResult done) { result = std::move(done); });
    wait_for([&] { return result.has_value(); });
    return std::move(*result);
}

OperationResult ThreadGrid::commit(StepId step) {
    std::optional<OperationResult> result;
    lead_->commit(step, [&](OperationResult done) { result = std::move(done); });
    wait_for([&] { return result.has_value(); });
    return std::move(*result);
}

OperationResult ThreadGrid::abort(StepId step) {
    std::optional<OperationResult> result;
    lead_->abort(step, [&](OperationResult done) { result = std::move(done); });
    wait_for([&] { return result.has_value(); });
    return std::move(*result);
}

std::string ThreadGrid::violation() {
    std::string found;
    for (auto& rank : ranks_) {
        std::promise<std::string> answer;
        rank->queue.post([&] {
            std::string wrong;
            for (const auto& report : rank->shard->report()) {
                const auto& pages = report.pages;
                if (pages.conserved() && rank->shard->find_model(report.model)->pool->recount_agrees()) continue;
                wrong = fmt::format("rank {}: {} free + {} used + {} reserved of {}", rank->collective->rank(),
                                    pages.free, pages.used, pages.reserved, pages.capacity);
            }
            answer.set_value(wrong);
        });
        if (std::string wrong = answer.get_future().get(); found.empty()) found = wrong;
    }
    return found;
}

}  // namespace kvgrid::tests
