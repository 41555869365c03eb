// Chunked causal prefill on one GPU: CUDA graph replay, medians, random numbers, pages of 64 tokens in random order.
//
//   gpu_prefill_bench [PART OF A NAME]
//
//   TFLOP/s     of both products, visible pairs of the chunks only; after 0.1 s of such work, which brings the GPU to its power limit
//   rested      the same in the first milliseconds after a rest
//   schedule    time of schedule_prefill, which every layer of a step shares
//   difference  from the general kernel, relative; - where that takes too long

#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include "core/build_info.h"
#include "kernels/cuda/device.h"
#include "tests/bench/cuda/decode_batch.h"
#include "tests/bench/cuda/device_tools.h"

namespace kvgrid::bench {
namespace {

DecodeCase chunk(const char* name, int query_count, std::vector<int> lengths) {
    return {.name = name, .lengths = {}, .chunk_lengths = std::move(lengths), .chunk_query_count = query_count};
}
DecodeCase with_heads(DecodeCase shape, int query_heads, int kv_heads, int head_dim, Dtype dtype = Dtype::bf16) {
    shape.query_heads = query_heads;
    shape.kv_heads = kv_heads;
    shape.head_dim = head_dim;
    shape.dtype = dtype;
    return shape;
}

DecodeCase over_fp8(DecodeCase shape) {
    shape.kv_dtype = KvDtype::fp8_e4m3;
    return shape;
}

std::vector<DecodeCase> cases() {
    std::vector<int> eight;
    for (int sequence = 1; sequence <= 8; ++sequence) eight.push_back(8192 * sequence);
    DecodeCase decodes{.name = "32 decodes on 8192", .lengths = std::vector<int>(32, 8192)};
    DecodeCase mixed = chunk("8 x 64 new, 32 decodes", 64, eight);
    mixed.lengths = decodes.lengths;
    return {
        chunk("2048 new of 131072", 2048, {131072}),
        chunk("512 new of 131072", 512, {131072}),
        chunk("8192 of 8192", 8192, {8192}),
        chunk("32768 of 32768", 32768, {32768}),
        with_heads(chunk("2048 new of 131072, 64/8", 2048, {131072}), 64, 8, 128),
        with_heads(chunk("2048 new of 131072, f16", 2048, {131072}), 32, 8, 128, Dtype::f16),
        with_heads(chunk("2048 new of 131072, d 64", 2048, {131072}), 32, 8, 64),
        with_heads(chunk("2048 new of 131072, d 96", 2048, {131072}), 32, 8, 96),
        with_heads(chunk("2048 of 131072, 16/4, d 256", 2048, {131072}), 16, 4, 256),
        with_heads(chunk("8192 of 8192, d 64", 8192, {8192}), 32, 8, 64),
        with_heads(chunk("8192 of 8192, 16/4, d 256", 8192, {8192}), 16, 4, 256),
        chunk("128 new of 16384", 128, {16384}),
        chunk("128 new of 131072", 128, {131072}),
        with_heads(chunk("128 new of 131072, 8/1", 128, {131072}), 8, 1, 128),
        with_heads(chunk("512 new of 131072, 8/1", 512, {131072}), 8, 1, 128),
        chunk("333 of 333", 333, {333}),
        chunk("8 x 64 new of 8192 to 65536", 64, eight),
        chunk("8 x 8 new of 131072", 8, std::vector<int>(8, 131072)),  // decode has this, too: 32 rows
        over_fp8(chunk("2048 new of 131072, fp8", 2048, {131072})),
        over_fp8(chunk("128 new of 16384, fp8", 128, {16384})),
        decodes,
        mixed,
    };
}

double flops_of(const DecodeCase& shape) {
    double pairs = 0;
    const double count = shape.chunk_query_count;
    for (int length : shape.chunk_lengths) pairs += count * (length - count) + count * (count + 1) / 2;
    return 4.0 * shape.query_heads * shape.head_dim * pairs;
}

void run(const DecodeCase& shape) {
    const DecodeOnDevice batch(shape);
    const kernels::Decode work = batch.work();
    const double difference = batch.difference_from_general();
    const double us = median_us([&](kernels::Stream stream) { decode(work, stream); }, {.turns = 15});
    std::printf("%-28s %9.1f us", shape.name.c_str(), us);
    if (work.chunk_count > 0) {
        const double rested_us = median_us([&](kernels::Stream stream) { decode(work, stream); }, kRested);
        std::printf("  %6.1f TFLOP/s  rested %6.1f", flops_of(shape) / us / 1e6, flops_of(shape) / rested_us / 1e6);
        const kernels::SchedulePrefill schedule = batch.chunk_schedule();
        const double schedule_us = median_us([&](kernels::Stream stream) { schedule_prefill(schedule, stream); }, {});
        std::printf("  schedule %5.1f us", schedule_us);
    }
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
