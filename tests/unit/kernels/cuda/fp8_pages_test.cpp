// append_fp8_on_device leaves the slab, bit for bit, as the reference does: elements, scales, and every byte that is nobody's, which are
// random beforehand. The reference works number by number, by searching the nearest of all e4m3 numbers. What is read back is the element
// times the scale, exactly in bf16.

#include "kernels/cuda/fp8_pages.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <numeric>
#include <random>
#include <stdexcept>
#include <vector>

#include "kernels/cuda/device_buffer.h"
#include "tests/unit/kernels/cuda/fp8_reference.h"
#include "tests/unit/kernels/test_seed.h"

namespace kvgrid::kernels {
namespace {

using Bytes = std::vector<std::byte>;
using Draw = std::function<float(int token)>;  // an element of the token that is appended as the token-th

constexpr Dtype kDtypes[] = {Dtype::bf16, Dtype::f16};

DeviceArray<std::byte> upload(const Bytes& bytes) {
    return DeviceArray<std::byte>(std::span<const std::byte>(bytes));
}

class Fp8Pages : public testing::Test {
  protected:
    // One page for each of `head_count` heads, all of which get the same numbers of tokens.
    struct Pages {
        Pages(Dtype element_dtype, int dims, int head_count, std::mt19937_64& random)
            : dtype(element_dtype),
              head_dim(dims),
              kv_heads(head_count),
              layout(DevicePageLayout::of(dims, Dtype::bf16, KvDtype::fp8_e4m3)),
              page_bytes(layout.page_bytes() + 128),
              order(head_count),
              expected(head_count * page_bytes) {
            std::iota(order.begin(), order.end(), 0u);
            std::shuffle(order.begin(), order.end(), random);
            for (std::byte& byte : expected) byte = static_cast<std::byte>(random());
            slab = upload(expected);
        }

        void append(int slot, int token_count, const Draw& draw) {
            const int row_count = token_count + 2;  // one before and one behind that no run names
            const std::size_t elements = std::size_t{1} * row_count * kv_heads * head_dim;
            k = Bytes(2 * elements);
            v = Bytes(2 * elements);
            for (std::size_t index = 0; index < elements; ++index) {
                const int token = slot + static_cast<int>(index / (kv_heads * head_dim)) - 1;
                store_element(k.data(), index, dtype, draw(token));
                store_element(v.data(), index, dtype, draw(token));
            }
            runs.clear();
            for (int head = 0; head < kv_heads; ++head) runs.push_back({order[head], slot, token_count, 1, head});
            const auto k_there = upload(k), v_there = upload(v);
            const DeviceArray<PageRun> runs_there{std::span<const PageRun>(runs)};
            append_fp8_on_device({kv_heads,
                                  head_dim,
                                  dtype,
                                  row_count,
                                  {slab.span().data, page_bytes},
                                  runs_there.span(),
                                  k_there.span(),
                                  v_there.span()},
                                 nullptr);
            for (const PageRun& run : runs) {
                append_by_reference(run, k, false);
                append_by_reference(run, v, true);
            }
        }

        std::byte* page(std::uint32_t index) { return expected.data() + index * page_bytes; }
        PageScales scales(std::uint32_t index) {
            PageScales scales;
            std::memcpy(&scales, page(index) + layout.trailer_offset(), sizeof scales);
            return scales;
        }

        Dtype dtype;
        int head_dim, kv_heads;
        DevicePageLayout layout;
        std::size_t page_bytes;
        std::vector<std::uint32_t> order;
        Bytes expected, k, v;
        std::vector<PageRun> runs;
        DeviceArray<std::byte> slab;

      private:
        void append_by_reference(const PageRun& run, const Bytes& from, bool is_v) {
            std::vector<float> rows;
            for (int token = 0; token < run.token_count; ++token) {
                for (int dim = 0; dim < head_dim; ++dim) {
                    const std::size_t row = static_cast<std::size_t>(run.row + token) * kv_heads + run.head;
                    rows.push_back(load_element(from.data(), row * head_dim + dim, dtype));
                }
            }
            std::byte* const scale_bytes = page(run.page) + layout.trailer_offset() + (is_v ? sizeof(float) : 0);
            float scale;
            std::memcpy(&scale, scale_bytes, sizeof scale);
            const std::span block(page(run.page) + (is_v ? layout.block_bytes() : 0), layout.block_bytes());
            append_reference({head_dim, block, &scale}, run.slot, rows);
            std::memcpy(scale_bytes, &scale, sizeof scale);
        }
    };

    float normal() { return std::normal_distribution<float>(0, 1)(random_); }
    // Of any magnitude that the dtype has, subnormal ones included.
    float any(Dtype dtype) {
        const int lowest = dtype == Dtype::f16 ? -25 : -134, highest = dtype == Dtype::f16 ? 15 : 127;
        const int exponent = lowest + static_cast<int>(random_() % (highest - lowest + 1));
        const float mantissa = 1 + static_cast<float>(random_() % 256) / 256;
        return std::ldexp(random_() % 2 == 0 ? mantissa : -mantissa, exponent);
    }

    std::mt19937_64 random_{test_seed()};
};

TEST_F(Fp8Pages, HoldWhatTheReferenceQuantises) {
    for (Dtype dtype : kDtypes) {
        for (int head_dim : {8, 40, 64, 80, 96, 128, 200, 256}) {
            Pages pages(dtype, head_dim, 3, random_);
            pages.append(0, 1 + static_cast<int>(random_() % 30), [&](int) { return normal(); });
            pages.append(40, 24, [&](int) { return normal(); });
            EXPECT_EQ(pages.slab.download(), pages.expected) << name_of(dtype) << " head_dim " << head_dim;
            pages.append(0, 64, [&](int) { return 100 * normal(); });
            EXPECT_EQ(pages.slab.download(), pages.expected) << name_of(dtype) << " head_dim " << head_dim;
        }
    }
}

TEST_F(Fp8Pages, HoldNumbersOfAnyMagnitude) {
    for (Dtype dtype : kDtypes) {
        Pages pages(dtype, 64, 4, random_);
        for (int turn = 0; turn < 6; ++turn) {
            for (int slot = 0; slot < kPageTokens;) {
                const int count = std::min(kPageTokens - slot, 1 + static_cast<int>(random_() % 20));
                pages.append(slot, count, [&](int) { return any(dtype); });
                slot += count;
            }
            EXPECT_EQ(pages.slab.download(), pages.expected) << name_of(dtype);
        }
    }
}

// Every token is larger than those before it, by steps from much less than a power of two to many of them.
TEST_F(Fp8Pages, RoundTheTokensThatAreThereWhenTheScaleGrows) {
    for (double step : {1.01, 1.4, 2.0, 17.0}) {
        Pages pages(Dtype::bf16, 96, 2, random_);
        for (int token = 0; token < kPageTokens; ++token) {
            const double size = 1e-8 * std::pow(step, token);
            pages.append(token, 1, [&](int) { return static_cast<float>(size * normal()); });
            EXPECT_EQ(pages.slab.download(), pages.expected) << "step " << step << " token " << token;
        }
        EXPECT_EQ(pages.slab.download(), pages.expected) << "step " << step;
    }
}

TEST_F(Fp8Pages, KeepTheScaleWhereNewTokensFit) {
    Pages pages(Dtype::bf16, 128, 1, random_);
    pages.append(0, 1, [](int) { return 450.0f; });
    const float scale = pages.scales(0).k;
    EXPECT_EQ(scale, 2.0f);
    pages.append(1, 1, [](int) { return 896.0f; });
    pages.append(2, 1, [](int) { return 1.0f; });
    EXPECT_EQ(pages.scales(0).k, scale);
    pages.append(3, 1, [](int) { return 900.0f; });
    EXPECT_EQ(pages.scales(0).k, 4.0f);
    EXPECT_EQ(pages.slab.download(), pages.expected);
}

TEST_F(Fp8Pages, BeginAnewAtSlotZero) {
    Pages pages(Dtype::f16, 128, 2, random_);
    pages.append(0, 64, [](int) { return 60000.0f; });
    pages.append(0, 3, [&](int) { return 1e-3f * normal(); });
    EXPECT_EQ(pages.slab.download(), pages.expected);
    EXPECT_LT(pages.scales(0).v, 1e-4f);
}

TEST_F(Fp8Pages, HaveAScaleWhereAllIsZero) {
    for (Dtype dtype : kDtypes) {
        Pages pages(dtype, 64, 2, random_);
        pages.append(0, 5, [&](int token) { return token % 2 == 0 ? 0.0f : -0.0f; });
        EXPECT_EQ(pages.scales(0).k, 0x1p-40f);
        EXPECT_EQ(pages.slab.download(), pages.expected);
        pages.append(5, 5, [&](int) { return normal(); });
        EXPECT_EQ(pages.slab.download(), pages.expected);
    }
}

TEST_F(Fp8Pages, ShowNaNAndInfinityAsNaNAndScaleTheRest) {
    constexpr float kInfinity = std::numeric_limits<float>::infinity();
    const float odd[] = {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::quiet_NaN(), kInfinity,
                         -kInfinity};
    for (Dtype dtype : kDtypes) {
        Pages pages(dtype, 64, 2, random_);
        const auto draw = [&](int) { return random_() % 8 == 0 ? odd[random_() % 4] : normal(); };
        pages.append(0, 7, draw);
        EXPECT_EQ(pages.slab.download(), pages.expected) << name_of(dtype);
        EXPECT_LE(pages.scales(0).k, 0x1p-5f);
        pages.append(7, 7, [&](int token) { return 1000 * draw(token); });  // rounds what is there
        EXPECT_EQ(pages.slab.download(), pages.expected) << name_of(dtype);
        pages.append(14, 1, [&](int) { return kInfinity; });
        EXPECT_EQ(pages.slab.download(), pages.expected) << name_of(dtype);
    }
}

TEST_F(Fp8Pages, ReadBackTheElementTimesTheScale) {
    for (Dtype dtype : kDtypes) {
        for (int head_dim : {40, 96, 128, 256}) {
            Pages pages(dtype, head_dim, 3, random_);
            pages.append(0, 64, [&](int) { return dtype == Dtype::f16 ? normal() : any(dtype) * 0x1p-90f; });
            const std::vector<PageRun> list = {{pages.order[2], 5, 59, 1, 2}, {pages.order[0], 63, 1, 0, 0}};
            const DeviceArray<PageRun> runs{std::span<const PageRun>(list)};
            Bytes expected(std::size_t{2} * 60 * 3 * head_dim, std::byte{0x55});
            const auto k = upload(expected), v = upload(expected);

            read_fp8_pages_on_device(
                {3, head_dim, dtype, 60, {pages.slab.span().data, pages.page_bytes}, runs.span(), k.span(), v.span()},
                nullptr);

            for (bool is_v : {false, true}) {
                for (const PageRun& run : list) {
                    const PageScales scales = pages.scales(run.page);
                    for (int token = 0; token < run.token_count; ++token) {
                        for (int dim = 0; dim < head_dim; ++dim) {
                            const std::size_t offset = is_v ? pages.layout.v_offset(run.slot + token, dim)
                                                            : pages.layout.k_offset(run.slot + token, dim);
                            const double value =
                                double_from_e4m3(pages.page(run.page)[offset]) * (is_v ? scales.v : scales.k);
                            const std::size_t at = (std::size_t(run.row + token) * 3 + run.head) * head_dim + dim;
                            store_element(expected.data(), at, dtype, static_cast<float>(value));
                            if (dtype == Dtype::f16) continue;
                            ASSERT_EQ(load_element(expected.data(), at, dtype), value);
                        }
                    }
                }
                EXPECT_EQ((is_v ? v : k).download(), expected) << name_of(dtype) << " head_dim " << head_dim;
            }
        }
    }
}

// Nothing is launched, so the memory need not be there.
TEST_F(Fp8Pages, RefuseArgumentsThatBreakARule) {
    auto* const somewhere = reinterpret_cast<std::byte*>(std::uintptr_t{4096});
    const auto refuse = [&](const char* what, auto break_promise) {
        DeviceFp8Append work{
            2, 32, Dtype::bf16, 3, {somewhere, 2 * 64 * 32 + 128}, {nullptr, 1}, {somewhere, 384}, {somewhere, 384}};
        break_promise(work);
        EXPECT_THROW(append_fp8_on_device(work, nullptr), std::invalid_argument) << what;
    };
    refuse("heads", [](DeviceFp8Append& work) { work.kv_heads = 0; });
    refuse("head_dim", [](DeviceFp8Append& work) { work.head_dim = 36; });
    refuse("dtype", [](DeviceFp8Append& work) { work.dtype = Dtype::f32; });
    refuse("k", [](DeviceFp8Append& work) { work.k.size -= 1; });
    refuse("v", [](DeviceFp8Append& work) { work.v.size += 1; });
    refuse("page_bytes", [](DeviceFp8Append& work) { work.slab.page_bytes -= 128; });
    refuse("slab", [](DeviceFp8Append& work) { work.slab.base = nullptr; });
    refuse("alignment", [](DeviceFp8Append& work) { work.k.data += 8; });
}

}  // namespace
}  // namespace kvgrid::kernels
