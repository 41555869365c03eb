#pragma once

#include <memory>
#include <utility>

#include "worker/join.h"

namespace kvgrid::worker {

// One way for outputs that it has room for, another one for the rest.
class JoinBySize final : public Join {
  public:
    JoinBySize(std::unique_ptr<Join> small, std::unique_ptr<Join> any)
        : small_(std::move(small)), any_(std::move(any)), current_(any_.get()) {}

    void prepare(const ModelSpec& spec, const GridShape& grid, int tokens, std::uint64_t operation) override {
        current_ = small_->has_room(spec, grid, tokens) ? small_.get() : any_.get();
        current_->prepare(spec, grid, tokens, operation);
    }
    std::span<std::byte> whole() override { return current_->whole(); }
    std::span<float> partial() override { return current_->partial(); }
    std::span<float> lse() override { return current_->lse(); }
    JoinWay way() const override { return JoinWay::pushed; }
    bool goes(JoinWay way) const override { return small_->goes(way) || any_->goes(way); }
    bool is_on_device() const override { return current_->is_on_device(); }
    bool joins_into(std::span<std::byte> output) override { return current_->joins_into(output); }
    TailJoin* tail() override { return current_->tail(); }
    Result<comm::Payload> finish(Deadline deadline) override { return current_->finish(deadline); }
    std::uint64_t bytes_received() const override { return small_->bytes_received() + any_->bytes_received(); }

  private:
    const std::unique_ptr<Join> small_, any_;
    Join* current_;
};

}  // namespace kvgrid::worker
