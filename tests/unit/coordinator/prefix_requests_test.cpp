// A sequence that is kept serves those who open with its names: they get a fork of its first pages, and what cannot be forked is no error. It outlives
// the coordinator and not its generation, and leaves nothing behind in the grid when it is kept no more. A FakeLead stands for the grid.

#include "tests/unit/coordinator/cluster_fixture.h"

namespace kvgrid::coordinator {
namespace {

// Names of `pages` pages of a text.
std::vector<std::string> names(int pages, char text = 'a') {
    std::vector<std::string> all;
    for (int page = 0; page < pages; ++page) all.push_back(std::string(31, text) + static_cast<char>(page));
    return all;
}

class PrefixRequests : public ClusterTest {
  protected:
    PrefixRequests() {
        form_grid();
        wait_until_ready();
        model = register_model(small_spec(), 8 << 20).value().model();
    }

    Result<wire::Empty> keep(std::uint64_t sequence, const std::vector<std::string>& prefix) {
        wire::KeepSequenceRequest request;
        request.set_sequence(sequence);
        for (const std::string& name : prefix) request.add_prefix(name);
        return ask<wire::Empty>(MessageType::keep_sequence, request);
    }
    Result<wire::SequenceReply> open_with(const std::vector<std::string>& prefix, const std::string& tenant = "t",
                                          std::int64_t expected_tokens = 0) {
        wire::OpenSequenceRequest request;
        request.set_model(model);
        request.set_tenant(tenant);
        request.set_expected_tokens(expected_tokens);
        for (const std::string& name : prefix) request.add_prefix(name);
        return ask<wire::SequenceReply>(MessageType::open_sequence, request);
    }
    Result<wire::Empty> give_up() {
        wire::GiveUpPrefixRequest request;
        request.set_model(model);
        return ask<wire::Empty>(MessageType::give_up_prefix, request);
    }
    // By what the list says.
    std::vector<std::uint64_t> kept() {
        std::vector<std::uint64_t> ids;
        const auto reply =
            ask<wire::ListSequencesReply>(MessageType::list_sequences, wire::ListSequencesRequest{}).value();
        for (const auto& sequence : reply.sequences()) {
            if (sequence.kept_tokens() > 0) ids.push_back(sequence.sequence());
        }
        return ids;
    }
    // Opens a sequence, keeps it, closes it; the id of what is kept.
    std::uint64_t keep_new(const std::vector<std::string>& prefix) {
        const auto source = open(model).value().sequence();
        EXPECT_TRUE(keep(source, prefix));
        EXPECT_TRUE(close(source));
        return kept().back();
    }
    wire::GridFork last_fork(std::size_t count) {
        return lead.wait_for<wire::GridFork>(MessageType::grid_fork, count).back();
    }
    // What is kept no more is closed in the background.
    void expect_held(std::size_t count) {
        const auto end = deadline_in(10s);
        const auto agrees = [&] {
            return static_cast<std::size_t>(lead.held().sequences_size()) == count &&
                   catalogued_sequence_count() == count;
        };
        while (!agrees() && std::chrono::steady_clock::now() < end) {
            pass(100ms);
            heartbeats();
        }
        EXPECT_TRUE(agrees()) << lead.held().ShortDebugString();
    }
    PrefixCounts counts() {
        std::promise<PrefixCounts> read;
        io.post([&] { read.set_value(coordinator->prefixes().counts()); });
        return read.get_future().get();
    }

    std::uint64_t model = 0;
};

TEST_F(PrefixRequests, AnOpeningBeginsWithWhatIsKeptUnderItsNames) {
    const auto source = open(model).value().sequence();
    ASSERT_TRUE(keep(source, names(3)));
    const auto keeping = last_fork(1);
    EXPECT_EQ(keeping.source(), source);
    EXPECT_EQ(keeping.tokens(), 192);
    ASSERT_EQ(kept(), std::vector<std::uint64_t>{keeping.target()});

    auto prompt = names(2);
    prompt.push_back(names(3, 'b').back());
    const auto opened = open_with(prompt).value();
    EXPECT_EQ(opened.prefix_tokens(), 128);
    EXPECT_EQ(opened.parent(), keeping.target());
    EXPECT_EQ(last_fork(2).source(), keeping.target());
    EXPECT_EQ(last_fork(2).tokens(), 128);
    EXPECT_EQ(last_fork(2).target(), opened.sequence());
    EXPECT_EQ(open_with(names(1, 'b'))->prefix_tokens(), 0);
    EXPECT_EQ(counts().lookups, 2u);
    EXPECT_EQ(counts().hits, 1u);
    EXPECT_EQ(counts().tokens_reused, 128u);
}

TEST_F(PrefixRequests, TenantsDoNotSeeOneAnothers) {
    keep_new(names(2));
    EXPECT_EQ(open_with(names(2), "u")->prefix_tokens(), 0);
    EXPECT_EQ(open_with(names(2), "t")->prefix_tokens(), 128);
}

TEST_F(PrefixRequests, WhatIsKeptAlreadyIsNotKeptTwiceAndALongerOneTakesItsPlace) {
    const auto source = open(model).value().sequence();
    ASSERT_TRUE(keep(source, names(2)));
    ASSERT_TRUE(keep(source, names(1)));
    ASSERT_TRUE(keep(source, names(2)));
    EXPECT_EQ(lead.wait_for<wire::GridFork>(MessageType::grid_fork, 1).size(), 1u);
    ASSERT_TRUE(keep(source, names(4)));
    expect_held(2);
    EXPECT_EQ(kept().size(), 1u);
}

TEST_F(PrefixRequests, WhatCannotBeForkedIsForgottenAndTheSequenceBeginsEmpty) {
    for (const Errc code : {Errc::not_found, Errc::wrong_state, Errc::invalid_argument}) {
        keep_new(names(2));
        lead.refuse(MessageType::grid_fork, {code, "it cannot be"});
        const auto opened = open_with(names(2));
        ASSERT_TRUE(opened) << opened.error().to_string();
        EXPECT_EQ(opened->prefix_tokens(), 0);
        EXPECT_EQ(opened->parent(), 0u);
        lead.behave(MessageType::grid_fork);
        ASSERT_TRUE(close(opened->sequence()));
        expect_held(0);
        EXPECT_EQ(open_with(names(2))->prefix_tokens(), 0);
        ASSERT_TRUE(close(sequences().back()));
    }
    EXPECT_EQ(counts().hits, 0u);
}

TEST_F(PrefixRequests, OneThatIsBusyStays) {
    keep_new(names(2));
    lead.refuse(MessageType::grid_fork, {Errc::busy, "a step is open"});
    EXPECT_EQ(open_with(names(2))->prefix_tokens(), 0);
    lead.behave(MessageType::grid_fork);
    EXPECT_EQ(open_with(names(2))->prefix_tokens(), 128);
}

TEST_F(PrefixRequests, KeepingThatTheGridRefusesLeavesNothing) {
    const auto source = open(model).value().sequence();
    lead.refuse(MessageType::grid_fork, {Errc::invalid_argument, "it has 3 tokens"});
    EXPECT_EQ(keep(source, names(2)).error(), Errc::invalid_argument);
    EXPECT_TRUE(kept().empty());
    expect_held(1);
}

TEST_F(PrefixRequests, NamesThatAreNoneAreRefused) {
    const auto source = open(model).value().sequence();
    EXPECT_EQ(keep(source, {}).error(), Errc::invalid_argument);
    EXPECT_EQ(keep(source, {"short"}).error(), Errc::invalid_argument);
    EXPECT_EQ(keep(99, names(1)).error(), Errc::not_found);
    EXPECT_EQ(open_with({"short"}).error(), Errc::invalid_argument);
    EXPECT_EQ(open_with(std::vector<std::string>(kPrefixPagesMax + 1, names(1)[0])).error(), Errc::invalid_argument);
    wire::OpenSequenceRequest windowed;
    windowed.set_model(model);
    windowed.set_window(100);
    windowed.add_prefix(names(1)[0]);
    EXPECT_EQ(ask<wire::SequenceReply>(MessageType::open_sequence, windowed).error(), Errc::invalid_argument);
}

TEST_F(PrefixRequests, AnybodyMayCloseOneAndItServesNoMore) {
    ASSERT_TRUE(close(keep_new(names(2))));
    EXPECT_EQ(open_with(names(2))->prefix_tokens(), 0);
    expect_held(1);
}

TEST_F(PrefixRequests, TheLeastRecentlyUsedOneIsGivenUpThoseThatSharePagesLast) {
    const auto oldest = keep_new(names(2, 'a')), second = keep_new(names(2, 'b')), third = keep_new(names(2, 'c'));
    const auto fork_of_oldest = open_with(names(1, 'a')).value().sequence();
    ASSERT_EQ(open_with(names(1, 'b'))->parent(), second);
    ASSERT_TRUE(close(sequences().back()));
    ASSERT_TRUE(give_up());
    EXPECT_EQ(kept(), (std::vector<std::uint64_t>{oldest, second}));
    ASSERT_TRUE(give_up());
    EXPECT_EQ(kept(), std::vector<std::uint64_t>{oldest}) << "its pages are shared";
    ASSERT_TRUE(give_up());
    EXPECT_EQ(give_up().error(), Errc::not_found);
    EXPECT_EQ(sequences(), std::vector<std::uint64_t>{fork_of_oldest});
    EXPECT_NE(third, 0u);
    expect_held(1);
}

TEST_F(PrefixRequests, AfterGivingUpAnOpeningIsAdmittedByThePagesThatThereAreThen) {
    keep_new(names(2));
    wire::Occupancy pool;
    pool.set_model(model);
    ASSERT_TRUE(heartbeat(1, 1, true, {pool}));
    ASSERT_EQ(open(model, 640).error(), Errc::no_room);
    lead.change_occupancy([&](wire::OccupancyReply& occupancy) {
        auto& worker = *occupancy.add_workers();
        worker.set_worker(1);
        pool.set_free_pages(512);
        *worker.add_models() = pool;
    });
    ASSERT_TRUE(give_up());
    EXPECT_TRUE(open(model, 640));
}

TEST_F(PrefixRequests, WhatIsThereAlreadyNeedsNoRoom) {
    keep_new(names(2));
    wire::Occupancy pool;
    pool.set_model(model);
    pool.set_free_pages(40);  // 640 tokens of one KV head in 4 layers
    ASSERT_TRUE(heartbeat(1, 1, true, {pool}));
    EXPECT_EQ(open_with(names(2, 'b'), "t", 768).error(), Errc::no_room);
    EXPECT_TRUE(open_with(names(2), "t", 768));
    EXPECT_EQ(open_with(names(2), "t", 769).error(), Errc::no_room);
}

TEST_F(PrefixRequests, TheyOutliveTheCoordinator) {
    const auto sequence = keep_new(names(3));
    restart();
    heartbeats();
    wait_until_ready();
    EXPECT_EQ(status().differences(), 0u);
    EXPECT_EQ(kept(), std::vector<std::uint64_t>{sequence});
    EXPECT_EQ(open_with(names(2))->parent(), sequence);
    ASSERT_TRUE(close(sequences().back()));
    ASSERT_TRUE(give_up());
    expect_held(0);
}

TEST_F(PrefixRequests, KilledWhileTheGridKeepsOneLeavesNothing) {
    const auto source = open(model).value().sequence();
    lead.keep_silent(MessageType::grid_fork);
    wire::KeepSequenceRequest request;
    request.set_sequence(source);
    request.add_prefix(names(1)[0]);
    channel->call(MessageType::keep_sequence, 0, comm::pack(request), {}, deadline_in(20s), [](Result<comm::Frame>) {});
    ASSERT_EQ(lead.wait_for<wire::GridFork>(MessageType::grid_fork, 1).size(), 1u);
    stop();
    lead.speak();  // the grid has done it, and there is nobody to tell
    ASSERT_EQ(lead.held().sequences_size(), 2);
    start();
    heartbeats();
    wait_until_ready();
    EXPECT_TRUE(kept().empty());
    expect_held(1);
    EXPECT_EQ(open_with(names(1))->prefix_tokens(), 0);
}

TEST_F(PrefixRequests, WhatTheGridHasLostServesNoMoreAfterARestart) {
    keep_new(names(2));
    stop();
    lead.change_held([](wire::GridInventoryReply& held) { held.clear_sequences(); });
    start();
    heartbeats();
    wait_until_ready();
    EXPECT_TRUE(kept().empty());
    lead.refuse(MessageType::grid_fork, {Errc::not_found, "it is not open"});
    EXPECT_EQ(open_with(names(2))->prefix_tokens(), 0);
    expect_held(1);
}

TEST_F(PrefixRequests, TheyEndWithTheirGeneration) {
    keep_new(names(2));
    pass(2000ms);
    form_grid(201);
    wait_until_ready();
    EXPECT_TRUE(sequences().empty());
    EXPECT_EQ(open_with(names(2))->prefix_tokens(), 0);
    EXPECT_EQ(give_up().error(), Errc::not_found);
}

}  // namespace
}  // namespace kvgrid::coordinator
