// A recorded trace shows where the microseconds of a layer call went: it is JSON that Chrome's viewer takes, spans of a thread follow or
// contain one another, every rank has its kernels in it, and the parts of a layer call at the lead leave little of it unexplained. The
// recording ends by itself, after its steps or at its deadline.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "client/cli/monitor/trace_recording.h"
#include "tests/e2e/e2e_cluster.h"

namespace kvgrid::e2e {
namespace {

using nlohmann::json;

constexpr int kSteps = 3, kLayers = 4;

struct Event {
    std::string name;
    int process = 0, thread = 0;
    double start = 0, end = 0;
};

// All spans, asynchronous ones put together again.
std::vector<Event> events_of(const std::string& text) {
    std::vector<Event> events;
    std::map<int, std::size_t> begun;
    const json trace = json::parse(text);
    for (const json& event : trace.at("traceEvents")) {
        const std::string phase = event.at("ph");
        if (phase == "e") events[begun.at(event.at("id"))].end = event.at("ts");
        if (phase != "X" && phase != "b") continue;
        const double start = event.at("ts");
        if (phase == "b") begun[event.at("id")] = events.size();
        events.push_back({event.at("name"), event.at("pid"), event.at("tid"), start,
                          phase == "X" ? start + event.at("dur").get<double>() : 0});
    }
    return events;
}

std::vector<Event> named(const std::vector<Event>& events, const std::string& name) {
    std::vector<Event> found;
    std::ranges::copy_if(events, std::back_inserter(found), [&](const Event& event) { return event.name == name; });
    return found;
}

bool contains(const Event& outer, const Event& inner) {
    constexpr double kRounding = 0.002;  // microseconds: times are written as decimals
    return outer.start <= inner.start + kRounding && inner.end <= outer.end + kRounding;
}

// How much of `whole` the events within it cover together, from 0 to 1.
double covered(const Event& whole, const std::vector<Event>& events) {
    std::vector<Event> parts;
    for (const Event& event : events) {
        if (event.process == whole.process && event.name != whole.name && contains(whole, event))
            parts.push_back(event);
    }
    std::ranges::sort(parts, {}, &Event::start);
    double sum = 0, up_to = whole.start;
    for (const Event& part : parts) {
        sum += std::max(0.0, part.end - std::max(part.start, up_to));
        up_to = std::max(up_to, part.end);
    }
    return sum / (whole.end - whole.start);
}

class TraceTest : public testing::Test {
  protected:
    std::vector<Event> record() {
        const auto recorded =
            cli::record_trace(cluster_.client(), {.steps = kSteps, .own_steps = true, .interrupted = {}});
        EXPECT_TRUE(recorded) << recorded.error().to_string();
        EXPECT_EQ(recorded->dropped, 0u);
        return events_of(recorded->json);
    }

    E2eCluster cluster_{2};
};

TEST_F(TraceTest, SpansOfAThreadFollowOrContainOneAnother) {
    const std::vector<Event> events = record();
    for (const Event& a : events) {
        EXPECT_LE(a.start, a.end) << a.name;
        for (const Event& b : events) {
            const bool same_thread = a.process == b.process && a.thread == b.thread && a.thread != 2;  // 2: what waits
            if (!same_thread || a.start > b.start) continue;
            EXPECT_TRUE(b.start + 0.002 >= a.end || contains(a, b) || contains(b, a)) << a.name << " and " << b.name;
        }
    }
}

TEST_F(TraceTest, EveryRankAndTheClientAreInIt) {
    const std::vector<Event> events = record();
    std::map<int, int> kernels_by_process;
    for (const Event& event : named(events, "attend")) ++kernels_by_process[event.process];
    ASSERT_EQ(kernels_by_process.size(), 2u);
    for (const auto& [process, kernels] : kernels_by_process) EXPECT_EQ(kernels, kSteps * kLayers);
    EXPECT_EQ(named(events, "merge").size(), static_cast<std::size_t>(kSteps * kLayers));  // the lead's
    EXPECT_EQ(named(events, "layer call").size(), static_cast<std::size_t>(kSteps * kLayers));
    EXPECT_EQ(named(events, "call of layer 0").size(), static_cast<std::size_t>(kSteps));
    EXPECT_EQ(named(events, "commit").size(), static_cast<std::size_t>(kSteps));
}

TEST_F(TraceTest, ALayerCallIsExplainedByItsParts) {
    const std::vector<Event> events = record();
    std::vector<double> explained;
    for (const Event& call : named(events, "layer call")) {
        explained.push_back(covered(call, events));
    }
    // The scheduler may stop a thread between two spans, so not each of them, but the middle one.
    std::ranges::sort(explained);
    EXPECT_GT(explained[explained.size() / 2], 0.9);
    for (int layer = 0; layer < kLayers; ++layer) {
        for (const Event& client : named(events, "call of layer " + std::to_string(layer))) {
            const auto calls = named(events, "layer call");
            EXPECT_EQ(std::ranges::count_if(calls, [&](const Event& call) { return contains(client, call); }), 1);
        }
    }
}

TEST_F(TraceTest, ItEndsByItself) {
    Client& client = cluster_.client();
    ASSERT_TRUE(client.start_trace({.steps = 1, .duration = std::chrono::milliseconds(50), .spans_max = 10}));
    const Deadline deadline = deadline_in(std::chrono::seconds(60));
    bool finished = false;
    while (!finished && std::chrono::steady_clock::now() < deadline) {
        finished = std::ranges::all_of(client.take_trace().value().ranks, &RankTrace::finished);
    }
    EXPECT_TRUE(finished);

    const auto nobody =
        cli::record_trace(client, {.steps = 1, .timeout = std::chrono::milliseconds(50), .interrupted = {}});
    ASSERT_FALSE(nobody);
    EXPECT_EQ(nobody.error(), Errc::deadline_exceeded);
}

TEST_F(TraceTest, BoundsAreKept) {
    EXPECT_EQ(cluster_.client().start_trace({.steps = 0}).error(), Errc::invalid_argument);
    EXPECT_EQ(cluster_.client().start_trace({.spans_max = 100'000'000}).error(), Errc::invalid_argument);
    const auto few =
        cli::record_trace(cluster_.client(), {.steps = kSteps, .own_steps = true, .spans_max = 10, .interrupted = {}});
    ASSERT_TRUE(few) << few.error().to_string();
    EXPECT_GT(few->dropped, 0u);
    EXPECT_LE(few->span_count, 20u);
}

}  // namespace
}  // namespace kvgrid::e2e
