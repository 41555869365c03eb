// Clients share the beginnings of prompts through the cluster: what one keeps, another one begins with, and neither sees what the other writes. What is
// only kept is in nobody's way.
#include <gtest/gtest.h>

#include "client/cli/occupancy_text.h"
#include "tests/e2e/counting_sequence.h"
#include "tests/e2e/e2e_cluster.h"

namespace kvgrid::e2e {
namespace {

constexpr std::uint64_t kPoolBytes = 16 * 2 * 64 * 64 * 4;  // 16 pages: 8 of tokens, of each of the two heads

std::vector<PrefixHash> names(int pages, int text = 0) {
    std::vector<PrefixHash> all(pages);
    for (int page = 0; page < pages; ++page) {
        all[page][0] = static_cast<std::byte>(text);
        all[page][1] = static_cast<std::byte>(page);
    }
    return all;
}

class Prefix : public testing::Test {
  protected:
    CountingSequence open(Client& client, const OpenOptions& options = {}) {
        CountingSequence counting(client, client.open(model_, options).value());
        counting.find_length().value();
        return counting;
    }
    void grow(CountingSequence& counting, std::int64_t length) {
        while (counting.length() < length) counting.step().value();
    }
    // Grows a sequence to so many pages and one token, keeps the pages, and closes it.
    void keep_new(int pages, int text) {
        CountingSequence counting = open(one_);
        grow(counting, pages * kPageTokens + 1);
        counting.sequence().keep(names(pages, text)).value();
        counting.sequence().close().value();
    }
    // An opening is admitted by the heartbeats.
    void wait_for_heartbeat(std::uint64_t free_pages) {
        const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(10);
        std::uint64_t said = 0;
        while (said != free_pages && std::chrono::steady_clock::now() < end) {
            said = one_.status().value().workers.at(0).models.at(0).free_pages;
        }
        ASSERT_EQ(said, free_pages);
    }
    std::vector<ListedSequence> kept() {
        std::vector<ListedSequence> all = one_.list_sequences().value().sequences;
        std::erase_if(all, [](const ListedSequence& each) { return each.kept_tokens == 0; });
        return all;
    }

    E2eCluster cluster_{1};
    Client& one_ = cluster_.client();
    Client another_ = Client::connect(cluster_.cluster().endpoint()).value();
    const RegisteredModel model_ = one_.register_model(counting_spec(), {.pool_bytes_per_worker = kPoolBytes}).value();
};

TEST_F(Prefix, AnotherClientBeginsWithWhatIsKept) {
    CountingSequence first = open(one_);
    grow(first, 150);
    first.sequence().keep(names(2)).value();
    ASSERT_EQ(kept().size(), 1u);
    EXPECT_EQ(kept()[0].kept_tokens, 128);
    EXPECT_EQ(kept()[0].parent, first.sequence().id());

    CountingSequence second = open(another_, {.prefix = names(3)});
    EXPECT_EQ(second.sequence().prefix_length(), 128);
    EXPECT_EQ(second.length(), 128);
    grow(second, 200);  // each step checks the mean of all its tokens
    grow(first, 160);
    EXPECT_EQ(open(another_, {.prefix = names(1)}).length(), 64);
    EXPECT_EQ(open(another_, {.tenant = "other", .prefix = names(3)}).length(), 0);
    EXPECT_EQ(open(another_, {.prefix = names(3, 9)}).length(), 0);
}

TEST_F(Prefix, WhoeverWritesWritesToACopy) {
    keep_new(2, 0);
    const std::uint64_t used = cli::page_totals(one_.occupancy().value(), model_.id).used;
    Sequence writer = another_.open(model_, {.prefix = names(1)}).value();
    const KvRows before = writer.read_kv(0, 0, 64).value();
    EXPECT_EQ(cli::page_totals(one_.occupancy().value(), model_.id).used, used) << "the pages are shared";
    std::vector<std::byte> other(before.v.size(), std::byte{1});
    writer
        .rewrite_kv(0, 3, 61, std::span(other).first(other.size() / 64 * 61),
                    std::span(other).first(other.size() / 64 * 61))
        .value();
    EXPECT_EQ(writer.read_kv(0, 10, 1).value().v, std::vector<std::byte>(other.size() / 64, std::byte{1}));

    CountingSequence reader = open(one_, {.prefix = names(2)});
    EXPECT_EQ(reader.sequence().read_kv(0, 0, 64).value().v, before.v);
    grow(reader, 130);
}

TEST_F(Prefix, WhatIsKeptIsGivenUpWhereAStepNeedsItsPages) {
    for (int text = 0; text < 3; ++text) keep_new(2, text);
    CountingSequence busy = open(another_, {.prefix = names(2, 0)});
    grow(busy,
         5 * kPageTokens);  // 4 pages of tokens were kept beside its own, and 2 were free: one of the others has to go
    ASSERT_EQ(kept().size(), 2u);
    EXPECT_EQ(open(another_, {.prefix = names(2, 0)}).length(), 128) << "the one that is shared stays";
    EXPECT_EQ(open(another_, {.prefix = names(2, 1)}).length(), 0) << "the oldest of the others went";
    grow(busy, 8 * kPageTokens);
    const StepPart part{&busy.sequence(), 1};
    EXPECT_EQ(another_.begin({&part, 1}).error(), Errc::no_room);
    EXPECT_TRUE(kept().empty());
}

TEST_F(Prefix, WhatIsKeptIsGivenUpWhereAnOpeningNeedsRoom) {
    for (int text = 0; text < 3; ++text) keep_new(2, text);
    EXPECT_EQ(another_.open(model_, {.expected_tokens = 9 * kPageTokens}).error(), Errc::no_room);
    EXPECT_TRUE(kept().empty()) << "it was tried";
    for (int text = 0; text < 3; ++text) keep_new(2, text);
    wait_for_heartbeat(4);
    EXPECT_TRUE(another_.open(model_, {.expected_tokens = 4 * kPageTokens}));
    EXPECT_EQ(kept().size(), 2u) << "two pages of tokens were free, and one of them had two";
}

TEST_F(Prefix, KeepingWhatIsNotThereIsRefused) {
    CountingSequence counting = open(one_);
    grow(counting, 64);
    EXPECT_EQ(counting.sequence().keep(names(2)).error(), Errc::invalid_argument);
    counting.sequence().set_window(10, 0).value();
    EXPECT_EQ(counting.sequence().keep(names(1)).error(), Errc::wrong_state);
    const auto refused = another_.open(model_, {.window = 10, .prefix = names(1)});
    EXPECT_EQ(refused.error(), Errc::invalid_argument);
    EXPECT_TRUE(kept().empty());
}

}  // namespace
}  // namespace kvgrid::e2e
