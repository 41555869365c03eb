#pragma once

// Which instruction sets the vectorised kernels are compiled for: AVX-512, AVX2, NEON and the compiler's baseline. To
// be included before Highway, whose names it uses; those below HWY_AVX3 in number are refinements of AVX-512 that gain
// nothing here.
#define HWY_DISABLED_TARGETS ((HWY_AVX3 - 1) | HWY_SSE4 | HWY_SSSE3 | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128)
