// Chunked causal prefill on one GPU: CUDA graph replay, medians, random numbers, pages of 64 tokens in random order.
//
//   gpu_prefill_bench [PART OF A NAME]
//
//   TFLOP/s     of both products, visible pairs only
//   difference  from the general kernel, relative; - where that takes too long

#include <cstdio>
#include <string>

#include "core/build_info.h"
#include "kernels/cuda/device.h"
#include "tests/bench/cuda/decode_batch.h"
#include "tests/bench/cuda/device_tools.h"

namespace kvgrid::bench {
namespace {

std::vector<DecodeCase> cases() {
    const auto chunk = [](const char* name, int query_count, int length, int query_heads = 32,
                          Dtype dtype = Dtype::bf16) {
        return DecodeCase{
            .name = name, .lengths = {length}, .query_heads = query_heads, .dtype = dtype, .query_count = query_count};
    };
    return {
        chunk("2048 new of 131072", 2048, 131072),
        chunk("512 new of 131072", 512, 131072),
        chunk("8192 of 8192", 8192, 8192),
        chunk("32768 of 32768", 32768, 32768),
        chunk("2048 new of 131072, 64/8", 2048, 131072, 64),
        chunk("2048 new of 131072, f16", 2048, 131072, 32, Dtype::f16),
        chunk("128 new of 16384", 128, 16384),
        chunk("128 new of 131072", 128, 131072),
    };
}

void run(const DecodeCase& shape) {
    const DecodeOnDevice batch(shape);
    const kernels::Decode work = batch.work();
    const double difference = batch.difference_from_general();
    const double us = median_us([&](kernels::Stream stream) { decode(work, stream); }, {.turns = 15});
    const double count = shape.query_count, before = shape.lengths[0] - count;
    const double flops = 4.0 * shape.query_heads * shape.head_dim * (count * before + count * (count + 1) / 2);
    std::printf("%-26s %9.1f us  %6.1f TFLOP/s  %s", shape.name.c_str(), us, flops / us / 1e6,
                name_of(kernels::path_of(work.shape, work.dtype)));
    if (difference >= 0) std::printf("  difference %.1e", difference);
    std::printf("\n");
    std::fflush(stdout);
}

}  // namespace
}  // namespace kvgrid::bench

int main(int argc, char** argv) {
    using namespace kvgrid;
    if (kernels::device_count() == 0) {
        std::printf("gpu_prefill_bench: this machine has no CUDA device\n");
        return 0;
    }
    std::printf("%s, commit %s; 32 query and 8 KV heads, d 128, bf16 unless said\n",
                kernels::current_device().name.c_str(), build_commit());
    for (const bench::DecodeCase& shape : bench::cases()) {
        if (argc > 1 && shape.name.find(argv[1]) == std::string::npos) continue;
        bench::run(shape);
    }
    return 0;
}
