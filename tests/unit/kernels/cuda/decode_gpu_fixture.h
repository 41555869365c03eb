#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <initializer_list>
#include <string>

#include "tests/unit/kernels/attention_case.h"
#include "tests/unit/kernels/cuda/decode_on_gpu.h"
#include "tests/unit/kernels/cuda/fp8_reference.h"
#include "tests/unit/kernels/test_seed.h"

namespace kvgrid::kernels {

inline constexpr Dtype kDtypes[] = {Dtype::bf16, Dtype::f16};

// Compares decode() with the fp64 reference, its rounded output with its f32 output, and the device's schedule with the host's.
class DecodeGpu : public testing::Test {
  protected:
    void compare(const TestShape& shape, DecodePath path, std::initializer_list<int> block_counts = {0, 7}) {
        AttentionCase batch(shape, seed_);
        for (int block_count : block_counts) {
            SCOPED_TRACE("blocks " + std::to_string(block_count));
            compare(batch, shape.dtype, path, block_count);
            if (HasFatalFailure()) return;
        }
    }

    void compare(AttentionCase& batch, Dtype dtype, DecodePath path, int block_count = 0) {
        const auto attend = [&](const Attention& work) {
            const DecodeOnGpu::Outcome outcome = DecodeOnGpu::run(work, kv_dtype_, block_count);
            EXPECT_EQ(name_of(outcome.path), std::string(name_of(path)));
            EXPECT_TRUE(outcome.workspace_is_empty);
            expect_rounded(work, outcome.rounded);
            if (path != DecodePath::general) expect_schedules(work, outcome);
        };
        // What pages of fp8 elements hold of it; the reference works with that.
        if (kv_dtype_ == KvDtype::fp8_e4m3) batch.change_blocks(round_through_fp8);
        batch.run_and_compare(attend, weight_roundoff(batch.work(), dtype, path));
    }

    std::uint64_t seed_ = test_seed();
    KvDtype kv_dtype_ = KvDtype::as_model;

  private:
    // Weights are rounded to the type in which they meet V: that of q, or f16 in decodes over fp8. The general way sums in another order, and
    // rounds no weights.
    double weight_roundoff(const Attention& work, Dtype dtype, DecodePath path) const {
        if (path == DecodePath::general) return 0;
        const bool has_chunks = DecodeHostBatch(work).chunk_count > 0;
        return unit_roundoff(kv_dtype_ == KvDtype::fp8_e4m3 && !has_chunks ? Dtype::f16 : dtype);
    }

    // The output in the dtype is the f32 output rounded, also where both are poison.
    static void expect_rounded(const Attention& work, const std::vector<std::byte>& rounded) {
        for (std::size_t index = 0; index < work.partial.size(); ++index) {
            const float wide = load_element(rounded.data(), index, work.dtype);
            if (std::isnan(work.partial[index])) {
                ASSERT_TRUE(std::isnan(wide));
                continue;
            }
            std::byte expected[4];
            store_element(expected, 0, work.dtype, work.partial[index]);
            ASSERT_EQ(wide, load_element(expected, 0, work.dtype)) << "element " << index;
        }
    }

    static void expect_schedules(const Attention& work, const DecodeOnGpu::Outcome& outcome) {
        const DecodeHostBatch batch(work);
        if (batch.chunk_count > 0) expect_same(plan_prefill(batch.chunks(outcome.block_count)), outcome.chunks);
        if (batch.decodes().items.empty()) return;
        const DecodeSchedule expected = plan_decode(batch.decodes(), outcome.block_count);
        expect_same(expected.units, outcome.schedule.units);
        expect_same(expected.blocks, outcome.schedule.blocks);
    }

    template <class T>
    static void expect_same(const std::vector<T>& expected, const std::vector<T>& made) {
        ASSERT_EQ(expected.size(), made.size());
        EXPECT_EQ(std::memcmp(expected.data(), made.data(), expected.size() * sizeof(T)), 0);
    }
};

}  // namespace kvgrid::kernels
