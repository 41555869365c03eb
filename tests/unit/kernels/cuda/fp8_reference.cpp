#include "tests/unit/kernels/cuda/fp8_reference.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace kvgrid::kernels {

namespace {

constexpr std::byte kNaN{0x7f};

DevicePageLayout layout_of(int head_dim) {
    return DevicePageLayout::of(head_dim, Dtype::bf16, KvDtype::fp8_e4m3);
}

// In the order of their bits, which is theirs.
std::vector<double> all_magnitudes() {
    std::vector<double> magnitudes;
    for (int bits = 0; bits < 0x7f; ++bits) magnitudes.push_back(double_from_e4m3(std::byte(bits)));
    return magnitudes;
}

void change_scale(const Fp8BlockReference& target, int slot, double scale) {
    const DevicePageLayout layout = layout_of(target.head_dim);
    for (int token = 0; token < slot; ++token) {
        for (int byte = 0; byte < layout.row_bytes; ++byte) {
            std::byte& element = target.block[layout.offset(token, byte)];
            element = e4m3_from_double(double_from_e4m3(element) * *target.scale / scale);
        }
    }
    *target.scale = static_cast<float>(scale);
}

}  // namespace

double double_from_e4m3(std::byte element) {
    const int bits = std::to_integer<int>(element);
    const int exponent = bits >> 3 & 15, mantissa = bits & 7;
    if (exponent == 15 && mantissa == 7) return std::numeric_limits<double>::quiet_NaN();
    const double magnitude = exponent == 0 ? std::ldexp(mantissa, -9) : std::ldexp(8 + mantissa, exponent - 10);
    return (bits & 0x80) != 0 ? -magnitude : magnitude;
}

std::byte e4m3_from_double(double value) {
    static const std::vector<double> kMagnitudes = all_magnitudes();
    if (!(std::abs(value) <= 448)) return kNaN;
    const auto above = std::lower_bound(kMagnitudes.begin(), kMagnitudes.end(), std::abs(value));
    int bits = static_cast<int>(above - kMagnitudes.begin());
    if (bits > 0) {
        const double up = kMagnitudes[bits] - std::abs(value), down = std::abs(value) - kMagnitudes[bits - 1];
        if (down < up || (down == up && bits % 2 != 0)) --bits;
    }
    return std::byte(bits | (std::signbit(value) ? 0x80 : 0));
}

double scale_reference(std::span<const float> rows) {
    double scale = std::ldexp(1, -40);
    for (float value : rows) {
        while (std::isfinite(value) && std::abs(value) / scale > 448 && scale < std::ldexp(1, 40)) scale *= 2;
    }
    return scale;
}

void append_reference(const Fp8BlockReference& target, int slot, std::span<const float> rows) {
    const double needed = scale_reference(rows);
    if (slot == 0) {
        *target.scale = static_cast<float>(needed);
    } else if (needed > *target.scale) {
        change_scale(target, slot, needed);
    }
    const DevicePageLayout layout = layout_of(target.head_dim);
    for (std::size_t index = 0; index < rows.size(); ++index) {
        const int token = slot + static_cast<int>(index / target.head_dim);
        const int dim = static_cast<int>(index % target.head_dim);
        target.block[layout.offset(token, dim)] = e4m3_from_double(rows[index] / double{*target.scale});
    }
}

void round_through_fp8(std::span<float> rows) {
    const double scale = scale_reference(rows);
    for (float& value : rows) value = static_cast<float>(double_from_e4m3(e4m3_from_double(value / scale)) * scale);
}

}  // namespace kvgrid::kernels
