#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "core/ids.h"
#include "core/sharding.h"

namespace kvgrid::e2e {

// What the pages of one worker should be.
struct ExpectedPages {
    std::uint64_t used = 0, reserved = 0, shared = 0, references = 0;
    std::uint64_t token_slots = 0;
    std::uint64_t sequences = 0;
    std::int64_t sequence_tokens = 0;
};

// A client's own books of a cache: which pages its sequences hold on which part, worked out from what it asked for and from the rules of
// docs/architecture.md, without the allocator. Of a model without windows of its own, whose KV layers therefore hold alike.
class PageModel {
  public:
    PageModel(const ModelSpec& spec, const GridShape& grid) : spec_(spec), grid_(grid) {}

    void open(SequenceId id) { sequences_[id] = {.spread = spread_of(id, grid_)}; }
    void fork(SequenceId source, SequenceId target) { sequences_[target] = sequences_.at(source); }
    void close(SequenceId id) { sequences_.erase(id); }
    void truncate(SequenceId id, std::int64_t length);
    void set_window(SequenceId id, std::int64_t tokens, std::int64_t sinks);  // never wider than before
    void begin(const std::map<SequenceId, int>& tokens);                      // one step at a time
    void commit();
    void abort() { growth_.clear(); }

    ExpectedPages on_rank(int rank) const;
    std::int64_t length(SequenceId id) const { return sequences_.at(id).length; }
    bool has_window(SequenceId id) const { return sequences_.at(id).window > 0; }
    std::vector<SequenceId> sequences() const;

  private:
    struct Page {};  // its identity is its address; its holders are those of the pointer
    using PagePointer = std::shared_ptr<Page>;
    struct Sequence {
        std::int64_t length = 0;
        int spread = 0;
        std::int64_t window = 0, sinks = 0;         // 0: none
        std::map<std::int64_t, PagePointer> pages;  // by number: those that are held
    };
    struct Growth {
        int tokens = 0;
        std::vector<std::int64_t> taken;  // numbers of new pages, and of a shared last page that is copied
    };

    void drop_unseen(Sequence& sequence);
    int part(const Sequence& sequence, std::int64_t page) const {
        return sequence_part_of_page(page, sequence.spread, grid_);
    }

    const ModelSpec spec_;
    const GridShape grid_;
    std::map<SequenceId, Sequence> sequences_;
    std::map<SequenceId, Growth> growth_;  // of the open step
};

}  // namespace kvgrid::e2e
