// The softmax of a block of scores, online: running maximum and sum per row. Compiled once per instruction set.

#if defined(KVGRID_KERNELS_ATTENTION_SOFTMAX_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef KVGRID_KERNELS_ATTENTION_SOFTMAX_INL_H_
#undef KVGRID_KERNELS_ATTENTION_SOFTMAX_INL_H_
#else
#define KVGRID_KERNELS_ATTENTION_SOFTMAX_INL_H_
#endif

#include <limits>

#include "hwy/contrib/math/math-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace kvgrid::kernels::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

// 2^x for x up to about 0 (a rounding error above it is allowed): relative error 2^-23. Below -125 the result is 0, at
// -inf too; NaN stays NaN. x = n + f with |f| <= 1/2; 2^f is the polynomial through the Chebyshev nodes (2.6e-9), 2^n
// goes to the exponent.
template <class V>
HWY_INLINE V exp2_of(V x) {
    const hn::ScalableTag<float> floats;
    const auto whole = hn::NearestInt(x);
    const V f = hn::Sub(x, hn::ConvertTo(floats, whole));
    V power = hn::Set(floats, 0.0001546144469646172f);
    power = hn::MulAdd(power, f, hn::Set(floats, 0.0013400428177419153f));
    power = hn::MulAdd(power, f, hn::Set(floats, 0.00961805667852609f));
    power = hn::MulAdd(power, f, hn::Set(floats, 0.05550327226670944f));
    power = hn::MulAdd(power, f, hn::Set(floats, 0.24022650922288827f));
    power = hn::MulAdd(power, f, hn::Set(floats, 0.6931472067028321f));
    power = hn::MulAdd(power, f, hn::Set(floats, 1.0f));
    const hn::RebindToSigned<hn::ScalableTag<float>> integers;
    const auto exponent = hn::ShiftLeft<23>(hn::Add(whole, hn::Set(integers, 127)));
    const V result = hn::Mul(power, hn::BitCast(floats, exponent));
    return hn::IfThenZeroElse(hn::Lt(x, hn::Set(floats, -125.0f)), result);
}

HWY_INLINE float exp2_of_one(float x) {
    return hn::GetLane(exp2_of(hn::Set(hn::ScalableTag<float>(), x)));
}

// scores = soft_cap * tanh(scores * scale / soft_cap)
void cap_scores(float* scores, int count, float scale, float soft_cap) {
    const hn::ScalableTag<float> floats;
    const auto inner = hn::Set(floats, scale / soft_cap);
    const auto outer = hn::Set(floats, soft_cap);
    for (int token = 0; token < count; token += static_cast<int>(hn::Lanes(floats))) {
        const auto ratio = hn::Mul(hn::Load(floats, scores + token), inner);
        hn::Store(hn::Mul(hn::Tanh(floats, ratio), outer), floats, scores + token);
    }
}

// One row of a block: makes weights 2^(scores * scale2 - maximum) of the scores, in place, and brings maximum and sum
// up to date. Hidden scores are -inf and weigh exactly 0. Returns the factor for what was accumulated under the old
// maximum.
float update_row(float* scores, int count, float scale2, float& maximum, float& sum) {
    const hn::ScalableTag<float> floats;
    const int lanes = static_cast<int>(hn::Lanes(floats));
    auto highest = hn::Load(floats, scores);
    for (int token = lanes; token < count; token += lanes) {
        highest = hn::Max(highest, hn::Load(floats, scores + token));
    }
    const float block_maximum = hn::GetLane(hn::MaxOfLanes(floats, highest)) * scale2;
    const float before = maximum;
    if (block_maximum > before) maximum = block_maximum;
    // While nothing was visible, any finite number does: all weights are 2^-inf.
    const float origin = maximum == -std::numeric_limits<float>::infinity() ? 0 : maximum;

    const auto scale_vector = hn::Set(floats, scale2);
    const auto origin_vector = hn::Set(floats, origin);
    auto weights = hn::Zero(floats);
    for (int token = 0; token < count; token += lanes) {
        const auto weight = exp2_of(hn::MulSub(hn::Load(floats, scores + token), scale_vector, origin_vector));
        hn::Store(weight, floats, scores + token);
        weights = hn::Add(weights, weight);
    }
    const float factor = before == maximum ? 1 : exp2_of_one(before - origin);
    sum = sum * factor + hn::GetLane(hn::SumOfLanes(floats, weights));
    return factor;
}

void scale_row(float* row, int count, float factor) {
    const hn::ScalableTag<float> floats;
    const auto factors = hn::Set(floats, factor);
    for (int column = 0; column < count; column += static_cast<int>(hn::Lanes(floats))) {
        hn::Store(hn::Mul(hn::Load(floats, row + column), factors), floats, row + column);
    }
}

}  // namespace
}  // namespace kvgrid::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
