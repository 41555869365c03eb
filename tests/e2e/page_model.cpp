#include "tests/e2e/page_model.h"

#include <algorithm>
#include <set>

namespace kvgrid::e2e {

void PageModel::truncate(SequenceId id, std::int64_t length) {
    Sequence& sequence = sequences_.at(id);
    sequence.length = length;
    std::erase_if(sequence.pages, [&](const auto& page) { return page.first * kPageTokens >= length; });
}

void PageModel::set_window(SequenceId id, std::int64_t tokens, std::int64_t sinks) {
    Sequence& sequence = sequences_.at(id);
    sequence.window = tokens;
    sequence.sinks = sinks;
    drop_unseen(sequence);
}

// The next query, at `length`, sees the last `window` tokens, itself among them, and the sinks. A page none of whose tokens it sees is
// seen by no later query either.
void PageModel::drop_unseen(Sequence& sequence) {
    if (sequence.window == 0) return;
    std::erase_if(sequence.pages, [&](const auto& page) {
        const std::int64_t first = page.first * kPageTokens, last = first + kPageTokens - 1;
        return first >= sequence.sinks && last < sequence.length - sequence.window + 1;
    });
}

void PageModel::begin(const std::map<SequenceId, int>& tokens) {
    for (const auto& [id, count] : tokens) {
        const Sequence& sequence = sequences_.at(id);
        Growth growth{.tokens = count, .taken = {}};
        const std::int64_t tail = sequence.length / kPageTokens;
        const bool grows_tail = sequence.length % kPageTokens != 0;
        if (grows_tail && sequence.pages.at(tail).use_count() > 1)
            growth.taken.push_back(tail);  // copied before it is written
        const std::int64_t end = sequence.length + count;
        for (std::int64_t page = tail + grows_tail; page * kPageTokens < end; ++page) growth.taken.push_back(page);
        growth_[id] = growth;
    }
}

void PageModel::commit() {
    for (const auto& [id, growth] : growth_) {
        Sequence& sequence = sequences_.at(id);
        for (std::int64_t page : growth.taken) sequence.pages[page] = std::make_shared<Page>();
        sequence.length += growth.tokens;
    }
    growth_.clear();
    for (auto& [id, sequence] : sequences_) drop_unseen(sequence);
}

ExpectedPages PageModel::on_rank(int rank) const {
    const std::uint64_t streams =
        spec_.kv_layers().size() * kv_heads_of_part(spec_, grid_, grid_.head_part(rank)).count;
    const int mine = grid_.sequence_part(rank);
    ExpectedPages expected{.sequences = sequences_.size()};
    std::set<const Page*> distinct, shared;
    for (const auto& [id, sequence] : sequences_) {
        expected.sequence_tokens += sequence.length;
        for (const auto& [number, page] : sequence.pages) {
            if (part(sequence, number) != mine) continue;
            ++expected.references;
            expected.token_slots += std::min<std::int64_t>(kPageTokens, sequence.length - number * kPageTokens);
            if (!distinct.insert(page.get()).second) shared.insert(page.get());
        }
    }
    for (const auto& [id, growth] : growth_) {
        for (std::int64_t page : growth.taken) expected.reserved += part(sequences_.at(id), page) == mine;
    }
    expected.used = distinct.size();
    expected.shared = shared.size();
    for (std::uint64_t* count :
         {&expected.used, &expected.reserved, &expected.shared, &expected.references, &expected.token_slots})
        *count *= streams;
    return expected;
}

std::vector<SequenceId> PageModel::sequences() const {
    std::vector<SequenceId> ids;
    for (const auto& [id, sequence] : sequences_) ids.push_back(id);
    return ids;
}

}  // namespace kvgrid::e2e
