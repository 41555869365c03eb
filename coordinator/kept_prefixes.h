#pragma once

#include <cstdint>
#include <functional>
#include <list>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/ids.h"
#include "core/prefix_hash.h"

namespace kvgrid::coordinator {

// A sequence that is kept for its tokens: later ones of the same model and tenant begin with a fork of them.
struct KeptPrefix {
    SequenceId sequence;
    ModelId model;
    std::string tenant;
    std::vector<PrefixHash> prefix;  // one for each of its pages
    bool whole = false;  // serves with all of its pages or not at all: its model has windows, which tokens leave
};

// Since the coordinator's start.
struct PrefixCounts {
    std::uint64_t lookups = 0;
    std::uint64_t hits = 0;  // after which a sequence was forked
    std::uint64_t tokens_reused = 0;
    std::uint64_t given_up = 0;
};

// Which sequences are kept, and which of them serves a prompt. Decides only: whoever holds it forks and closes.
//
//   Order    the least recently used one is given up first. Found is used.
//   Bounds   `count_max` of all models and tenants, and kPagesMax pages of all, which bounds the names' memory to 32 MiB.
//   Cost     a lookup compares some ten names with each that is kept: names depend on all before, so where two prompts part is found by halves.
class KeptPrefixes {
  public:
    static constexpr std::size_t kPagesMax = 1 << 20;

    struct Match {
        SequenceId sequence;
        std::size_t pages = 0;
    };

    explicit KeptPrefixes(std::size_t count_max) : count_max_(count_max) {}

    // Whether anything may be kept.
    bool keeps() const { return count_max_ > 0; }

    // The one that has most of the prompt's first pages.
    std::optional<Match> find(ModelId model, const std::string& tenant, std::span<const PrefixHash> prompt);

    // Whether one serves for all that this one would; it counts as used then.
    bool covers(const KeptPrefix& wanted);

    // Returns those that are kept no more: which this one covers, and which are over the bounds.
    std::vector<SequenceId> add(KeptPrefix kept);

    // It is not there any more, or serves no more. False: it was not kept.
    bool erase(SequenceId sequence);
    void clear() { kept_.clear(); }

    // The least recently used one of a model, of those that `preferred` says yes to if there are any; it is kept no more. Nothing: there is none.
    std::optional<SequenceId> give_up(ModelId model, const std::function<bool(SequenceId)>& preferred);

    void count_hit(std::size_t pages);
    const PrefixCounts& counts() const { return counts_; }
    std::size_t size() const { return kept_.size(); }

  private:
    using Kept = std::list<KeptPrefix>;  // the last used one last

    void use(Kept::iterator entry) { kept_.splice(kept_.end(), kept_, entry); }
    std::size_t page_count() const;

    const std::size_t count_max_;
    Kept kept_;
    PrefixCounts counts_;
};

}  // namespace kvgrid::coordinator
