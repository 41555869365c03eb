#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <unordered_map>
#include <vector>

#include "core/ids.h"
#include "core/sharding.h"
#include "core/window.h"
#include "kernels/page_entry.h"
#include "kernels/page_pair.h"
#include "worker/page_pool.h"

namespace kvgrid::worker {

// A shared page that was copied before a step wrote to it. Some streams of a sequence may have pages of their own where others share them (rewrite_kv).
struct ReplacedPage {
    std::size_t stream;
    PageId page;
};

// What an open step has changed in one sequence, so that it can be settled or undone.
struct Growth {
    StepId step;
    int tokens = 0;
    std::uint32_t tail_tokens = 0;  // tokens of the page that was grown, as before; 0: no page of this shard was grown
    int new_pages = 0;              // entries added to each stream
    std::vector<ReplacedPage> replaced;
};

// Tokens first ... end - 1 of a KV layer were given back when they left the window. Page borders; empty: nothing was.
struct DroppedTokens {
    std::int64_t first = 0;
    std::int64_t end = 0;

    bool empty() const { return first == end; }
};

// One sequence's share of this worker.
struct SequenceState {
    SequenceId id;
    std::int64_t length = 0;  // committed tokens, of the whole sequence
    int spread = 0;
    Window window;                                         // of the sequence itself, beside those of the layers
    std::vector<std::vector<kernels::PageEntry>> streams;  // [kv layer * local KV heads + head]
    std::vector<std::size_t> changed_from;  // [kv layer] first entry of its lists that a device may not know of
    std::vector<DroppedTokens> dropped;     // [kv layer]
    Growth growth;                          // of the open step, if growth.step

    std::size_t page_count() const;
};

// The sequences of one model in one worker, and the pages of their streams. Counts and refusals do not depend on the worker, except
// for no_room: given the same calls, all shards of a grid answer alike.
//
//   Invariant  while no step is open, each stream lists exactly the pages of its tokens that live on this sequence part and have not
//              left the window; each page listed has one holder for each list that names it.
class StreamTable {
  public:
    struct Part {
        SequenceId sequence;
        int tokens;
    };

    using CopyPages = std::function<void(std::span<const kernels::PagePair>)>;

    StreamTable(const ModelSpec& spec, const GridShape& grid, int rank, PagePool& pool, CopyPages copy_pages);
    ~StreamTable();  // gives every page back
    StreamTable(const StreamTable&) = delete;
    StreamTable& operator=(const StreamTable&) = delete;

    Status open(SequenceId id, const Window& window);
    // Shares every page; with `tokens`, those of the first so many, which are to be what others would compute: `wrong_state` where the source has a
    // window of its own, or some of them have left one of the model's; `invalid_argument`: it has fewer.
    Status fork(SequenceId source, SequenceId target, std::int64_t tokens = 0);
    Status close(SequenceId id);
    Status truncate(SequenceId id, std::int64_t length);
    Status set_window(SequenceId id, const Window& window);

    // Gives the sequence pages of its own for committed tokens of a KV layer (by its place among those) that other sequences hold as well, with the same
    // content. All or none: `not_found`, `busy`, `no_room`.
    Status unshare(SequenceId id, std::size_t kv_layer, std::int64_t first_token, std::int64_t token_count);

    // Takes pages for the new tokens and puts them into the page lists, copying pages that other sequences hold as well. All parts or
    // none: `not_found`, `busy` (an open step holds the sequence), `no_room`.
    Status grow(StepId step, std::span<const Part> parts);
    void settle(SequenceId id);  // the new tokens are committed; pages that leave the window go
    void undo(SequenceId id);    // as before `grow`

    // The largest number of new tokens, at most `part.tokens` in each part, that `grow` would find room for now.
    int tokens_that_fit(std::span<const Part> parts) const;

    SequenceState* find(SequenceId id);
    const std::unordered_map<SequenceId, SequenceState>& all() const { return sequences_; }
    std::size_t sequence_count() const { return sequences_.size(); }
    std::uint64_t stored_tokens() const { return stored_tokens_; }
    std::int64_t committed_tokens() const { return committed_tokens_; }  // sum of the sequences' lengths
    HeadRange local_kv_heads() const { return heads_; }

  private:
    std::size_t stream_count() const { return kv_layers_.size() * heads_.count; }
    std::size_t pages_needed(const SequenceState& sequence, int tokens) const;
    bool holds_tail(const SequenceState& sequence) const;
    Result<SequenceState*> find_idle(SequenceId id);
    void grow_one(SequenceState& sequence, StepId step, int tokens, std::vector<PageId>& pages);
    void replace_tail_if_shared(SequenceState& sequence, std::size_t stream, std::vector<PageId>& pages);
    void change_from(SequenceState& sequence, std::size_t kv_layer, std::size_t entry);
    void tails_changed(SequenceState& sequence);
    void drop_what_left_the_window(SequenceState& sequence);
    void drop_pages(std::vector<kernels::PageEntry>& stream, std::size_t first, std::size_t end);
    Status check_beginning(const SequenceState& sequence, std::int64_t tokens) const;
    Status check_nothing_needed_was_dropped(const SequenceState& sequence, const Window& window,
                                            std::int64_t length) const;

    const ModelSpec spec_;
    const std::vector<int> kv_layers_;
    const GridShape grid_;
    const int sequence_part_;
    const HeadRange heads_;
    PagePool& pool_;
    const CopyPages copy_pages_;
    std::vector<kernels::PagePair> copies_;  // of the step that begins
    std::unordered_map<SequenceId, SequenceState> sequences_;
    std::uint64_t stored_tokens_ = 0;
    std::int64_t committed_tokens_ = 0;
};

}  // namespace kvgrid::worker
