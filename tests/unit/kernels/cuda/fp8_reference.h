#pragma once

#include <cstddef>
#include <span>

#include "kernels/cuda/device_page_layout.h"

namespace kvgrid::kernels {

// What kernels/cuda/fp8_rules.h asks for, slow and obvious.

double double_from_e4m3(std::byte element);
// The nearest e4m3 number, even if two are as near.
std::byte e4m3_from_double(double value);
// The smallest allowed scale that brings every finite value of `rows` to 448 or less.
double scale_reference(std::span<const float> rows);

// Appends `rows`, [token][head_dim], to the K or V block of a page that holds `slot` tokens.
struct Fp8BlockReference {
    int head_dim;
    std::span<std::byte> block;
    float* scale;
};
void append_reference(const Fp8BlockReference& target, int slot, std::span<const float> rows);

// The values that pages give back, where `rows` are all that a block was given, at once.
void round_through_fp8(std::span<float> rows);

}  // namespace kvgrid::kernels
