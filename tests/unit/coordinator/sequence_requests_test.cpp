// A sequence is in the catalogue when a client was given it, and not in the grid unless it is in the catalogue (or about to be closed):
// whatever the lead answers, and when it does not answer at all.

#include <signal.h>
#include <sys/resource.h>

#include <limits>

#include "tests/unit/coordinator/cluster_fixture.h"

namespace kvgrid::coordinator {
namespace {

class SequenceRequests : public ClusterTest {
  protected:
    SequenceRequests() {
        form_grid();
        wait_until_ready();
        model = register_model(small_spec(), 8 << 20).value().model();
    }

    // The lead was asked to close a sequence that nobody was given, and it was forgotten after that.
    void expect_closed_and_forgotten(std::uint64_t sequence) {
        const auto closed = lead.wait_for<wire::GridClose>(MessageType::grid_close, 1);
        ASSERT_EQ(closed.size(), 1u);
        EXPECT_EQ(closed[0].sequence(), sequence);
        const auto end = deadline_in(10s);
        while (catalogued_sequence_count() > 0 && std::chrono::steady_clock::now() < end) {
        }
        EXPECT_EQ(catalogued_sequence_count(), 0u);
    }

    std::uint64_t model = 0;
};

TEST_F(SequenceRequests, ASequenceIsOpenedForkedAndClosed) {
    wire::OpenSequenceRequest request;
    request.set_model(model);
    request.set_tenant("acme");
    request.set_window(1024);
    request.set_sinks(4);
    const auto opened = ask<wire::SequenceReply>(MessageType::open_sequence, request).value();
    EXPECT_EQ(opened.model(), model);
    EXPECT_EQ(opened.tenant(), "acme");
    const auto grid_open = lead.wait_for<wire::GridOpen>(MessageType::grid_open, 1).at(0);
    EXPECT_EQ(grid_open.sequence(), opened.sequence());
    EXPECT_EQ(grid_open.window(), 1024);
    EXPECT_EQ(grid_open.sinks(), 4);

    const auto forked = fork(opened.sequence()).value();
    EXPECT_EQ(forked.parent(), opened.sequence());
    EXPECT_EQ(forked.tenant(), "acme");
    const auto grid_fork = lead.wait_for<wire::GridFork>(MessageType::grid_fork, 1).at(0);
    EXPECT_EQ(grid_fork.source(), opened.sequence());
    EXPECT_EQ(grid_fork.target(), forked.sequence());
    EXPECT_EQ(sequences(model), (std::vector<std::uint64_t>{opened.sequence(), forked.sequence()}));

    wire::ListSequencesRequest page;
    page.set_limit(1);
    const auto first = ask<wire::ListSequencesReply>(MessageType::list_sequences, page).value();
    ASSERT_EQ(first.sequences_size(), 1);
    EXPECT_EQ(first.sequences(0).sequence(), opened.sequence());
    EXPECT_TRUE(first.more());
    page.set_after(opened.sequence());
    const auto last = ask<wire::ListSequencesReply>(MessageType::list_sequences, page).value();
    ASSERT_EQ(last.sequences_size(), 1);
    EXPECT_EQ(last.sequences(0).sequence(), forked.sequence());
    EXPECT_FALSE(last.more());

    ASSERT_TRUE(close(opened.sequence()));
    EXPECT_EQ(lead.wait_for<wire::GridClose>(MessageType::grid_close, 1).at(0).sequence(), opened.sequence());
    EXPECT_EQ(sequences(), std::vector<std::uint64_t>{forked.sequence()});
    EXPECT_EQ(lead.generations(MessageType::grid_close), std::vector<std::uint64_t>{1});
    EXPECT_EQ(close(opened.sequence()).error(), Errc::not_found);
}

TEST_F(SequenceRequests, WhatIsNotThereIsNotFound) {
    EXPECT_EQ(open(99).error(), Errc::not_found);
    EXPECT_EQ(fork(99).error(), Errc::not_found);
    EXPECT_EQ(close(99).error(), Errc::not_found);
    wire::ListSequencesRequest request;
    request.set_model(99);
    EXPECT_EQ(ask<wire::ListSequencesReply>(MessageType::list_sequences, request).error(), Errc::not_found);
}

TEST_F(SequenceRequests, AnOpenThatMakesNoSenseIsRefused) {
    wire::OpenSequenceRequest request;
    request.set_model(model);
    request.set_sinks(4);
    EXPECT_EQ(ask<wire::SequenceReply>(MessageType::open_sequence, request).error(), Errc::invalid_argument);
    request.set_window(-1);
    EXPECT_EQ(ask<wire::SequenceReply>(MessageType::open_sequence, request).error(), Errc::invalid_argument);
    EXPECT_EQ(open(model, -1).error(), Errc::invalid_argument);
    EXPECT_EQ(open(model, std::numeric_limits<std::int64_t>::max()).error(), Errc::invalid_argument);
}

TEST_F(SequenceRequests, AnExpectedLengthIsAdmittedByTheFreePagesOfEachWorker) {
    // 8 MiB of 16 KiB pages is 512; one KV head of 4 layers on each worker: 128 pages of tokens.
    EXPECT_TRUE(open(model, 128 * 64)) << "no heartbeat has told of the model yet: all of it is free";
    EXPECT_EQ(open(model, 128 * 64 + 1).error(), Errc::no_room);

    wire::Occupancy pool;
    pool.set_model(model);
    pool.set_free_pages(41);
    ASSERT_TRUE(heartbeat(2, 1, true, {pool}));
    EXPECT_TRUE(open(model, 10 * 64));
    const auto refused = open(model, 10 * 64 + 1);
    EXPECT_EQ(refused.error(), Errc::no_room);
    EXPECT_NE(refused.error().message.find("at most 640 tokens would fit now"), std::string::npos)
        << refused.error().message;
}

TEST_F(SequenceRequests, WhatTheLeadRefusesIsNotInTheCatalogue) {
    lead.refuse(MessageType::grid_open, {Errc::busy, "later"});
    EXPECT_EQ(open(model).error(), Errc::busy);
    EXPECT_EQ(catalogued_sequence_count(), 0u);
    lead.behave(MessageType::grid_open);
    const auto source = open(model).value().sequence();
    lead.refuse(MessageType::grid_fork, {Errc::busy, "a step is open"});
    EXPECT_EQ(fork(source).error(), Errc::busy);
    EXPECT_EQ(catalogued_sequence_count(), 1u);
}

TEST_F(SequenceRequests, ALeadThatDoesNotAnswerIsADeadlineAndTheSequenceIsClosedInTheGrid) {
    lead.keep_silent(MessageType::grid_open);
    EXPECT_EQ(open(model, 0, 100ms).error(), Errc::deadline_exceeded);
    EXPECT_TRUE(sequences().empty());
    expect_closed_and_forgotten(1);
}

TEST_F(SequenceRequests, ClosingWhatNobodyWasGivenIsTriedUntilItIsDone) {
    lead.keep_silent(MessageType::grid_open);
    lead.refuse(MessageType::grid_close, {Errc::busy, "later"});
    EXPECT_EQ(open(model, 0, 100ms).error(), Errc::deadline_exceeded);
    ASSERT_EQ(lead.wait_for<wire::GridClose>(MessageType::grid_close, 1).size(), 1u);

    lead.refuse(MessageType::grid_close, {Errc::not_found, "it was never opened"});
    const auto end = deadline_in(10s);
    while (catalogued_sequence_count() > 0 && std::chrono::steady_clock::now() < end) {
        pass(1100ms);
        heartbeats();
    }
    EXPECT_EQ(catalogued_sequence_count(), 0u);
}

// A process may not write files beyond RLIMIT_FSIZE: the nearest thing to a full disk.
TEST_F(SequenceRequests, WhatTheCatalogueCannotConfirmIsClosedInTheGridAgain) {
    lead.keep_silent(MessageType::grid_open);
    auto opening = std::async(std::launch::async, [&] { return open(model); });
    ASSERT_EQ(lead.wait_for<wire::GridOpen>(MessageType::grid_open, 1).size(), 1u);

    rlimit usual{};
    getrlimit(RLIMIT_FSIZE, &usual);
    const auto handler = signal(SIGXFSZ, SIG_IGN);
    rlimit none = usual;
    none.rlim_cur = 1;
    setrlimit(RLIMIT_FSIZE, &none);
    lead.speak();
    const auto refused = opening.get();
    const auto closed = lead.wait_for<wire::GridClose>(MessageType::grid_close, 1);
    setrlimit(RLIMIT_FSIZE, &usual);
    signal(SIGXFSZ, handler);

    EXPECT_EQ(refused.error(), Errc::unavailable);
    ASSERT_EQ(closed.size(), 1u);
    EXPECT_TRUE(sequences().empty());
    const auto end = deadline_in(10s);
    while (catalogued_sequence_count() > 0 && std::chrono::steady_clock::now() < end) {
        pass(1100ms);  // the time after which it is tried again
        heartbeats();
    }
    EXPECT_EQ(catalogued_sequence_count(), 0u);
}

TEST_F(SequenceRequests, ClosingSucceedsWhereTheGridDoesNotHaveItAnyMore) {
    const auto sequence = open(model).value().sequence();
    lead.refuse(MessageType::grid_close, {Errc::not_found, "gone"});
    EXPECT_TRUE(close(sequence));
    EXPECT_TRUE(sequences().empty());
}

TEST_F(SequenceRequests, ACloseThatIsRefusedOrUnansweredLeavesTheSequence) {
    const auto sequence = open(model).value().sequence();
    lead.refuse(MessageType::grid_close, {Errc::busy, "a step is open"});
    EXPECT_EQ(close(sequence).error(), Errc::busy);
    lead.keep_silent(MessageType::grid_close);
    EXPECT_EQ(close(sequence, 100ms).error(), Errc::deadline_exceeded);
    EXPECT_EQ(sequences(), std::vector<std::uint64_t>{sequence});
    lead.behave(MessageType::grid_close);
    EXPECT_TRUE(close(sequence));
}

TEST_F(SequenceRequests, OpenSequencesAndModelsOutliveTheCoordinator) {
    const auto sequence = open(model).value().sequence();
    restart();
    heartbeats();
    wait_until_ready();
    EXPECT_EQ(sequences(model), std::vector<std::uint64_t>{sequence});
    EXPECT_EQ(model_count(), 1);
    EXPECT_TRUE(fork(sequence));
}

TEST_F(SequenceRequests, AnAnswerThatComesAfterItsGenerationOpensNothing) {
    lead.keep_silent(MessageType::grid_open);
    auto opening = std::async(std::launch::async, [&] { return open(model); });
    ASSERT_EQ(lead.wait_for<wire::GridOpen>(MessageType::grid_open, 1).size(), 1u);
    pass(2000ms);
    form_grid(201);
    lead.speak();
    const auto late = opening.get();
    ASSERT_FALSE(late);
    wait_until_ready();
    EXPECT_TRUE(sequences().empty());
}

}  // namespace
}  // namespace kvgrid::coordinator
