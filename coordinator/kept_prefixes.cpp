#include "coordinator/kept_prefixes.h"

#include <algorithm>
#include <ranges>

namespace kvgrid::coordinator {

namespace {

bool of(const KeptPrefix& kept, ModelId model, const std::string& tenant) {
    return kept.model == model && kept.tenant == tenant;
}

std::size_t common_pages(std::span<const PrefixHash> one, std::span<const PrefixHash> other) {
    const auto pages = std::views::iota(std::size_t{0}, std::min(one.size(), other.size()));
    const auto differs =
        std::ranges::partition_point(pages, [&](std::size_t page) { return one[page] == other[page]; });
    return static_cast<std::size_t>(differs - pages.begin());
}

std::size_t served_pages(const KeptPrefix& kept, std::span<const PrefixHash> prompt) {
    const std::size_t common = common_pages(kept.prefix, prompt);
    return kept.whole && common < kept.prefix.size() ? 0 : common;
}

}  // namespace

std::optional<KeptPrefixes::Match> KeptPrefixes::find(ModelId model, const std::string& tenant,
                                                      std::span<const PrefixHash> prompt) {
    ++counts_.lookups;
    auto best = kept_.end();
    std::size_t most = 0;
    for (auto entry = kept_.begin(); entry != kept_.end(); ++entry) {
        if (!of(*entry, model, tenant)) continue;
        const std::size_t pages = served_pages(*entry, prompt);
        if (pages <= most) continue;
        most = pages;
        best = entry;
    }
    if (best == kept_.end()) return std::nullopt;
    use(best);
    return Match{best->sequence, most};
}

bool KeptPrefixes::covers(const KeptPrefix& wanted) {
    const auto found = std::ranges::find_if(kept_, [&](const KeptPrefix& kept) {
        return of(kept, wanted.model, wanted.tenant) && served_pages(kept, wanted.prefix) == wanted.prefix.size();
    });
    if (found == kept_.end()) return false;
    use(found);
    return true;
}

std::vector<SequenceId> KeptPrefixes::add(KeptPrefix kept) {
    std::vector<SequenceId> ended;
    const auto is_covered = [&](const KeptPrefix& other) {
        if (!of(other, kept.model, kept.tenant)) return false;
        return served_pages(kept, other.prefix) == other.prefix.size();
    };
    std::erase_if(kept_, [&](const KeptPrefix& other) {
        const bool covered = is_covered(other);
        if (covered) ended.push_back(other.sequence);
        return covered;
    });
    kept_.push_back(std::move(kept));
    while (!kept_.empty() && (kept_.size() > count_max_ || page_count() > kPagesMax)) {
        ended.push_back(kept_.front().sequence);
        kept_.pop_front();
        ++counts_.given_up;
    }
    return ended;
}

bool KeptPrefixes::erase(SequenceId sequence) {
    return std::erase_if(kept_, [&](const KeptPrefix& kept) { return kept.sequence == sequence; }) > 0;
}

std::optional<SequenceId> KeptPrefixes::give_up(ModelId model, const std::function<bool(SequenceId)>& preferred) {
    const auto is_of_model = [&](const KeptPrefix& kept) { return kept.model == model; };
    auto oldest = std::ranges::find_if(
        kept_, [&](const KeptPrefix& kept) { return is_of_model(kept) && preferred(kept.sequence); });
    if (oldest == kept_.end()) oldest = std::ranges::find_if(kept_, is_of_model);
    if (oldest == kept_.end()) return std::nullopt;
    const SequenceId sequence = oldest->sequence;
    kept_.erase(oldest);
    ++counts_.given_up;
    return sequence;
}

void KeptPrefixes::count_hit(std::size_t pages) {
    ++counts_.hits;
    counts_.tokens_reused += static_cast<std::uint64_t>(prefix_tokens(pages));
}

std::size_t KeptPrefixes::page_count() const {
    std::size_t pages = 0;
    for (const KeptPrefix& kept : kept_) pages += kept.prefix.size();
    return pages;
}

}  // namespace kvgrid::coordinator
