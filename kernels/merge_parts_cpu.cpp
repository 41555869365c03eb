#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "kernels/merge_parts.h"
#include "kernels/merge_parts_check.h"
#include "kernels/simd_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/merge_parts_cpu.cpp"
#include "hwy/foreach_target.h"
// Highway wants its own headers after foreach_target.h.
#include "hwy/highway.h"

// One pass over the elements of a row, chunk by chunk: a chunk's sum over the parts stays in registers until it is
// rounded. The roundings are written out in integers, because Highway's own differ between instruction sets and
// versions.

#ifndef KVGRID_KERNELS_MERGE_PARTS_ONCE_
#define KVGRID_KERNELS_MERGE_PARTS_ONCE_
namespace kvgrid::kernels {
namespace {

// One row of every part; a row of merged.
struct RowSum {
    const float* partial;  // of part 0
    std::size_t part_stride;
    const float* weights;
    int part_count;
    int head_dim;
    Dtype dtype;
};

}  // namespace
}  // namespace kvgrid::kernels
#endif

HWY_BEFORE_NAMESPACE();
namespace kvgrid::kernels::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;
using Floats = hn::ScalableTag<float>;
using Words = hn::RebindToUnsigned<Floats>;

// f32 bits to bf16 bits, to nearest even; NaN stays NaN.
template <class V>
HWY_INLINE V bf16_bits(V bits) {
    const Words words;
    const V odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(words, 1u));
    const V rounded = hn::ShiftRight<16>(hn::Add(hn::Add(bits, hn::Set(words, 0x7fffu)), odd));
    const V quiet = hn::Or(hn::ShiftRight<16>(bits), hn::Set(words, 0x40u));
    const auto is_nan = hn::Gt(hn::And(bits, hn::Set(words, 0x7fffffffu)), hn::Set(words, 0x7f800000u));
    return hn::IfThenElse(is_nan, quiet, rounded);
}

// f32 bits to f16 bits, to nearest even. Below 2^-14 an addition of 1/2 makes the FPU round at the place of the last
// subnormal bit.
template <class V>
HWY_INLINE V f16_bits(V bits) {
    const Words words;
    const Floats floats;
    const V magnitude = hn::And(bits, hn::Set(words, 0x7fffffffu));
    const V sign = hn::ShiftRight<16>(hn::Xor(bits, magnitude));
    const V odd = hn::And(hn::ShiftRight<13>(magnitude), hn::Set(words, 1u));
    const V rebased = hn::Sub(magnitude, hn::Set(words, 112u << 23));
    const V normal = hn::ShiftRight<13>(hn::Add(hn::Add(rebased, hn::Set(words, 0xfffu)), odd));
    const auto half = hn::Set(floats, 0.5f);
    const V subnormal = hn::Sub(hn::BitCast(words, hn::Add(hn::BitCast(floats, magnitude), half)),
                                hn::Set(words, std::bit_cast<std::uint32_t>(0.5f)));
    V result = hn::IfThenElse(hn::Lt(magnitude, hn::Set(words, 0x38800000u)), subnormal, normal);
    result = hn::IfThenElse(hn::Lt(magnitude, hn::Set(words, 0x477ff000u)), result, hn::Set(words, 0x7c00u));
    result = hn::IfThenElse(hn::Gt(magnitude, hn::Set(words, 0x7f800000u)), hn::Set(words, 0x7e00u), result);
    return hn::Or(result, sign);
}

template <class V>
HWY_INLINE void store_rounded(V values, Dtype dtype, std::byte* to) {
    const hn::Rebind<std::uint16_t, Floats> halves;
    if (dtype == Dtype::f32) {
        hn::StoreU(values, Floats(), reinterpret_cast<float*>(to));
        return;
    }
    const auto bits = hn::BitCast(Words(), values);
    const auto narrow = dtype == Dtype::bf16 ? bf16_bits(bits) : f16_bits(bits);
    const hn::RebindToSigned<Words> integers;
    hn::StoreU(hn::DemoteTo(halves, hn::BitCast(integers, narrow)), halves, reinterpret_cast<std::uint16_t*>(to));
}

HWY_INLINE auto weighted_sum(const RowSum& row, int dim) {
    const Floats floats;
    auto sum = hn::Zero(floats);
    for (int part = 0; part < row.part_count; ++part) {
        // Skipped, not multiplied by 0: the partial of a part without tokens may be anything.
        if (row.weights[part] == 0) continue;
        const auto values = hn::LoadU(floats, row.partial + part * row.part_stride + dim);
        sum = hn::MulAdd(values, hn::Set(floats, row.weights[part]), sum);
    }
    return sum;
}

float weighted_element(const RowSum& row, int dim) {
    float sum = 0;
    for (int part = 0; part < row.part_count; ++part) {
        if (row.weights[part] != 0) sum += row.partial[part * row.part_stride + dim] * row.weights[part];
    }
    return sum;
}

void merge_row_on_target(const RowSum& row, std::byte* merged) {
    const int lanes = static_cast<int>(hn::Lanes(Floats()));
    const std::size_t size = byte_size(row.dtype);
    if (row.head_dim < lanes) {
        for (int dim = 0; dim < row.head_dim; ++dim) store_element(merged, dim, row.dtype, weighted_element(row, dim));
        return;
    }
    for (int dim = 0; dim < row.head_dim; dim += lanes) {
        // The last vector may overlap the one before it: the same elements, written twice.
        const int start = std::min(dim, row.head_dim - lanes);
        store_rounded(weighted_sum(row, start), row.dtype, merged + start * size);
    }
}

}  // namespace
}  // namespace kvgrid::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvgrid::kernels {

namespace {

HWY_EXPORT(merge_row_on_target);

// exp(lse - max lse), normalised; exactly 0 for a part without tokens, and for all parts of a row without any.
void weigh_parts(const MergeParts& work, std::size_t row, std::vector<float>& weights) {
    constexpr float kNothing = -std::numeric_limits<float>::infinity();
    float lse_max = kNothing;
    for (int part = 0; part < work.part_count; ++part)
        lse_max = std::max(lse_max, work.lse[part * work.part_stride + row]);
    float sum = 0;
    for (int part = 0; part < work.part_count; ++part) {
        const float lse = work.lse[part * work.part_stride + row];
        weights[part] = lse == kNothing ? 0 : std::exp(lse - lse_max);
        sum += weights[part];
    }
    if (sum == 0) return;
    for (float& weight : weights) weight /= sum;
}

}  // namespace

void merge_parts_cpu(const MergeParts& work) {
    check_parts(work);
    check_merged(work);
    const std::size_t row_bytes = work.head_dim * byte_size(work.merged_dtype);
    std::vector<float> weights(work.part_count);
    for (int token = 0; token < work.token_count; ++token) {
        for (int head = 0; head < work.head_count; ++head) {
            const std::size_t row = static_cast<std::size_t>(token) * work.head_count + head;
            const std::size_t target = static_cast<std::size_t>(token) * work.merged_heads + work.first_head + head;
            weigh_parts(work, row, weights);
            HWY_DYNAMIC_DISPATCH(merge_row_on_target)
            ({work.partial.data() + row * work.head_dim, work.part_stride, weights.data(), work.part_count,
              work.head_dim, work.merged_dtype},
             work.merged.data() + target * row_bytes);
        }
    }
}

}  // namespace kvgrid::kernels
#endif
