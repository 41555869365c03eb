// append_cpu and read_pages_cpu move the same bytes as their references, for every slot, count and alignment, and touch no other:
// pages, k and v are filled with a pattern beforehand and compared whole.

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <stdexcept>
#include <vector>

#include "kernels/append.h"
#include "tests/unit/kernels/test_seed.h"

namespace kvgrid::kernels {
namespace {

struct Shape {
    Dtype dtype;
    int head_dim;
    int kv_heads;
};

constexpr Shape kShapes[] = {
    {Dtype::f32, 32, 3}, {Dtype::f32, 200, 1}, {Dtype::bf16, 40, 2}, {Dtype::f16, 128, 3}, {Dtype::bf16, 36, 1},
};

std::vector<std::byte> random_bytes(std::size_t count, std::mt19937_64& random) {
    std::vector<std::byte> bytes(count);
    for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
    return bytes;
}

// Tokens of all heads at random slots of pages in random order, each row used once.
struct Batch {
    Batch(const Shape& batch_shape, int run_count, std::mt19937_64& random) : shape(batch_shape) {
        for (int run = 0; run < run_count; ++run) {
            const int slot = static_cast<int>(random() % kPageTokens);
            const int most = kPageTokens - slot;
            const int count = run % 3 == 0 ? most : static_cast<int>(random() % (most + 1));
            for (int head = 0; head < shape.kv_heads; ++head) runs.push_back({0, slot, count, row_count, head});
            row_count += count;
        }
        std::vector<std::uint32_t> pages(runs.size());
        for (std::size_t index = 0; index < pages.size(); ++index) pages[index] = static_cast<std::uint32_t>(index);
        std::shuffle(pages.begin(), pages.end(), random);
        for (std::size_t index = 0; index < pages.size(); ++index) runs[index].page = pages[index];

        page_bytes = std::size_t{2} * kPageTokens * shape.head_dim * byte_size(shape.dtype) + 64;
        slab = random_bytes(page_bytes * pages.size(), random);
        const std::size_t bytes = std::size_t{1} * row_count * shape.kv_heads * shape.head_dim * byte_size(shape.dtype);
        k = random_bytes(bytes, random);
        v = random_bytes(bytes, random);
    }

    Append append(std::vector<std::byte>& target) const {
        return {shape.kv_heads, shape.head_dim, shape.dtype, {target.data(), page_bytes}, runs, row_count, k, v};
    }
    ReadPages read(std::vector<std::byte>& target_k, std::vector<std::byte>& target_v) {
        return {shape.kv_heads, shape.head_dim, shape.dtype,         {slab.data(), page_bytes},
                runs,           row_count,      std::span(target_k), std::span(target_v)};
    }

    Shape shape;
    std::vector<PageRun> runs;
    int row_count = 0;
    std::size_t page_bytes = 0;
    std::vector<std::byte> slab, k, v;
};

class AppendCpu : public testing::TestWithParam<int> {
  protected:
    std::mt19937_64 random_{test_seed()};
    ThreadPool threads_{GetParam()};
};
INSTANTIATE_TEST_SUITE_P(Threads, AppendCpu, testing::Values(1, 4));

TEST_P(AppendCpu, WritesWhatTheReferenceWritesAndNothingElse) {
    for (const Shape& shape : kShapes) {
        for (int run_count : {1, 40}) {
            const Batch batch(shape, run_count, random_);
            std::vector<std::byte> expected = batch.slab;
            append_reference(batch.append(expected));
            std::vector<std::byte> slab = batch.slab;

            append_cpu(batch.append(slab), threads_);

            EXPECT_EQ(slab, expected);
        }
    }
}

TEST_P(AppendCpu, ReadsWhatTheReferenceReadsAndNothingElse) {
    for (const Shape& shape : kShapes) {
        Batch batch(shape, 40, random_);
        batch.runs.erase(batch.runs.begin() + 7);  // its rows stay as they are
        std::vector<std::byte> expected_k = batch.k, expected_v = batch.v;
        read_pages_reference(batch.read(expected_k, expected_v));
        std::vector<std::byte> k = batch.k, v = batch.v;

        read_pages_cpu(batch.read(k, v), threads_);

        EXPECT_EQ(k, expected_k);
        EXPECT_EQ(v, expected_v);
    }
}

TEST_P(AppendCpu, ReadsBackWhatItWrote) {
    for (const Shape& shape : kShapes) {
        Batch batch(shape, 40, random_);
        std::vector<std::byte> k(batch.k.size()), v(batch.v.size());

        append_cpu(batch.append(batch.slab), threads_);
        read_pages_cpu(batch.read(k, v), threads_);

        EXPECT_EQ(k, batch.k);
        EXPECT_EQ(v, batch.v);
    }
}

TEST_P(AppendCpu, WritesTokensOneByOneAsAllAtOnce) {
    Batch batch({Dtype::bf16, 64, 2}, 5, random_);
    std::vector<std::byte> expected = batch.slab;
    append_cpu(batch.append(expected), threads_);
    std::vector<std::byte> slab = batch.slab;

    for (const PageRun& run : std::vector<PageRun>(batch.runs)) {
        for (int token = 0; token < run.token_count; ++token) {
            batch.runs = {{run.page, run.slot + token, 1, run.row + token, run.head}};
            append_cpu(batch.append(slab), threads_);
        }
    }

    EXPECT_EQ(slab, expected);
}

// Breaks one promise of a batch of one run of all 64 slots; nothing may be written.
template <class Break>
void refuse(std::mt19937_64& random, ThreadPool& threads, const Break& break_promise) {
    Batch batch({Dtype::f16, 32, 2}, 1, random);
    batch.runs.resize(1);
    batch.runs[0].slot = 0;
    std::vector<std::byte> slab = batch.slab;
    Append work = batch.append(slab);

    break_promise(work, batch.runs[0]);

    EXPECT_THROW(append_cpu(work, threads), std::invalid_argument);
    EXPECT_EQ(slab, batch.slab);
}

TEST_P(AppendCpu, RefusesArgumentsThatBreakARule) {
    const auto refused = [&](auto break_promise) { refuse(random_, threads_, break_promise); };
    refused([](Append& work, PageRun&) { work.k = work.k.first(work.k.size() - 1); });
    refused([](Append& work, PageRun&) { work.v = {}; });
    refused([](Append& work, PageRun&) { work.row_count += 1; });
    refused([](Append& work, PageRun&) { work.head_dim = 0; });
    refused([](Append& work, PageRun&) { work.slab.page_bytes = 2 * 64 * 32 * 2 - 1; });
    refused([](Append& work, PageRun&) { work.slab.base = nullptr; });
    refused([](Append&, PageRun& run) { run.slot = -1; });
    refused([](Append&, PageRun& run) { run.slot = 65 - run.token_count; });
    refused([](Append&, PageRun& run) { run.token_count = -1; });
    refused([](Append&, PageRun& run) { run.row = -1; });
    refused([](Append&, PageRun& run) { run.row = 1; });
    refused([](Append&, PageRun& run) { run.head = 2; });
    refused([](Append&, PageRun& run) { run.head = -1; });
}

}  // namespace
}  // namespace kvgrid::kernels
