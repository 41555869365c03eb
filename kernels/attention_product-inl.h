// C (+)= A * B in registers: the arithmetic of attention, both of scores (A = queries, B = a K block) and of outputs (A
// = softmax weights, B = a V block). Compiled once per instruction set.
//
//              B   [steps][unit, unit]      16- or 32-bit elements, widened as they are loaded
//      A       C
//   [rows]   [rows][unit, unit]             kRows x 2 kUnits accumulators; each element of A is broadcast
//   [steps]
//
// A unit is two vectors of floats. bf16 widens cheapest into even and odd elements; `Source::kSplit` says that the two
// vectors of a unit are those. Scores are put back in order as they are stored; outputs stay split until the whole row
// is done.

#if defined(KVGRID_KERNELS_ATTENTION_PRODUCT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef KVGRID_KERNELS_ATTENTION_PRODUCT_INL_H_
#undef KVGRID_KERNELS_ATTENTION_PRODUCT_INL_H_
#else
#define KVGRID_KERNELS_ATTENTION_PRODUCT_INL_H_
#endif

#include <cstddef>
#include <cstdint>

#include "hwy/highway.h"
#include "kernels/attention_product.h"

HWY_BEFORE_NAMESPACE();
namespace kvgrid::kernels::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

using Floats = hn::ScalableTag<float>;
using Words = hn::RebindToUnsigned<Floats>;
using Vector = hn::Vec<Floats>;

constexpr int kLanes = static_cast<int>(hn::MaxLanes(Floats()));
constexpr int kUnitColumns = 2 * kLanes;
// 32 registers hold 16 to 24 accumulators, 16 hold 8.
#if HWY_TARGET == HWY_AVX3 || HWY_ARCH_ARM_A64
constexpr int kUnitsMax = 2;
#else
constexpr int kUnitsMax = 1;
#endif

struct F32Source {
    static constexpr bool kSplit = false;
    static constexpr int kElementBytes = 4;

    static HWY_INLINE void load(const std::byte* from, Vector& first, Vector& second) {
        const auto* const elements = reinterpret_cast<const float*>(from);
        first = hn::LoadU(Floats(), elements);
        second = hn::LoadU(Floats(), elements + kLanes);
    }
};

struct F16Source {
    static constexpr bool kSplit = false;
    static constexpr int kElementBytes = 2;

    static HWY_INLINE Vector widen(const std::uint16_t* from) {
#if HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX2 || HWY_ARCH_ARM_A64
        const hn::Rebind<hwy::float16_t, Floats> halves;
        return hn::PromoteTo(Floats(), hn::LoadU(halves, reinterpret_cast<const hwy::float16_t*>(from)));
#else
        // Where the instruction set does not convert: the exponent is rebased by an exact multiplication, which also
        // makes subnormals right; infinity and NaN get their exponent afterwards.
        const Words words;
        const auto bits = hn::PromoteTo(words, hn::LoadU(hn::Rebind<std::uint16_t, Words>(), from));
        const auto magnitude = hn::And(bits, hn::Set(words, 0x7fffu));
        const auto sign = hn::ShiftLeft<16>(hn::And(bits, hn::Set(words, 0x8000u)));
        const Vector rebased =
            hn::Mul(hn::BitCast(Floats(), hn::ShiftLeft<13>(magnitude)), hn::Set(Floats(), 0x1p112f));
        const Vector special = hn::BitCast(Floats(), hn::Or(hn::BitCast(words, rebased), hn::Set(words, 0x7f800000u)));
        const auto is_special = hn::Ge(rebased, hn::Set(Floats(), 65536.0f));
        const Vector widened = hn::IfThenElse(is_special, special, rebased);
        return hn::BitCast(Floats(), hn::Or(hn::BitCast(words, widened), sign));
#endif
    }
    static HWY_INLINE void load(const std::byte* from, Vector& first, Vector& second) {
        const auto* const elements = reinterpret_cast<const std::uint16_t*>(from);
        first = widen(elements);
        second = widen(elements + kLanes);
    }
};

struct Bf16Source {
    static constexpr bool kSplit = kLanes > 1;
    static constexpr int kElementBytes = 2;

    static HWY_INLINE void load(const std::byte* from, Vector& first, Vector& second) {
        const Words words;
#if HWY_TARGET == HWY_SCALAR
        const auto* const elements = reinterpret_cast<const std::uint16_t*>(from);
        first = hn::BitCast(Floats(), hn::Set(words, std::uint32_t{elements[0]} << 16));
        second = hn::BitCast(Floats(), hn::Set(words, std::uint32_t{elements[1]} << 16));
#else
        const hn::Repartition<std::uint16_t, Words> halves;
        const auto bits = hn::BitCast(words, hn::LoadU(halves, reinterpret_cast<const std::uint16_t*>(from)));
        first = hn::BitCast(Floats(), hn::ShiftLeft<16>(bits));
        second = hn::BitCast(Floats(), hn::And(bits, hn::Set(words, 0xffff0000u)));
#endif
    }
};

// A unit from or to memory in its natural order.
template <class Source>
HWY_INLINE void store_unit(Vector first, Vector second, float* to) {
    if constexpr (Source::kSplit) {
        hn::StoreInterleaved2(first, second, Floats(), to);
    } else {
        hn::StoreU(first, Floats(), to);
        hn::StoreU(second, Floats(), to + kLanes);
    }
}

// Units [unit, unit + kUnits) of the columns. The last unit of all ends where the columns end, and may overlap the one before it.
template <class Source, int kRows, int kUnits, bool kScores>
HWY_INLINE void multiply_units(const Product& work, int unit) {
    constexpr int kVectors = 2 * kUnits;
    const Floats floats;
    float* const c = work.c + unit * kUnitColumns;

    Vector sums[kRows][kVectors];
#pragma GCC unroll 8
    for (int row = 0; row < kRows; ++row) {
#pragma GCC unroll 8
        for (int vector = 0; vector < kVectors; ++vector) {
            sums[row][vector] =
                kScores ? hn::Zero(floats) : hn::LoadU(floats, c + row * work.c_stride + vector * kLanes);
        }
    }

    const float* a[kRows];
#pragma GCC unroll 8
    for (int row = 0; row < kRows; ++row) a[row] = work.a + row * work.a_stride;
    const auto start_byte = [&](int of_unit) {
        const int column = HWY_MIN(of_unit * kUnitColumns, work.columns - kUnitColumns);
        return static_cast<std::size_t>(column) * Source::kElementBytes;
    };
    const std::byte* b = work.b + start_byte(unit);
    const std::size_t second_unit = start_byte(unit + kUnits - 1) - start_byte(unit);

    const auto add_step = [&](int step) HWY_ATTR {
        Vector columns[kVectors];
        Source::load(b, columns[0], columns[1]);
        if constexpr (kUnits == 2) Source::load(b + second_unit, columns[2], columns[3]);
        b += work.b_stride_bytes;
#pragma GCC unroll 8
        for (int row = 0; row < kRows; ++row) {
            const Vector factor = hn::Set(floats, a[row][step]);
#pragma GCC unroll 8
            for (int vector = 0; vector < kVectors; ++vector) {
                sums[row][vector] = hn::MulAdd(factor, columns[vector], sums[row][vector]);
            }
        }
    };
    constexpr int kStepBytes = kUnits * kUnitColumns * Source::kElementBytes;
    const std::byte* prefetch =
        work.prefetch + static_cast<std::size_t>(unit) * kUnitColumns * Source::kElementBytes * work.steps;
    int step = 0;
    for (; step + 2 <= work.steps; step += 2) {
        add_step(step);
        add_step(step + 1);
#pragma GCC unroll 8
        for (int byte = 0; byte < 2 * kStepBytes; byte += kLineBytes) __builtin_prefetch(prefetch + byte, 0, 2);
        prefetch += 2 * kStepBytes;
    }
    if (step < work.steps) add_step(step);

#pragma GCC unroll 8
    for (int row = 0; row < kRows; ++row) {
        float* const to = c + row * work.c_stride;
#pragma GCC unroll 8
        for (int pair = 0; pair < kUnits; ++pair) {
            if constexpr (kScores) {
                store_unit<Source>(sums[row][2 * pair], sums[row][2 * pair + 1], to + pair * kUnitColumns);
            } else {
                hn::StoreU(sums[row][2 * pair], floats, to + pair * kUnitColumns);
                hn::StoreU(sums[row][2 * pair + 1], floats, to + pair * kUnitColumns + kLanes);
            }
        }
    }
}

template <class Source, int kRows, bool kScores>
HWY_NOINLINE void multiply(const Product& given) {
    const Product work = given;  // what is stored cannot change it: its members stay in registers
    const int unit_count = (work.columns + kUnitColumns - 1) / kUnitColumns;
    int unit = 0;
    for (; unit + kUnitsMax <= unit_count; unit += kUnitsMax) {
        multiply_units<Source, kRows, kUnitsMax, kScores>(work, unit);
    }
    if (unit < unit_count) multiply_units<Source, kRows, 1, kScores>(work, unit);
}

// q as the scores' kernel wants it: one float per element.
template <class Source>
void widen_row(const std::byte* from, int count, float* to) {
    for (int column = 0; column < count; column += kUnitColumns) {
        // The last unit may overlap the one before it: the same elements, written twice.
        const int start = HWY_MIN(column, count - kUnitColumns);
        Vector first, second;
        Source::load(from + static_cast<std::size_t>(start) * Source::kElementBytes, first, second);
        store_unit<Source>(first, second, to + start);
    }
}

// Outputs as they were accumulated: unit by unit, the last one overlapping the one before it.
template <class Source>
void order_row(const float* from, int count, float* to) {
    for (int column = 0; column < count; column += kUnitColumns) {
        const Vector first = hn::LoadU(Floats(), from + column);
        const Vector second = hn::LoadU(Floats(), from + column + kLanes);
        store_unit<Source>(first, second, to + HWY_MIN(column, count - kUnitColumns));
    }
}

template <class Source, bool kScores, int... kRowsMinusOne>
constexpr ProductByRows products(std::integer_sequence<int, kRowsMinusOne...>) {
    return {{multiply<Source, kRowsMinusOne + 1, kScores>...}};
}

template <class Source>
constexpr ProductKernels kernels_of(Dtype dtype) {
    constexpr std::make_integer_sequence<int, kProductRowsMax> rows;
    return {dtype,
            Source::kElementBytes,
            /*elements_per_step=*/1,
            products<Source, true>(rows),
            products<Source, false>(rows),
            widen_row<Source>,
            order_row<Source>};
}

// What exists. A CPU with a dot product of bf16 replaces the scores of the last row (attention_scores_bf16.h).
constexpr ProductKernels kProductKernels[] = {
    kernels_of<F32Source>(Dtype::f32),
    kernels_of<F16Source>(Dtype::f16),
    kernels_of<Bf16Source>(Dtype::bf16),
};

}  // namespace
}  // namespace kvgrid::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
