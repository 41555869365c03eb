// append_on_device, read_pages_on_device and copy_pages_on_device move exactly the bytes that the layout says, for every row size, slot and
// count, and touch no other: pages, k and v are filled with a pattern beforehand and compared whole with what a loop over bytes makes.

#include "kernels/cuda/device_pages.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>
#include <stdexcept>
#include <vector>

#include "kernels/cuda/device_buffer.h"
#include "kernels/cuda/device_page_layout.h"
#include "tests/unit/kernels/test_seed.h"

namespace kvgrid::kernels {
namespace {

using Bytes = std::vector<std::byte>;

Bytes random_bytes(std::size_t count, std::mt19937_64& random) {
    Bytes bytes(count);
    for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
    return bytes;
}

// Tokens of all heads at random slots of pages in random order, each row used once.
struct Batch {
    Batch(int row_size, int head_count, int run_count, std::mt19937_64& random)
        : row_bytes(row_size), kv_heads(head_count), page_bytes(DevicePageLayout{row_size}.page_bytes() + 128) {
        for (int run = 0; run < run_count; ++run) {
            const int slot = static_cast<int>(random() % kPageTokens);
            const int most = kPageTokens - slot;
            const int count = run % 3 == 0 ? most : static_cast<int>(random() % (most + 1));
            for (int head = 0; head < kv_heads; ++head) runs.push_back({0, slot, count, row_count, head});
            row_count += count;
        }
        std::vector<std::uint32_t> pages(runs.size());
        std::iota(pages.begin(), pages.end(), 0u);
        std::shuffle(pages.begin(), pages.end(), random);
        for (std::size_t index = 0; index < pages.size(); ++index) runs[index].page = pages[index];
        slab = random_bytes(page_bytes * pages.size(), random);
        k = random_bytes(std::size_t{1} * row_count * kv_heads * row_bytes, random);
        v = random_bytes(k.size(), random);
    }

    // Calls move(byte of the slab, byte of k or v, whether it is v) for every byte that the runs name.
    template <class Move>
    void for_each_byte(const Move& move) const {
        const DevicePageLayout layout{row_bytes};
        for (const PageRun& run : runs) {
            for (int token = 0; token < run.token_count; ++token) {
                const std::size_t row = static_cast<std::size_t>(run.row + token) * kv_heads + run.head;
                for (int byte = 0; byte < row_bytes; ++byte) {
                    const std::size_t page = run.page * page_bytes, at = row * row_bytes + byte;
                    move(page + layout.k_offset(run.slot + token, byte), at, false);
                    move(page + layout.v_offset(run.slot + token, byte), at, true);
                }
            }
        }
    }

    int row_bytes, kv_heads;
    std::size_t page_bytes;
    int row_count = 0;
    std::vector<PageRun> runs;
    Bytes slab, k, v;
};

DeviceArray<std::byte> upload(const Bytes& bytes) {
    return DeviceArray<std::byte>(std::span<const std::byte>(bytes));
}

class DevicePages : public testing::Test {
  protected:
    std::mt19937_64 random_{test_seed()};
};

TEST_F(DevicePages, AppendWritesTheNamedSlotsAndNothingElse) {
    for (int row_bytes : {64, 80, 128, 192, 256, 400, 512}) {
        const Batch batch(row_bytes, 3, 40, random_);
        Bytes expected = batch.slab;
        batch.for_each_byte([&](std::size_t in_slab, std::size_t at, bool is_v) {
            expected[in_slab] = is_v ? batch.v[at] : batch.k[at];
        });
        const auto slab = upload(batch.slab), k = upload(batch.k), v = upload(batch.v);
        const DeviceArray<PageRun> runs{std::span<const PageRun>(batch.runs)};

        append_on_device({batch.kv_heads,
                          row_bytes,
                          batch.row_count,
                          {slab.span().data, batch.page_bytes},
                          runs.span(),
                          k.span(),
                          v.span()},
                         nullptr);

        EXPECT_EQ(slab.download(), expected) << "row_bytes " << row_bytes;
    }
}

TEST_F(DevicePages, ReadsTheNamedSlotsAndTouchesNothingElse) {
    for (int row_bytes : {64, 192, 256}) {
        Batch batch(row_bytes, 2, 30, random_);
        batch.runs.erase(batch.runs.begin() + 7);  // its rows stay as they are
        Bytes expected_k = batch.k, expected_v = batch.v;
        batch.for_each_byte([&](std::size_t in_slab, std::size_t at, bool is_v) {
            (is_v ? expected_v : expected_k)[at] = batch.slab[in_slab];
        });
        const auto slab = upload(batch.slab), k = upload(batch.k), v = upload(batch.v);
        const DeviceArray<PageRun> runs{std::span<const PageRun>(batch.runs)};

        read_pages_on_device({batch.kv_heads,
                              row_bytes,
                              batch.row_count,
                              {slab.span().data, batch.page_bytes},
                              runs.span(),
                              k.span(),
                              v.span()},
                             nullptr);

        EXPECT_EQ(k.download(), expected_k) << "row_bytes " << row_bytes;
        EXPECT_EQ(v.download(), expected_v) << "row_bytes " << row_bytes;
    }
}

TEST_F(DevicePages, CopiesWholePages) {
    const std::size_t page_bytes = DevicePageLayout{192}.page_bytes();
    const Bytes before = random_bytes(12 * page_bytes, random_);
    const std::vector<PagePair> list = {{0, 7}, {3, 9}, {0, 11}};
    Bytes expected = before;
    for (const PagePair& pair : list) {
        std::copy_n(before.begin() + pair.source * page_bytes, page_bytes, expected.begin() + pair.target * page_bytes);
    }
    const auto slab = upload(before);
    const DeviceArray<PagePair> pairs{std::span<const PagePair>(list)};

    copy_pages_on_device({{slab.span().data, page_bytes}, pairs.span()}, nullptr);

    EXPECT_EQ(slab.download(), expected);
}

// Nothing is launched, so the memory need not be there.
TEST_F(DevicePages, RefusesArgumentsThatBreakARule) {
    auto* const somewhere = reinterpret_cast<std::byte*>(std::uintptr_t{4096});
    const auto refuse = [&](const char* what, auto break_promise) {
        DeviceAppend work{2, 64, 3, {somewhere, 2 * 64 * 64}, {nullptr, 1}, {somewhere, 384}, {somewhere, 384}};
        break_promise(work);
        EXPECT_THROW(append_on_device(work, nullptr), std::invalid_argument) << what;
    };
    refuse("heads", [](DeviceAppend& work) { work.kv_heads = 0; });
    refuse("row_bytes", [](DeviceAppend& work) { work.row_bytes = 40; });
    refuse("k", [](DeviceAppend& work) { work.k.size -= 1; });
    refuse("v", [](DeviceAppend& work) { work.v.size += 1; });
    refuse("rows", [](DeviceAppend& work) { work.row_count = 4; });
    refuse("page_bytes", [](DeviceAppend& work) { work.slab.page_bytes -= 16; });
    refuse("slab", [](DeviceAppend& work) { work.slab.base = nullptr; });
    refuse("alignment", [](DeviceAppend& work) { work.k.data += 8; });
    EXPECT_THROW(copy_pages_on_device({{nullptr, 64}, {nullptr, 1}}, nullptr), std::invalid_argument);
    EXPECT_THROW(copy_pages_on_device({{somewhere, 72}, {nullptr, 1}}, nullptr), std::invalid_argument);
}

}  // namespace
}  // namespace kvgrid::kernels
