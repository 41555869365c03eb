#pragma once

#include <cstdint>

#include "kernels/cuda/ptx.cuh"

namespace kvgrid::kernels {

// Matrix products of a warp group: 64 x kColumns sums in f32, kColumns / 2 of them to a thread, over 16 elements of the inner side at a time.
// Asynchronous: fence, multiply, commit, wait.
//
//   sums   thread t of the group holds rows 16 * (t / 32) + t mod 32 / 4 (c[4j], c[4j + 1]) and 8 further on (c[4j + 2], c[4j + 3]), in
//          columns 8j + 2 * (t mod 4) + {0, 1}
//
//   Source   PTX ISA, "Asynchronous Warpgroup Level Matrix Instructions".

// Of a matrix in shared memory whose rows are swizzled in panels of 128 or 64 bytes.
struct MatrixPlace {
    std::uint32_t address;
    std::uint32_t leading_bytes;  // to the next panel, where a product takes several
    std::uint32_t panel_width;
};
__device__ __forceinline__ std::uint64_t matrix_descriptor(const MatrixPlace& place) {
    const std::uint64_t swizzle = place.panel_width == 128 ? 1 : 2;
    const std::uint32_t stride_bytes = 8 * place.panel_width;  // to the next 8 rows
    return (place.address & 0x3ffff) >> 4 | static_cast<std::uint64_t>(place.leading_bytes >> 4) << 16 |
           static_cast<std::uint64_t>(stride_bytes >> 4) << 32 | swizzle << 62;
}

__device__ __forceinline__ void wgmma_fence() {
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ __forceinline__ void wgmma_commit() {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int kPending>
__device__ __forceinline__ void wgmma_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}
// The compiler must not move accesses to registers of a product that is under way across this.
template <int kCount>
__device__ __forceinline__ void hold_registers(float (&registers)[kCount]) {
#pragma unroll
    for (int index = 0; index < kCount; ++index) asm volatile("" : "+f"(registers[index])::"memory");
}

// clang-format off
#define KVGRID_SUMS_16 \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
#define KVGRID_SUMS_32 \
    KVGRID_SUMS_16 ", " \
    "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define KVGRID_SUMS_64 \
    KVGRID_SUMS_32 ", " \
    "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
    "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define KVGRID_SUM_OPERANDS_16 \
    "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]), "+f"(c[4]), "+f"(c[5]), "+f"(c[6]), "+f"(c[7]), \
    "+f"(c[8]), "+f"(c[9]), "+f"(c[10]), "+f"(c[11]), "+f"(c[12]), "+f"(c[13]), "+f"(c[14]), "+f"(c[15])
#define KVGRID_SUM_OPERANDS_32 \
    KVGRID_SUM_OPERANDS_16, \
    "+f"(c[16]), "+f"(c[17]), "+f"(c[18]), "+f"(c[19]), "+f"(c[20]), "+f"(c[21]), "+f"(c[22]), "+f"(c[23]), \
    "+f"(c[24]), "+f"(c[25]), "+f"(c[26]), "+f"(c[27]), "+f"(c[28]), "+f"(c[29]), "+f"(c[30]), "+f"(c[31])
#define KVGRID_SUM_OPERANDS_64 \
    KVGRID_SUM_OPERANDS_32, \
    "+f"(c[32]), "+f"(c[33]), "+f"(c[34]), "+f"(c[35]), "+f"(c[36]), "+f"(c[37]), "+f"(c[38]), "+f"(c[39]), \
    "+f"(c[40]), "+f"(c[41]), "+f"(c[42]), "+f"(c[43]), "+f"(c[44]), "+f"(c[45]), "+f"(c[46]), "+f"(c[47]), \
    "+f"(c[48]), "+f"(c[49]), "+f"(c[50]), "+f"(c[51]), "+f"(c[52]), "+f"(c[53]), "+f"(c[54]), "+f"(c[55]), \
    "+f"(c[56]), "+f"(c[57]), "+f"(c[58]), "+f"(c[59]), "+f"(c[60]), "+f"(c[61]), "+f"(c[62]), "+f"(c[63])

// `after`: the numbers of the operands behind the sums.
#define KVGRID_MULTIPLY_SHARED(columns, type, sums, after_a, after_b, after_adds, operands) \
    asm volatile("{.reg .pred p;\n setp.ne.b32 p, %" after_adds ", 0;\n" \
                 "wgmma.mma_async.sync.aligned.m64n" columns "k16.f32." type "." type \
                 " {" sums "}, %" after_a ", %" after_b ", p, 1, 1, 0, 0;}" \
                 : operands : "l"(a), "l"(b), "r"(static_cast<int>(adds)))
#define KVGRID_MULTIPLY_REGISTERS(columns, type, sums, after_a, after_b, after_adds, operands) \
    asm volatile("{.reg .pred p;\n setp.ne.b32 p, %" after_adds ", 0;\n" \
                 "wgmma.mma_async.sync.aligned.m64n" columns "k16.f32." type "." type \
                 " {" sums "}, {" after_a "}, %" after_b ", p, 1, 1, 1;}" \
                 : operands : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<int>(adds)))
// clang-format on

// c (+)= a * b^T, both in shared memory with the inner side along their rows. adds false: c = a * b^T. c: kColumns / 2 registers.
template <int kColumns, class Element>
__device__ __forceinline__ void multiply_shared(float* c, std::uint64_t a, std::uint64_t b, bool adds) {
    static_assert(kColumns == 64 || kColumns == 128);
    if constexpr (kColumns == 64 && Element::kIsF16) {
        KVGRID_MULTIPLY_SHARED("64", "f16", KVGRID_SUMS_32, "32", "33", "34", KVGRID_SUM_OPERANDS_32);
    } else if constexpr (kColumns == 64) {
        KVGRID_MULTIPLY_SHARED("64", "bf16", KVGRID_SUMS_32, "32", "33", "34", KVGRID_SUM_OPERANDS_32);
    } else if constexpr (Element::kIsF16) {
        KVGRID_MULTIPLY_SHARED("128", "f16", KVGRID_SUMS_64, "64", "65", "66", KVGRID_SUM_OPERANDS_64);
    } else {
        KVGRID_MULTIPLY_SHARED("128", "bf16", KVGRID_SUMS_64, "64", "65", "66", KVGRID_SUM_OPERANDS_64);
    }
}

// c (+)= a * b: a in registers, as sums are laid out but packed in pairs; b in shared memory with the inner side across its rows.
template <int kColumns, class Element>
__device__ __forceinline__ void multiply_registers(float* c, const std::uint32_t (&a)[4], std::uint64_t b, bool adds) {
    static_assert(kColumns == 32 || kColumns == 64 || kColumns == 128);
    if constexpr (kColumns == 32 && Element::kIsF16) {
        KVGRID_MULTIPLY_REGISTERS("32", "f16", KVGRID_SUMS_16, "%16, %17, %18, %19", "20", "21",
                                  KVGRID_SUM_OPERANDS_16);
    } else if constexpr (kColumns == 32) {
        KVGRID_MULTIPLY_REGISTERS("32", "bf16", KVGRID_SUMS_16, "%16, %17, %18, %19", "20", "21",
                                  KVGRID_SUM_OPERANDS_16);
    } else if constexpr (kColumns == 64 && Element::kIsF16) {
        KVGRID_MULTIPLY_REGISTERS("64", "f16", KVGRID_SUMS_32, "%32, %33, %34, %35", "36", "37",
                                  KVGRID_SUM_OPERANDS_32);
    } else if constexpr (kColumns == 64) {
        KVGRID_MULTIPLY_REGISTERS("64", "bf16", KVGRID_SUMS_32, "%32, %33, %34, %35", "36", "37",
                                  KVGRID_SUM_OPERANDS_32);
    } else if constexpr (Element::kIsF16) {
        KVGRID_MULTIPLY_REGISTERS("128", "f16", KVGRID_SUMS_64, "%64, %65, %66, %67", "68", "69",
                                  KVGRID_SUM_OPERANDS_64);
    } else {
        KVGRID_MULTIPLY_REGISTERS("128", "bf16", KVGRID_SUMS_64, "%64, %65, %66, %67", "68", "69",
                                  KVGRID_SUM_OPERANDS_64);
    }
}

#undef KVGRID_SUMS_16
#undef KVGRID_SUMS_32
#undef KVGRID_SUMS_64
#undef KVGRID_SUM_OPERANDS_16
#undef KVGRID_SUM_OPERANDS_32
#undef KVGRID_SUM_OPERANDS_64
#undef KVGRID_MULTIPLY_SHARED
#undef KVGRID_MULTIPLY_REGISTERS

}  // namespace kvgrid::kernels
