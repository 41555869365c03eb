// What a worker exports is what its allocator has and what its clients asked for: after each of many random operations, on several grids,
// every page count in a scrape of every worker equals the allocator's own report (Client::occupancy) and the client's own books
// (PageModel). Meanwhile a thread scrapes without a pause: in each of its scrapes the states add up to the capacity. Seeds are printed;
// run one again with KVGRID_SEED=n.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <cstdlib>
#include <random>
#include <thread>

#include "tests/e2e/e2e_cluster.h"
#include "tests/e2e/page_model.h"
#include "tests/monitor/scrape.h"

namespace kvgrid::e2e {
namespace {

using tests::Scrape;
using tests::scrape;

constexpr const char* kModel = "walked";
constexpr std::uint64_t kPoolPages = 512;  // few enough that steps are refused now and then

ModelSpec walked_spec() {
    ModelSpec spec{.name = kModel,
                   .layers = {},
                   .query_heads = 6,
                   .kv_heads = 3,
                   .head_dim = 32,
                   .dtype = Dtype::f32,
                   .scale = 0.2};
    for (int layer = 0; layer < 2; ++layer) spec.layers.push_back({layer, 0, 0});
    return validated(spec).value();
}

// Scrapes again and again until it is destroyed.
class PersistentScraper {
  public:
    explicit PersistentScraper(std::vector<std::string> endpoints)
        : thread_([this, endpoints = std::move(endpoints)] {
              for (std::size_t i = 0; !stop_; ++i) check(scrape(endpoints[i % endpoints.size()]));
          }) {}
    ~PersistentScraper() {
        stop_ = true;
        thread_.join();
    }

    int count() const { return count_; }
    int violations() const { return violations_; }

  private:
    void check(const Scrape& got) {
        ++count_;
        const double pages = got.pages(kModel, "free") + got.pages(kModel, "used") + got.pages(kModel, "reserved");
        violations_ += pages != got.of_model("kvgrid_page_capacity", kModel);
    }

    std::atomic<bool> stop_ = false;
    std::atomic<int> count_ = 0, violations_ = 0;
    std::thread thread_;
};

class Walk {
  public:
    Walk(const GridShape& grid, unsigned seed)
        : grid_(grid),
          random_(seed),
          cluster_(grid.workers()),
          model_(cluster_.client()
                     .register_model(spec_, {.grid = grid, .pool_bytes_per_worker = kPoolPages * spec_.page_bytes()})
                     .value()),
          books_(spec_, grid) {
        endpoints_.resize(grid.workers());
        for (const ClusterWorker& worker : cluster_.client().status().value().workers)
            endpoints_[worker.rank] = worker.http_endpoint;
    }

    void run(int operations) {
        PersistentScraper scraper(endpoints_);
        for (int i = 0; i < operations && !testing::Test::HasFailure(); ++i) {
            SCOPED_TRACE(fmt::format("operation {}", i));
            one();
            compare();
        }
        EXPECT_EQ(scraper.violations(), 0);
        EXPECT_GT(scraper.count(), 0);
        EXPECT_GT(refused_, 0) << "no step was refused: the walk was too short, or the pool too large";
        std::printf("%d x %d: %d operations, %d steps refused for room, %d scrapes meanwhile\n", grid_.head_parts,
                    grid_.sequence_parts, operations, refused_, scraper.count());
    }

  private:
    int up_to(int n) { return std::uniform_int_distribution<int>(0, n)(random_); }
    Sequence& some() { return std::next(handles_.begin(), up_to(static_cast<int>(handles_.size()) - 1))->second; }

    void one() {
        if (handles_.empty()) return open();
        switch (up_to(11)) {
            case 0:
                return open();
            case 1:
            case 2:
                return fork();
            case 3:
                return truncate();
            case 4:
                return set_window();
            case 5:
                return close();
            default:
                return step();
        }
    }

    void keep(Sequence sequence) { handles_.emplace(sequence.id(), std::move(sequence)); }

    void open() {
        Sequence opened = cluster_.client().open(model_).value();
        books_.open(opened.id());
        keep(std::move(opened));
    }
    void fork() {
        Sequence& source = some();
        Sequence made = source.fork().value();
        books_.fork(source.id(), made.id());
        keep(std::move(made));
    }
    void close() {
        Sequence& sequence = some();
        const SequenceId id = sequence.id();
        ASSERT_TRUE(sequence.close());
        books_.close(id);
        handles_.erase(id);
    }
    void truncate() {
        Sequence& sequence = some();
        if (books_.has_window(sequence.id())) return;  // it may be refused: tests/grid is about that
        const std::int64_t length = up_to(static_cast<int>(books_.length(sequence.id())));
        ASSERT_TRUE(sequence.truncate(length));
        books_.truncate(sequence.id(), length);
    }
    void set_window() {
        Sequence& sequence = some();
        if (books_.has_window(sequence.id())) return;
        const std::int64_t window = 1 + up_to(200), sinks = up_to(1) * up_to(100);
        ASSERT_TRUE(sequence.set_window(window, sinks));
        books_.set_window(sequence.id(), window, sinks);
    }

    void step() {
        std::vector<StepPart> parts;
        std::map<SequenceId, int> tokens;
        for (auto& [id, sequence] : handles_) {
            if (up_to(1) == 0) continue;
            tokens[id] = up_to(2) == 0 ? 1 : 1 + up_to(300);
            parts.push_back({&sequence, tokens[id]});
        }
        if (parts.empty()) return;
        auto step = cluster_.client().begin(parts);
        if (!step) {
            EXPECT_EQ(step.error(), Errc::no_room) << step.error().to_string();
            ++refused_;
            return;
        }
        books_.begin(tokens);
        compare();  // pages are reserved
        const bool commits = up_to(3) != 0;
        const int layers = commits ? spec_.layer_count() : up_to(spec_.layer_count());
        const std::vector<std::byte> q(step->token_count() * spec_.query_heads * spec_.row_bytes());
        const std::vector<std::byte> kv(step->token_count() * spec_.kv_heads * spec_.row_bytes());
        for (int layer = 0; layer < layers; ++layer) ASSERT_TRUE(step->layer(layer, {q, kv, kv}));
        ASSERT_TRUE(commits ? step->commit() : step->abort());
        commits ? books_.commit() : books_.abort();
    }

    // The report comes first: it takes its place in the order of operations on every worker, so what is scraped after it is not older.
    void compare() {
        const GridOccupancy reported = cluster_.client().occupancy().value();
        for (int rank = 0; rank < grid_.workers(); ++rank) {
            SCOPED_TRACE(fmt::format("rank {}", rank));
            const ExpectedPages expected = books_.on_rank(rank);
            const ModelOccupancy& model = reported.workers[rank].models.at(0);
            const Scrape got = scrape(endpoints_[rank]);
            EXPECT_EQ(got.of_model("kvgrid_page_capacity", kModel), kPoolPages);
            EXPECT_EQ(model.capacity_pages, kPoolPages);
            expect_three("used", got.pages(kModel, "used"), model.used_pages, expected.used);
            expect_three("reserved", got.pages(kModel, "reserved"), model.reserved_pages, expected.reserved);
            expect_three("free", got.pages(kModel, "free"), model.free_pages,
                         kPoolPages - expected.used - expected.reserved);
            expect_three("shared", got.of_model("kvgrid_shared_pages", kModel), model.shared_pages, expected.shared);
            expect_three("sequences", got.of_model("kvgrid_sequences", kModel), model.sequences, expected.sequences);
            expect_three("slots", got.of_model("kvgrid_kv_token_slots", kModel), model.stored_tokens,
                         expected.token_slots);
            EXPECT_EQ(got.of_model("kvgrid_page_references", kModel), expected.references);
            EXPECT_EQ(got.of_model("kvgrid_sequence_tokens", kModel), expected.sequence_tokens);
            EXPECT_EQ(got.of_model("kvgrid_kv_bytes", kModel), expected.used * spec_.page_bytes());
            const double slots = static_cast<double>(expected.references * kPageTokens);
            EXPECT_NEAR(got.of_model("kvgrid_page_utilization_ratio", kModel),
                        slots > 0 ? expected.token_slots / slots : 0, 1e-12);
            EXPECT_EQ(got.of_model("kvgrid_page_fragmentation_bytes", kModel),
                      (slots - expected.token_slots) * (spec_.page_bytes() / kPageTokens));
        }
    }

    static void expect_three(const char* what, double scraped, std::uint64_t reported, std::uint64_t expected) {
        EXPECT_EQ(scraped, static_cast<double>(expected)) << what << ": scraped, and the client's own count";
        EXPECT_EQ(reported, expected) << what << ": the allocator's report, and the client's own count";
    }

    const GridShape grid_;
    const ModelSpec spec_ = walked_spec();
    std::mt19937 random_;
    E2eCluster cluster_;
    const RegisteredModel model_;
    PageModel books_;
    std::map<SequenceId, Sequence> handles_;
    std::vector<std::string> endpoints_;  // by rank
    int refused_ = 0;
};

class OccupancyScrape : public testing::TestWithParam<GridShape> {};

TEST_P(OccupancyScrape, AgreesWithTheAllocatorAndWithTheClientsBooks) {
    const char* chosen = std::getenv("KVGRID_SEED");
    const unsigned seed = chosen ? static_cast<unsigned>(std::atoi(chosen)) : 11;
    SCOPED_TRACE(fmt::format("KVGRID_SEED={}", seed));
    Walk(GetParam(), seed).run(150);
}

INSTANTIATE_TEST_SUITE_P(Grids, OccupancyScrape,
                         testing::Values(GridShape{1, 1}, GridShape{1, 2}, GridShape{3, 1}, GridShape{2, 2}),
                         [](const auto& grid) {
                             return fmt::format("{}x{}", grid.param.head_parts, grid.param.sequence_parts);
                         });

}  // namespace
}  // namespace kvgrid::e2e
