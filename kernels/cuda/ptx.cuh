#pragma once

#include <cstdint>

namespace kvgrid::kernels {

// The instructions that CUDA C++ has no names for. Shared memory is addressed by 32-bit shared-space addresses.

__device__ __forceinline__ std::uint32_t shared_address(const void* pointer) {
    return static_cast<std::uint32_t>(__cvta_generic_to_shared(pointer));
}

__device__ __forceinline__ void barrier_init(std::uint32_t barrier, int arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}
// Makes initialised barriers visible to the copy engine.
__device__ __forceinline__ void barrier_init_fence() {
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
// Arrives, and makes the phase wait for `bytes` that copies bring.
__device__ __forceinline__ void barrier_arrive_expect(std::uint32_t barrier, std::uint32_t bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}
__device__ __forceinline__ bool barrier_try_wait(std::uint32_t barrier, std::uint32_t parity) {
    std::uint32_t done;
    asm volatile("{\n .reg .pred p;\n mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n selp.u32 %0, 1, 0, p;\n}"
                 : "=r"(done)
                 : "r"(barrier), "r"(parity)
                 : "memory");
    return done != 0;
}
__device__ __forceinline__ void barrier_wait(std::uint32_t barrier, std::uint32_t parity) {
    while (!barrier_try_wait(barrier, parity)) {
    }
}

// Between kernels of one stream, where the later one was launched with leave to start early: the earlier one gives it, and the later one
// waits until all blocks of the earlier one have ended and what they wrote is visible.
__device__ __forceinline__ void allow_next_kernel() {
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
}
__device__ __forceinline__ void wait_for_previous_kernel() {
    asm volatile("griddepcontrol.wait;" ::: "memory");
}

// Brings a line of global memory into the L1 cache.
__device__ __forceinline__ void prefetch(const void* global) {
    asm volatile("prefetch.global.L1 [%0];" ::"l"(global));
}

// For data that is read once: leaves the L2 cache first.
__device__ __forceinline__ std::uint64_t evict_first_policy() {
    std::uint64_t policy;
    asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
    return policy;
}

struct BulkCopy {
    std::uint32_t target;  // shared; 16-byte aligned, as are source and bytes
    const void* source;
    std::uint32_t bytes;
};
// Asynchronous; the bytes are counted on the barrier.
__device__ __forceinline__ void bulk_copy(const BulkCopy& copy, std::uint32_t barrier, std::uint64_t policy) {
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1], %2, [%3], %4;" ::
            "r"(copy.target),
        "l"(copy.source), "r"(copy.bytes), "r"(barrier), "l"(policy)
        : "memory");
}

// The same for data that others read, too.
__device__ __forceinline__ void bulk_copy(const BulkCopy& copy, std::uint32_t barrier) {
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(copy.target),
        "l"(copy.source), "r"(copy.bytes), "r"(barrier)
        : "memory");
}
__device__ __forceinline__ void barrier_arrive(std::uint32_t barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

// The blocks of a cluster: they are resident together, and reach each other's shared memory. arrive and wait: by all threads.
__device__ __forceinline__ int cluster_rank() {
    int rank;
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
}
__device__ __forceinline__ int cluster_size() {
    int size;
    asm("mov.u32 %0, %%cluster_nctarank;" : "=r"(size));
    return size;
}
__device__ __forceinline__ void cluster_arrive() {
    asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
}
__device__ __forceinline__ void cluster_wait() {
    asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
}
// The same place in the shared memory of the cluster's block `rank`.
__device__ __forceinline__ std::uint32_t address_in_block(std::uint32_t address, int rank) {
    std::uint32_t there;
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(address), "r"(rank));
    return there;
}
// Asynchronous stores into another block's shared memory; the bytes are counted on a barrier there.
__device__ __forceinline__ void store_in_block(std::uint32_t to, const float4& words, std::uint32_t barrier) {
    asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [%0], {%1, %2, %3, %4}, [%5];" ::"r"(to),
                 "f"(words.x), "f"(words.y), "f"(words.z), "f"(words.w), "r"(barrier)
                 : "memory");
}
__device__ __forceinline__ void store_in_block(std::uint32_t to, const float2& words, std::uint32_t barrier) {
    asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.v2.f32 [%0], {%1, %2}, [%3];" ::"r"(to),
                 "f"(words.x), "f"(words.y), "r"(barrier)
                 : "memory");
}

__device__ __forceinline__ float shared_load(std::uint32_t address) {
    float value;
    asm volatile("ld.shared.f32 %0, [%1];" : "=f"(value) : "r"(address) : "memory");
    return value;
}

// 16 bytes of shared memory become 0.
__device__ __forceinline__ void shared_clear(std::uint32_t address) {
    asm volatile("st.shared.v4.b32 [%0], {%1, %1, %1, %1};" ::"r"(address), "r"(0) : "memory");
}

// Makes this thread's ordinary writes to shared memory visible to the tensor cores and the copy engine.
__device__ __forceinline__ void shared_writes_fence() {
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// Barriers 1 to 15 of a block, among the threads that name them. wait: arrives as well.
__device__ __forceinline__ void named_barrier_wait(int barrier, int threads) {
    asm volatile("bar.sync %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}
__device__ __forceinline__ void named_barrier_arrive(int barrier, int threads) {
    asm volatile("bar.arrive %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}

// Gives registers of a warp group back, or takes them.
template <int kCount>
__device__ __forceinline__ void give_back_registers() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kCount));
}
template <int kCount>
__device__ __forceinline__ void take_registers() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kCount));
}

// Four 8x8 matrices of 16-bit elements; lane i names row i mod 8 of matrix i / 8.
__device__ __forceinline__ void load_matrices(std::uint32_t (&to)[4], std::uint32_t row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(row)
                 : "memory");
}
__device__ __forceinline__ void load_matrices_transposed(std::uint32_t (&to)[4], std::uint32_t row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(row)
                 : "memory");
}
// An 8x8 matrix of 16-bit elements, spread over the warp as the tensor cores do.
__device__ __forceinline__ std::uint32_t transpose_matrix(std::uint32_t matrix) {
    std::uint32_t transposed;
    asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(transposed) : "r"(matrix));
    return transposed;
}

// Four e4m3 numbers, the first in the lowest byte, as two pairs of f16: exact.
__device__ __forceinline__ void widen_e4m3(std::uint32_t four, std::uint32_t& first_pair, std::uint32_t& second_pair) {
    asm("{\n .reg .b16 low, high;\n mov.b32 {low, high}, %2;\n cvt.rn.f16x2.e4m3x2 %0, low;\n cvt.rn.f16x2.e4m3x2 %1, "
        "high;\n}"
        : "=r"(first_pair), "=r"(second_pair)
        : "r"(four));
}
// Two numbers of at most 448, the first in the low byte, rounded to nearest even; NaN becomes 0x7f.
__device__ __forceinline__ std::uint16_t pack_e4m3(float first, float second) {
    std::uint16_t packed;
    asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(packed) : "f"(second), "f"(first));
    return packed;
}

// a / b where both and the quotient are normal powers of two.
__device__ __forceinline__ float quotient_of_powers(float a, float b) {
    return __int_as_float(__float_as_int(a) - __float_as_int(b) + __float_as_int(1.0f));
}

// 2^x: relative error 2^-22, subnormal results are 0.
__device__ __forceinline__ float exp2_fast(float x) {
    float result;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
    return result;
}

// Element types of the tensor cores. multiply: c += a (16 x 16) * b (16 x 8). pack: two elements, the first in the low half.
struct Bf16 {
    static constexpr bool kIsF16 = false;
    // How far above the largest weight seen the origin of the exponents lies, in powers of two; and the largest weight allowed.
    static constexpr float kOriginBelowMaximum = 0;

    static __device__ __forceinline__ void multiply(float (&c)[4], const std::uint32_t (&a)[4],
                                                    const std::uint32_t (&b)[2]) {
        asm volatile(
            "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
            "{%0, %1, %2, %3};"
            : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
    }
    static __device__ __forceinline__ std::uint32_t pack(float low, float high) {
        std::uint32_t packed;
        asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
        return packed;
    }
    static __device__ __forceinline__ float widen(std::uint16_t bits) {
        return __uint_as_float(static_cast<std::uint32_t>(bits) << 16);
    }
};
struct F16 {
    static constexpr bool kIsF16 = true;
    // f16 has no exponents to waste: weights begin at 2^7 and may grow by the lag of the maximum, so that those of 2^-21 of the largest
    // are still normal numbers.
    static constexpr float kOriginBelowMaximum = 7;

    static __device__ __forceinline__ void multiply(float (&c)[4], const std::uint32_t (&a)[4],
                                                    const std::uint32_t (&b)[2]) {
        asm volatile(
            "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
            "{%0, %1, %2, %3};"
            : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
    }
    static __device__ __forceinline__ std::uint32_t pack(float low, float high) {
        std::uint32_t packed;
        asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
        return packed;
    }
    static __device__ __forceinline__ float widen(std::uint16_t bits) {
        float wide;
        asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(bits));
        return wide;
    }
};

}  // namespace kvgrid::kernels
