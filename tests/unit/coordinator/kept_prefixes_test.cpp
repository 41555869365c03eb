// A prompt finds the kept sequence that has most of its first pages, within its model and tenant; the least recently used ones go first, and the
// bounds hold. Names of pages are numbers here: page p of text t has the name of (t, p), and texts that begin alike are spelled out.

#include "coordinator/kept_prefixes.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace kvgrid::coordinator {
namespace {

constexpr ModelId kModel{3};

PrefixHash name(std::uint32_t text, std::uint32_t page) {
    PrefixHash hash{};
    for (int byte = 0; byte < 4; ++byte) {
        hash[byte] = static_cast<std::byte>(text >> 8 * byte);
        hash[8 + byte] = static_cast<std::byte>(page >> 8 * byte);
    }
    return hash;
}

// The first `common` pages of text 0, then those of another.
std::vector<PrefixHash> prompt(std::uint32_t common, std::uint32_t text = 0, std::uint32_t own = 0) {
    std::vector<PrefixHash> names;
    for (std::uint32_t page = 0; page < common; ++page) names.push_back(name(0, page));
    for (std::uint32_t page = 0; page < own; ++page) names.push_back(name(text, common + page));
    return names;
}

KeptPrefix kept(std::uint64_t sequence, std::vector<PrefixHash> names, bool whole = false) {
    return {SequenceId{sequence}, kModel, "t", std::move(names), whole};
}

std::vector<std::uint64_t> values(const std::vector<SequenceId>& ids) {
    std::vector<std::uint64_t> all;
    for (const SequenceId id : ids) all.push_back(id.value);
    return all;
}

using Ids = std::vector<std::uint64_t>;

TEST(KeptPrefixes, ThePromptFindsTheOneThatHasMostOfItsFirstPages) {
    KeptPrefixes prefixes(10);
    EXPECT_TRUE(prefixes.add(kept(1, prompt(3, 7, 5))).empty());
    EXPECT_TRUE(prefixes.add(kept(2, prompt(6, 8, 100))).empty());
    for (const auto& [common, sequence, pages] :
         {std::tuple(1u, 1u, 1u), {3u, 1u, 3u}, {4u, 2u, 4u}, {6u, 2u, 6u}, {9u, 2u, 6u}}) {
        const auto match = prefixes.find(kModel, "t", prompt(common, 9, 4));
        ASSERT_TRUE(match) << common;
        EXPECT_EQ(match->pages, pages);
        EXPECT_TRUE(match->sequence.value == sequence || pages <= 3) << common;
    }
    EXPECT_FALSE(prefixes.find(kModel, "t", prompt(0, 9, 4)));
    EXPECT_FALSE(prefixes.find(kModel, "t", {}));
    EXPECT_EQ(prefixes.counts().lookups, 7u);
}

TEST(KeptPrefixes, ModelsAndTenantsDoNotSeeOneAnothers) {
    KeptPrefixes prefixes(10);
    prefixes.add(kept(1, prompt(3)));
    EXPECT_FALSE(prefixes.find(ModelId{4}, "t", prompt(3)));
    EXPECT_FALSE(prefixes.find(kModel, "u", prompt(3)));
    EXPECT_TRUE(prefixes.add({SequenceId{2}, kModel, "u", prompt(5), false}).empty()) << "it takes nobody else's place";
    EXPECT_EQ(prefixes.find(kModel, "t", prompt(5))->sequence.value, 1u);
    EXPECT_EQ(prefixes.find(kModel, "u", prompt(5))->sequence.value, 2u);
}

TEST(KeptPrefixes, ALongerOneTakesThePlaceOfItsBeginnings) {
    KeptPrefixes prefixes(10);
    prefixes.add(kept(1, prompt(2)));
    prefixes.add(kept(2, prompt(4)));
    prefixes.add(kept(3, prompt(2, 7, 1)));
    EXPECT_TRUE(prefixes.covers(kept(0, prompt(3))));
    EXPECT_FALSE(prefixes.covers(kept(0, prompt(5))));
    EXPECT_EQ(values(prefixes.add(kept(4, prompt(9)))), Ids{2});
    EXPECT_EQ(prefixes.size(), 2u);
}

TEST(KeptPrefixes, OfAModelWithWindowsOneServesWithAllOfItsPagesOrNotAtAll) {
    KeptPrefixes prefixes(10);
    prefixes.add(kept(1, prompt(2), true));
    EXPECT_TRUE(prefixes.add(kept(2, prompt(5), true)).empty()) << "the shorter one serves where the longer one cannot";
    EXPECT_EQ(prefixes.find(kModel, "t", prompt(4))->sequence.value, 1u);
    EXPECT_EQ(prefixes.find(kModel, "t", prompt(4))->pages, 2u);
    EXPECT_EQ(prefixes.find(kModel, "t", prompt(6))->pages, 5u);
    EXPECT_FALSE(prefixes.find(kModel, "t", prompt(1)));
    EXPECT_FALSE(prefixes.covers(kept(0, prompt(4), true)));
    EXPECT_TRUE(prefixes.covers(kept(0, prompt(5), true)));
}

TEST(KeptPrefixes, BeyondTheBoundTheLeastRecentlyUsedOneEnds) {
    KeptPrefixes prefixes(2);
    prefixes.add(kept(1, prompt(0, 1, 2)));
    prefixes.add(kept(2, prompt(0, 2, 2)));
    ASSERT_TRUE(prefixes.find(kModel, "t", prompt(0, 1, 1)));
    EXPECT_EQ(values(prefixes.add(kept(3, prompt(0, 3, 2)))), Ids{2});
    EXPECT_TRUE(prefixes.covers(kept(0, prompt(0, 1, 2))));
    EXPECT_EQ(values(prefixes.add(kept(4, prompt(0, 4, 2)))), Ids{3});
    EXPECT_EQ(prefixes.counts().given_up, 2u);

    KeptPrefixes none(0);
    EXPECT_FALSE(none.keeps());
    EXPECT_EQ(values(none.add(kept(1, prompt(1)))), Ids{1});
}

TEST(KeptPrefixes, NamesTakeABoundedMemory) {
    KeptPrefixes prefixes(4096);
    constexpr std::uint32_t kPages = kPrefixPagesMax;
    std::size_t pages = 0;
    for (std::uint32_t text = 1; text <= 70; ++text) {
        pages += kPages;
        for (std::size_t ended = prefixes.add(kept(text, prompt(0, text, kPages))).size(); ended > 0; --ended)
            pages -= kPages;
        EXPECT_LE(pages, KeptPrefixes::kPagesMax);
    }
    EXPECT_EQ(pages, KeptPrefixes::kPagesMax);
}

TEST(KeptPrefixes, ThePreferredOnesAreGivenUpFirst) {
    KeptPrefixes prefixes(10);
    for (std::uint32_t text = 1; text <= 3; ++text) prefixes.add(kept(text, prompt(0, text, 2)));
    prefixes.add({SequenceId{4}, ModelId{9}, "t", prompt(2), false});
    const auto give_up = [&](const Ids& preferred) {
        const auto id =
            prefixes.give_up(kModel, [&](SequenceId asked) { return std::ranges::count(preferred, asked.value) > 0; });
        return id ? id->value : 0;
    };
    EXPECT_EQ(give_up({2, 3}), 2u);
    EXPECT_EQ(give_up({2}), 1u) << "the oldest, if none is preferred";
    EXPECT_EQ(give_up({3}), 3u);
    EXPECT_EQ(give_up({}), 0u) << "the other model's stays";
    EXPECT_EQ(prefixes.size(), 1u);
    EXPECT_TRUE(prefixes.erase(SequenceId{4}));
    EXPECT_FALSE(prefixes.erase(SequenceId{4}));
}

}  // namespace
}  // namespace kvgrid::coordinator
