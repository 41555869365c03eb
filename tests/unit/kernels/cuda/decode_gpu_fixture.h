#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <random>
#include <string>
#include <vector>

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
        compare(batch, shape.dtype, path, block_counts, {0, 1, 3, 8});
    }

    // Cut into ranges over so many blocks; and into clusters of so many, 0: small blocks, where that can be.
    void compare(AttentionCase& batch, Dtype dtype, DecodePath path, std::initializer_list<int> block_counts = {0},
                 std::initializer_list<int> clusters = {0, 4}) {
        // What pages of fp8 elements hold of it; the reference works with that.
        if (kv_dtype_ == KvDtype::fp8_e4m3) batch.change_blocks(round_through_fp8);
        std::vector<DecodeOnGpu::Cut> cuts;
        for (int block_count : block_counts) cuts.push_back({.block_count = block_count});
        const DecodeHostBatch on_host(batch.work());
        const bool has_decodes = on_host.decodes().unit_count() > 0;
        if (path != DecodePath::general && has_decodes && on_host.shape.unit_rows() <= kRowsMaxOfOwnBlocks) {
            for (int parts : clusters) {
                const bool are_small = parts == 0;
                cuts.push_back({.units = {are_small ? UnitCut::Kind::small_blocks : UnitCut::Kind::clusters,
                                          are_small ? 1 : parts}});
            }
        }
        if (tries_one_cut()) cuts = {cuts[random_() % cuts.size()]};
        for (const DecodeOnGpu::Cut& cut : cuts) {
            SCOPED_TRACE("blocks " + std::to_string(cut.block_count) + ", clusters of " +
                         std::to_string(cut.units.parts));
            compare_cut(batch, dtype, path, cut);
            if (HasFatalFailure()) return;
        }
    }

    std::uint64_t seed_ = test_seed();
    KvDtype kv_dtype_ = KvDtype::as_model;
    std::mt19937_64 random_{seed_};

  private:
    // Of each batch any one: where a tool makes kernels slow, and many batches make up for it.
    static bool tries_one_cut() { return std::getenv("KVGRID_ONE_CUT") != nullptr; }

    void compare_cut(AttentionCase& batch, Dtype dtype, DecodePath path, const DecodeOnGpu::Cut& cut) {
        const auto attend = [&](const Attention& work) {
            const DecodeOnGpu::Outcome outcome = DecodeOnGpu::run(work, kv_dtype_, cut);
            EXPECT_EQ(name_of(outcome.path), std::string(name_of(path)));
            EXPECT_TRUE(outcome.workspace_is_empty);
            expect_rounded(work, outcome.rounded);
            expect_joined(work, outcome);
            if (path != DecodePath::general) expect_schedules(work, outcome, cut);
        };
        batch.run_and_compare(attend, weight_roundoff(batch.work(), dtype, path));
    }

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

    // Two equal parts are one of them, to the bit; and two head parts stand beside one another.
    static void expect_joined(const Attention& work, const DecodeOnGpu::Outcome& outcome) {
        EXPECT_TRUE(outcome.joined.empty() || outcome.joined == outcome.rounded);
        if (outcome.joined_heads.empty()) return;
        const std::size_t part_bytes = outcome.rounded.size() / work.row_count;
        ASSERT_EQ(outcome.joined_heads.size(), 2 * outcome.rounded.size());
        for (int row = 0; row < work.row_count; ++row) {
            const std::byte* const expected = outcome.rounded.data() + row * part_bytes;
            for (int part : {0, 1}) {
                const std::byte* const made = outcome.joined_heads.data() + (2 * row + part) * part_bytes;
                ASSERT_EQ(std::memcmp(made, expected, part_bytes), 0) << "row " << row << ", head part " << part;
            }
        }
    }

    static void expect_schedules(const Attention& work, const DecodeOnGpu::Outcome& outcome,
                                 const DecodeOnGpu::Cut& cut) {
        DecodeHostBatch batch(work);
        batch.shape.cut = cut.units;
        if (batch.chunk_count > 0)
            expect_same(plan_prefill(batch.chunks(outcome.multiprocessor_count)), outcome.chunks);
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
