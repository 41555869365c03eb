#include "worker/stream_table.h"

#include <fmt/format.h>

#include <algorithm>

#include "worker/token_runs.h"

namespace kvgrid::worker {

using kernels::PageEntry;

namespace {

Error no_such_sequence(SequenceId id) {
    return {Errc::not_found, fmt::format("sequence {} is not open", id.value)};
}

std::int64_t round_up_to_page(std::int64_t tokens) {
    return (tokens + kPageTokens - 1) / kPageTokens * kPageTokens;
}

}  // namespace

std::size_t SequenceState::page_count() const {
    std::size_t count = 0;
    for (const auto& stream : streams) count += stream.size();
    return count;
}

StreamTable::StreamTable(const ModelSpec& spec, const GridShape& grid, int rank, PagePool& pool, CopyPages copy_pages)
    : spec_(spec),
      kv_layers_(spec.kv_layers()),
      grid_(grid),
      sequence_part_(grid.sequence_part(rank)),
      heads_(kv_heads_of_part(spec, grid, grid.head_part(rank))),
      pool_(pool),
      copy_pages_(std::move(copy_pages)) {}

StreamTable::~StreamTable() {
    for (auto& [id, sequence] : sequences_) {
        if (sequence.growth.step) undo(id);
        for (auto& stream : sequence.streams) drop_pages(stream, 0, stream.size());
    }
}

SequenceState* StreamTable::find(SequenceId id) {
    const auto found = sequences_.find(id);
    return found == sequences_.end() ? nullptr : &found->second;
}

Result<SequenceState*> StreamTable::find_idle(SequenceId id) {
    SequenceState* sequence = find(id);
    if (!sequence) return no_such_sequence(id);
    if (sequence->growth.step) {
        return {Errc::busy, fmt::format("step {} is open on sequence {}: commit or abort it first",
                                        sequence->growth.step.value, id.value)};
    }
    return sequence;
}

Status StreamTable::open(SequenceId id, const Window& window) {
    if (sequences_.contains(id)) return {Errc::already_exists, fmt::format("sequence {} is open already", id.value)};
    SequenceState sequence;
    sequence.id = id;
    sequence.spread = spread_of(id, grid_);
    sequence.window = window;
    sequence.streams.resize(stream_count());
    sequence.changed_from.resize(kv_layers_.size());
    sequence.dropped.resize(kv_layers_.size());
    sequences_.emplace(id, std::move(sequence));
    return {};
}

Status StreamTable::fork(SequenceId source, SequenceId target, std::int64_t tokens) {
    const auto from = find_idle(source);
    if (!from) return from.error();
    if (sequences_.contains(target))
        return {Errc::already_exists, fmt::format("sequence {} is open already", target.value)};
    if (tokens != 0) {
        if (Status possible = check_beginning(**from, tokens); !possible) return possible;
    }
    SequenceState copy = **from;  // its spread too: the pages stay where they are
    copy.id = target;
    copy.changed_from.assign(kv_layers_.size(), 0);
    for (const auto& stream : copy.streams) {
        for (const PageEntry& entry : stream) {
            pool_.share(entry.page);
            stored_tokens_ += entry.token_count;
        }
    }
    committed_tokens_ += copy.length;
    sequences_.emplace(target, std::move(copy));
    return tokens == 0 ? Status() : truncate(target, tokens);  // which was found possible
}

Status StreamTable::check_beginning(const SequenceState& sequence, std::int64_t tokens) const {
    if (tokens < 0 || tokens > sequence.length) {
        return {Errc::invalid_argument, fmt::format("the first {} tokens of sequence {}: it has {}", tokens,
                                                    sequence.id.value, sequence.length)};
    }
    if (sequence.window.slides()) {
        return {Errc::wrong_state,
                fmt::format("sequence {} has a window of {} tokens of its own: its first tokens are not what others "
                            "would compute",
                            sequence.id.value, sequence.window.tokens)};
    }
    return check_nothing_needed_was_dropped(sequence, sequence.window, tokens);
}

Status StreamTable::close(SequenceId id) {
    const auto sequence = find_idle(id);
    if (!sequence) return sequence.error();
    for (auto& stream : (*sequence)->streams) drop_pages(stream, 0, stream.size());
    committed_tokens_ -= (*sequence)->length;
    sequences_.erase(id);
    return {};
}

Status StreamTable::truncate(SequenceId id, std::int64_t length) {
    const auto found = find_idle(id);
    if (!found) return found.error();
    SequenceState& sequence = **found;
    if (length < 0 || length > sequence.length) {
        return {Errc::invalid_argument,
                fmt::format("length is {}: sequence {} can be cut to 0 ... {}", length, id.value, sequence.length)};
    }
    if (Status kept = check_nothing_needed_was_dropped(sequence, sequence.window, length); !kept) return kept;
    for (auto& stream : sequence.streams) {
        std::size_t keep = stream.size();
        while (keep > 0 && stream[keep - 1].first_token >= length) --keep;
        drop_pages(stream, keep, stream.size());
        if (stream.empty()) continue;
        PageEntry& last = stream.back();
        const auto tokens =
            static_cast<std::uint32_t>(std::min<std::int64_t>(last.token_count, length - last.first_token));
        stored_tokens_ -= last.token_count - tokens;
        last.token_count = tokens;
    }
    tails_changed(sequence);
    for (DroppedTokens& dropped : sequence.dropped) {
        if (dropped.first >= length) dropped = {};
    }
    committed_tokens_ -= sequence.length - length;
    sequence.length = length;
    return {};
}

Status StreamTable::set_window(SequenceId id, const Window& window) {
    const auto found = find_idle(id);
    if (!found) return found.error();
    SequenceState& sequence = **found;
    if (Status kept = check_nothing_needed_was_dropped(sequence, window, sequence.length); !kept) return kept;
    sequence.window = window;
    drop_what_left_the_window(sequence);
    return {};
}

// Whether a query at `length`, seeing through `window`, would miss tokens that are gone.
Status StreamTable::check_nothing_needed_was_dropped(const SequenceState& sequence, const Window& window,
                                                     std::int64_t length) const {
    for (std::size_t i = 0; i < kv_layers_.size(); ++i) {
        const DroppedTokens& dropped = sequence.dropped[i];
        if (dropped.empty() || dropped.first >= length) continue;
        const Window seen = window_of_kv_layer(spec_, kv_layers_[i], window);
        const bool unseen = seen.slides() && seen.sinks <= dropped.first && dropped.end <= length - seen.tokens + 1;
        if (unseen) continue;
        return {Errc::wrong_state,
                fmt::format(
                    "tokens {} to {} of layer {} of sequence {} left the window and were given back, and would be seen "
                    "again: fork before the window passes, or stay within it",
                    dropped.first, dropped.end - 1, kv_layers_[i], sequence.id.value)};
    }
    return {};
}

Status StreamTable::unshare(SequenceId id, std::size_t kv_layer, std::int64_t first_token, std::int64_t token_count) {
    const auto found = find_idle(id);
    if (!found) return found.error();
    SequenceState& sequence = **found;
    std::vector<PageEntry*> shared;
    for (int head = 0; head < heads_.count; ++head) {
        auto& stream = sequence.streams[kv_layer * heads_.count + head];
        for (std::size_t i = 0; i < stream.size(); ++i) {
            const PageEntry& entry = stream[i];
            const bool is_meant =
                entry.first_token < first_token + token_count && first_token < entry.first_token + entry.token_count;
            if (!is_meant || !pool_.is_shared(entry.page)) continue;
            shared.push_back(&stream[i]);
            change_from(sequence, kv_layer, i);
        }
    }
    auto pages = pool_.reserve(shared.size());
    if (!pages) return pages.error();
    for (std::size_t i = 0; i < shared.size(); ++i) {
        const PageId copy = (*pages)[i];
        copies_.push_back({shared[i]->page, copy});
        pool_.commit(copy);
    }
    if (!copies_.empty()) copy_pages_(copies_);
    for (std::size_t i = 0; i < shared.size(); ++i) {
        pool_.give_back(shared[i]->page);
        shared[i]->page = (*pages)[i];
    }
    copies_.clear();
    return {};
}

// Whether the next token goes to a page that exists, on this part.
bool StreamTable::holds_tail(const SequenceState& sequence) const {
    return sequence.length % kPageTokens != 0 &&
           sequence_part_of_page(sequence.length / kPageTokens, sequence.spread, grid_) == sequence_part_;
}

std::size_t StreamTable::pages_needed(const SequenceState& sequence, int tokens) const {
    if (tokens == 0) return 0;
    const std::int64_t whole = round_up_to_page(sequence.length);
    const std::int64_t beyond = sequence.length + tokens - whole;
    std::size_t pages = 0;
    if (beyond > 0) {
        pages = stream_count() * token_runs_of_part(whole, beyond, sequence.spread, grid_, sequence_part_).size();
    }
    if (holds_tail(sequence)) {
        for (const auto& stream : sequence.streams) pages += pool_.is_shared(stream.back().page);
    }
    return pages;
}

Status StreamTable::grow(StepId step, std::span<const Part> parts) {
    std::size_t needed = 0;
    for (const Part& part : parts) {
        const auto sequence = find_idle(part.sequence);
        if (!sequence) return sequence.error();
        needed += pages_needed(**sequence, part.tokens);
    }
    auto pages = pool_.reserve(needed);
    if (!pages) return pages.error();
    std::reverse(pages->begin(), pages->end());  // taken from the back
    for (const Part& part : parts) grow_one(*find(part.sequence), step, part.tokens, *pages);
    if (!copies_.empty()) copy_pages_(copies_);
    copies_.clear();
    return {};
}

void StreamTable::grow_one(SequenceState& sequence, StepId step, int tokens, std::vector<PageId>& pages) {
    sequence.growth = {.step = step, .tokens = tokens, .tail_tokens = 0, .new_pages = 0, .replaced = {}};
    if (tokens == 0) return;
    tails_changed(sequence);
    const std::int64_t end = sequence.length + tokens;
    if (holds_tail(sequence)) {
        sequence.growth.tail_tokens = static_cast<std::uint32_t>(sequence.length % kPageTokens);
        for (std::size_t s = 0; s < sequence.streams.size(); ++s) {
            replace_tail_if_shared(sequence, s, pages);
            PageEntry& tail = sequence.streams[s].back();
            tail.token_count = static_cast<std::uint32_t>(std::min<std::int64_t>(kPageTokens, end - tail.first_token));
        }
    }
    const std::int64_t whole = round_up_to_page(sequence.length);
    if (end <= whole) return;
    const auto runs = token_runs_of_part(whole, end - whole, sequence.spread, grid_, sequence_part_);
    sequence.growth.new_pages = static_cast<int>(runs.size());
    for (auto& stream : sequence.streams) {
        for (const TokenRun& run : runs) {
            stream.push_back({pages.back(), static_cast<std::uint32_t>(run.token_count), run.first_token});
            pages.pop_back();
        }
    }
}

void StreamTable::replace_tail_if_shared(SequenceState& sequence, std::size_t stream, std::vector<PageId>& pages) {
    PageEntry& tail = sequence.streams[stream].back();
    if (!pool_.is_shared(tail.page)) return;
    sequence.growth.replaced.push_back({stream, tail.page});
    const PageId copy = pages.back();
    pages.pop_back();
    copies_.push_back({tail.page, copy});
    tail.page = copy;
}

void StreamTable::change_from(SequenceState& sequence, std::size_t kv_layer, std::size_t entry) {
    sequence.changed_from[kv_layer] = std::min(sequence.changed_from[kv_layer], entry);
}

// The last entry of every list, as it is now, and whatever comes behind it.
void StreamTable::tails_changed(SequenceState& sequence) {
    for (std::size_t i = 0; i < kv_layers_.size(); ++i) {
        const std::size_t count = sequence.streams[i * heads_.count].size();
        change_from(sequence, i, count == 0 ? 0 : count - 1);
    }
}

void StreamTable::settle(SequenceId id) {
    SequenceState& sequence = *find(id);
    const Growth growth = std::move(sequence.growth);
    sequence.growth = {};
    for (auto& stream : sequence.streams) {
        for (auto entry = stream.rbegin(); entry != stream.rend() && pool_.is_reserved(entry->page); ++entry) {
            pool_.commit(entry->page);
        }
    }
    for (const ReplacedPage& replaced : growth.replaced) pool_.give_back(replaced.page);
    stored_tokens_ +=
        stream_count() * tokens_of_part(sequence.length, growth.tokens, sequence.spread, grid_, sequence_part_);
    sequence.length += growth.tokens;
    committed_tokens_ += growth.tokens;
    drop_what_left_the_window(sequence);
}

void StreamTable::undo(SequenceId id) {
    SequenceState& sequence = *find(id);
    const Growth growth = std::move(sequence.growth);
    sequence.growth = {};
    for (auto& stream : sequence.streams) {
        for (int i = 0; i < growth.new_pages; ++i) {
            pool_.give_back(stream.back().page);
            stream.pop_back();
        }
        if (growth.tail_tokens > 0) stream.back().token_count = growth.tail_tokens;
    }
    for (const auto& [s, page] : growth.replaced) {
        PageEntry& tail = sequence.streams[s].back();
        pool_.give_back(tail.page);
        tail.page = page;
    }
    tails_changed(sequence);
}

int StreamTable::tokens_that_fit(std::span<const Part> parts) const {
    int fits = 0;
    int refused = 1;
    for (const Part& part : parts) refused = std::max(refused, part.tokens + 1);
    while (refused - fits > 1) {
        const int tokens = fits + (refused - fits) / 2;
        std::size_t needed = 0;
        for (const Part& part : parts) {
            const auto sequence = sequences_.find(part.sequence);
            if (sequence != sequences_.end()) needed += pages_needed(sequence->second, std::min(tokens, part.tokens));
        }
        (needed <= pool_.free_count() ? fits : refused) = tokens;
    }
    return fits;
}

void StreamTable::drop_what_left_the_window(SequenceState& sequence) {
    for (std::size_t i = 0; i < kv_layers_.size(); ++i) {
        const Window window = window_of_kv_layer(spec_, kv_layers_[i], sequence.window);
        const std::int64_t end = first_kept_token(window, sequence.length);
        const std::int64_t first = round_up_to_page(window.sinks);
        DroppedTokens& dropped = sequence.dropped[i];
        if (end <= first || (!dropped.empty() && dropped.first <= first && end <= dropped.end)) continue;
        dropped = dropped.empty() ? DroppedTokens{first, end}
                                  : DroppedTokens{std::min(first, dropped.first), std::max(end, dropped.end)};
        for (int head = 0; head < heads_.count; ++head) {
            auto& stream = sequence.streams[i * heads_.count + head];
            const auto before = [](const PageEntry& entry, std::int64_t token) { return entry.first_token < token; };
            const auto from = std::lower_bound(stream.begin(), stream.end(), first, before);
            const auto to = std::lower_bound(from, stream.end(), end, before);
            change_from(sequence, i, from - stream.begin());
            drop_pages(stream, from - stream.begin(), to - stream.begin());
        }
    }
}

void StreamTable::drop_pages(std::vector<PageEntry>& stream, std::size_t first, std::size_t end) {
    for (std::size_t i = first; i < end; ++i) {
        stored_tokens_ -= stream[i].token_count;
        pool_.give_back(stream[i].page);
    }
    stream.erase(stream.begin() + static_cast<std::ptrdiff_t>(first),
                 stream.begin() + static_cast<std::ptrdiff_t>(end));
}

}  // namespace kvgrid::worker
