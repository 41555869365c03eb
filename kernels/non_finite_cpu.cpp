#include <cstdint>
#include <stdexcept>
#include <string>

#include "kernels/non_finite.h"
#include "kernels/simd_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/non_finite_cpu.cpp"
#include "hwy/foreach_target.h"
// Highway wants its own headers after foreach_target.h.
#include "hwy/highway.h"

// An element is not finite exactly if all bits of its exponent are set. A block of vectors is looked at as a whole; only where it has
// such an element, or is no whole block, it is looked at one by one.

HWY_BEFORE_NAMESPACE();
namespace kvgrid::kernels::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

template <class Word>
std::size_t first_with_all_of(const Word* words, std::size_t count, Word exponent) {
    const hn::ScalableTag<Word> tag;
    const std::size_t lanes = hn::Lanes(tag);
    const auto mask = hn::Set(tag, exponent);
    const auto hit = [&](std::size_t at) { return hn::Eq(hn::And(hn::LoadU(tag, words + at), mask), mask); };
    std::size_t at = 0;
    for (; at + 4 * lanes <= count; at += 4 * lanes) {
        const auto low = hn::Or(hit(at), hit(at + lanes));
        const auto high = hn::Or(hit(at + 2 * lanes), hit(at + 3 * lanes));
        if (!hn::AllFalse(tag, hn::Or(low, high))) break;
    }
    for (; at < count; ++at) {
        if ((words[at] & exponent) == exponent) return at;
    }
    return count;
}

std::size_t first_non_finite_on_target(std::span<const std::byte> values, Dtype dtype) {
    const std::size_t count = values.size() / byte_size(dtype);
    if (dtype == Dtype::f32) {
        return first_with_all_of(reinterpret_cast<const std::uint32_t*>(values.data()), count, 0x7f800000u);
    }
    const auto exponent = static_cast<std::uint16_t>(dtype == Dtype::bf16 ? 0x7f80 : 0x7c00);
    return first_with_all_of(reinterpret_cast<const std::uint16_t*>(values.data()), count, exponent);
}

}  // namespace
}  // namespace kvgrid::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvgrid::kernels {

namespace {

HWY_EXPORT(first_non_finite_on_target);

}  // namespace

std::optional<std::size_t> first_non_finite_cpu(std::span<const std::byte> values, Dtype dtype) {
    const std::size_t size = byte_size(dtype);
    if (values.size() % size != 0 || reinterpret_cast<std::uintptr_t>(values.data()) % size != 0) {
        throw std::invalid_argument("first_non_finite: " + std::to_string(values.size()) +
                                    " bytes are no whole and aligned elements of " + name_of(dtype));
    }
    const std::size_t first = HWY_DYNAMIC_DISPATCH(first_non_finite_on_target)(values, dtype);
    if (first == values.size() / size) return std::nullopt;
    return first;
}

}  // namespace kvgrid::kernels
#endif
