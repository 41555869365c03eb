// Random operations (open, step, abort, fork, truncate, window, close, read, rewrite) on a grid and on a small in-memory model of it: every
// output, length and refusal agrees, and after each operation the pages of every rank are conserved and are exactly those that the
// model's sequences need. Seeds are printed; run one again with KVGRID_SEED=n.

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "tests/grid/driver.h"
#include "tests/grid/test_device.h"
#include "tests/grid/thread_grid.h"
#include "worker/token_runs.h"

namespace kvgrid::tests {
namespace {

using worker::StepKind;

constexpr ModelId kModel{1};

struct Scenario {
    GridShape shape;
    ModelSpec spec;
};

Scenario scenario(unsigned seed) {
    static constexpr GridShape kShapes[] = {{1, 1}, {1, 2}, {2, 1}, {2, 2}, {3, 1}, {1, 3}, {1, 5}};
    const GridShape shape = kShapes[seed % std::size(kShapes)];
    ModelSpec spec = make_spec(2, 6, 3, 32, seed % 3 == 0 ? Dtype::bf16 : widest_dtype());
    if (seed % 2 == 1) spec.layers[1] = {.kv_layer = 1, .window = 90, .sinks = 3};
    if (seed % 4 == 2) spec.layers[1].kv_layer = 0;
    if (seed % 7 == 5 && spec.layers[1].kv_layer == 1) spec.layers[0].kv_layer = 1;  // it reads a later layer's KV
    return {shape, validated(spec).value()};
}

class Walk {
  public:
    explicit Walk(unsigned seed)
        : scenario_(scenario(seed)),
          random_(seed),
          grid_(scenario_.shape.workers(), 64 << 20),
          reference_(scenario_.spec) {
        EXPECT_TRUE(grid_.submit(worker::AddModel{kModel, scenario_.spec, scenario_.shape, 0}).status.ok());
    }

    void run(int operations) {
        for (int i = 0; i < operations && !testing::Test::HasFailure(); ++i) {
            SCOPED_TRACE(fmt::format("operation {}", i));
            one();
            ASSERT_EQ(grid_.violation(), "");
            check_pages();
        }
    }

  private:
    int up_to(int n) { return std::uniform_int_distribution<int>(0, n)(random_); }

    SequenceId some_sequence() {
        auto at = reference_.sequences().begin();
        std::advance(at, up_to(static_cast<int>(reference_.sequences().size()) - 1));
        return at->first;
    }

    void one() {
        if (reference_.sequences().empty()) return open();
        switch (up_to(11)) {
            case 0:
                return open();
            case 1:
                return fork();
            case 2:
                return truncate();
            case 3:
                return set_window();
            case 4:
                return close();
            case 5:
                return read();
            case 6:
                return step(/*commit=*/false);
            case 7:
                return rewrite();
            case 8:
                return fork_beginning();
            default:
                return step(/*commit=*/true);
        }
    }

    void open() {
        const SequenceId id{++last_id_};
        const Window window = up_to(3) == 0 ? Window{1 + up_to(150), up_to(2) * 40} : Window{};
        ASSERT_TRUE(grid_.submit(worker::OpenSequence{id, kModel, window}).status.ok());
        reference_.open(id, window);
    }

    void fork() {
        const SequenceId source = some_sequence(), target{++last_id_};
        ASSERT_TRUE(grid_.submit(worker::ForkSequence{source, target}).status.ok());
        reference_.fork(source, target);
    }

    // Refused where the source has a window of its own, or tokens that are gone would be seen again.
    void fork_beginning() {
        const SequenceId source = some_sequence();
        const std::int64_t length = reference_.at(source).length;
        if (length == 0) return;
        const std::int64_t tokens = 1 + up_to(static_cast<int>(length) - 1);
        const SequenceId target{++last_id_};
        const auto result = grid_.submit(worker::ForkSequence{source, target, tokens});
        if (result.status) {
            EXPECT_FALSE(reference_.at(source).window.slides());
            reference_.fork(source, target);
            reference_.truncate(target, tokens);
        } else {
            EXPECT_EQ(result.status.error(), Errc::wrong_state);
            EXPECT_TRUE(has_window(source));
        }
    }

    // Refused exactly where tokens that are gone would be seen again; `gone_` says which those are.
    void truncate() {
        const SequenceId id = some_sequence();
        const std::int64_t length = up_to(static_cast<int>(reference_.at(id).length));
        const auto result = grid_.submit(worker::TruncateSequence{id, length});
        if (result.status) {
            reference_.truncate(id, length);
        } else {
            EXPECT_EQ(result.status.error(), Errc::wrong_state);
            EXPECT_TRUE(has_window(id));
        }
    }

    void set_window() {
        const SequenceId id = some_sequence();
        const Window window{1 + up_to(200), up_to(1) * up_to(70)};
        const auto result = grid_.submit(worker::SetWindow{id, window});
        if (result.status) {
            reference_.at(id).window = window;
        } else {
            EXPECT_EQ(result.status.error(), Errc::wrong_state);
            EXPECT_TRUE(has_window(id));
        }
    }

    void close() {
        const SequenceId id = some_sequence();
        ASSERT_TRUE(grid_.submit(worker::CloseSequence{id}).status.ok());
        reference_.close(id);
    }

    void read() {
        const SequenceId id = some_sequence();
        const auto& sequence = reference_.at(id);
        const std::int64_t first = up_to(static_cast<int>(sequence.length));
        const std::int64_t count = up_to(static_cast<int>(sequence.length - first));
        const int layer = scenario_.spec.kv_layers()[0];
        const auto result = grid_.submit(worker::ReadKv{id, layer, first, count});
        if (!result.status) {
            EXPECT_EQ(result.status.error(), Errc::wrong_state);
            EXPECT_TRUE(has_window(id));
            return;
        }
        const std::size_t row = scenario_.spec.kv_heads * scenario_.spec.head_dim;
        const auto got = to_floats(result.tensors.bytes(), scenario_.spec.dtype);
        EXPECT_TRUE(std::equal(got.begin(), got.begin() + count * row, sequence.k[layer].begin() + first * row));
        EXPECT_TRUE(std::equal(got.begin() + count * row, got.end(), sequence.v[layer].begin() + first * row));
    }

    void rewrite() {
        const SequenceId id = some_sequence();
        auto& sequence = reference_.at(id);
        const std::int64_t first = up_to(static_cast<int>(sequence.length));
        const std::int64_t count = up_to(static_cast<int>(sequence.length - first));
        const auto layers = scenario_.spec.kv_layers();
        const int layer = layers[up_to(static_cast<int>(layers.size()) - 1)];
        const std::size_t row = scenario_.spec.kv_heads * scenario_.spec.head_dim;
        const auto rows = random_rows(random_, 2 * count * row, scenario_.spec.dtype);
        const auto result =
            grid_.submit(worker::RewriteKv{id, layer, first, count}, to_bytes(rows, scenario_.spec.dtype));
        if (!result.status) {
            EXPECT_EQ(result.status.error(), Errc::wrong_state) << result.status.error().to_string();
            EXPECT_TRUE(has_window(id));
            return;
        }
        std::copy_n(rows.begin(), count * row, sequence.k[layer].begin() + first * row);
        std::copy_n(rows.begin() + count * row, count * row, sequence.v[layer].begin() + first * row);
    }

    void step(bool commit) {
        std::vector<worker::StreamTable::Part> parts;
        for (const auto& [id, sequence] : reference_.sequences()) {
            if (up_to(2) == 0 && sequence.length < 700) parts.push_back({id, up_to(2) == 0 ? 1 + up_to(140) : 1});
        }
        if (parts.empty()) return;
        static constexpr StepKind kKinds[] = {StepKind::write, StepKind::iterate, StepKind::attend, StepKind::attend};
        const StepKind kind = kKinds[up_to(3)];
        if (kind == StepKind::attend && scenario_.spec.reads_later_layer(0)) {
            for (auto& part : parts) part.tokens = 1;
        }
        const int layers = commit ? -1 : up_to(scenario_.spec.layer_count());
        EXPECT_EQ(run_step(grid_, reference_, kModel, scenario_.spec, parts, kind, random_, commit, layers), "");
    }

    bool has_window(SequenceId id) { return reference_.at(id).window.slides() || scenario_.spec.layers[1].window > 0; }

    // Pages that hold at least one token that some query at or after the sequence's length could see must be there; pages beyond the
    // length must not. Without windows that is an exact count.
    void check_pages() {
        const auto by_rank = grid_.submit(worker::ReportOccupancy{}).by_rank;
        for (int rank = 0; rank < grid_.rank_count(); ++rank) {
            EXPECT_EQ(by_rank[rank][0].sequences, reference_.sequences().size());
            EXPECT_EQ(by_rank[rank][0].pages.reserved, 0u);
        }
        for (const auto& [id, sequence] : reference_.sequences()) {
            const auto report = grid_.submit(worker::InspectSequence{id}).sequence;
            EXPECT_EQ(report.length, sequence.length);
            if (has_window(id)) continue;
            std::uint64_t pages = 0;
            for (std::uint64_t count : report.pages_by_rank) pages += count;
            const auto streams = scenario_.spec.kv_layers().size() * scenario_.spec.kv_heads;
            EXPECT_EQ(pages, streams * ((sequence.length + kPageTokens - 1) / kPageTokens));
        }
        if (reference_.sequences().empty()) {
            for (const auto& rank : by_rank) EXPECT_EQ(rank[0].pages.free, rank[0].pages.capacity);
        }
    }

    Scenario scenario_;
    std::mt19937 random_;
    ThreadGrid grid_;
    ReferenceCache reference_;
    std::uint64_t last_id_ = 0;
};

TEST(RandomOperations, AgreeWithAModelInMemory) {
    unsigned first = 1, last = 45;
    if (const char* seed = std::getenv("KVGRID_SEED")) first = last = static_cast<unsigned>(std::atoi(seed));
    for (unsigned seed = first; seed <= last; ++seed) {
        SCOPED_TRACE(fmt::format("KVGRID_SEED={}", seed));
        Walk(seed).run(60);
        if (HasFailure()) break;
    }
}

}  // namespace
}  // namespace kvgrid::tests
