// Decode attention on one GPU: CUDA graph replay, medians, random numbers, pages of 64 tokens in random order, the schedule made beforehand
// as for the second and later layers of a step.
//
//   gpu_decode_bench [NAME [CUT]]
//
//   NAME         part of a row's name; or "5 x 3000" for a batch that has no row
//   CUT          of units over blocks: "ranges", "small", or how many blocks of a cluster have one; best if not given
//
//   us          of one call
//   floor       bytes of K and V / the read bandwidth measured first
//   ratio       floor / us; where K and V fit into the L2 cache it says little
//   fp8, ...    K and V in fp8 elements
//   difference  from the general kernel, relative; - where that takes too long
//   one pass, n  units have clusters of n blocks, or small blocks
//   schedule    us to make the schedule

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "core/build_info.h"
#include "kernels/cuda/device.h"
#include "tests/bench/cuda/decode_batch.h"
#include "tests/bench/cuda/device_tools.h"

namespace kvgrid::bench {
namespace {

std::vector<int> repeated(int count, int length) {
    return std::vector<int>(count, length);
}

std::vector<int> skewed() {
    std::vector<int> lengths = repeated(64, 512);
    lengths[0] = 524288;
    return lengths;
}

std::vector<int> ragged() {
    std::mt19937 random(3);
    std::vector<int> lengths = repeated(64, 0);
    for (int& length : lengths) length = 1 + static_cast<int>(random() % 32768);
    return lengths;
}

std::vector<DecodeCase> cases() {
    return {
        {"1 x 131072", repeated(1, 131072)},
        {"1 x 1048576", repeated(1, 1048576)},
        {"8 x 131072", repeated(8, 131072)},
        {"64 x 8192", repeated(64, 8192)},
        {.name = "1 x 16384", .lengths = repeated(1, 16384), .calls = 20},
        {.name = "1 x 4096", .lengths = repeated(1, 4096), .calls = 50},
        {.name = "1 x 1024", .lengths = repeated(1, 1024), .calls = 50},
        {.name = "8 x 1024", .lengths = repeated(8, 1024), .calls = 50},
        {.name = "64 x 512", .lengths = repeated(64, 512), .calls = 20},
        {"524288 and 63 x 512", skewed()},
        {"64 of 1 to 32768", ragged()},
        {"8 x 131072, 64/8", repeated(8, 131072), 64, 8},
        {"8 x 131072, 28/4", repeated(8, 131072), 28, 4},
        {"8 x 131072, 32/2", repeated(8, 131072), 32, 2},
        {"1 x 131072, 8/1", repeated(1, 131072), 8, 1},
        {"8 x 65536, 16/16, d 64", repeated(8, 65536), 16, 16, 64},
        {"8 x 262144, 9/3, d 64", repeated(8, 262144), 9, 3, 64},
        {"8 x 131072, d 96", repeated(8, 131072), 32, 8, 96},
        {"8 x 131072, 16/4, d 256", repeated(8, 131072), 16, 4, 256},
        {"8 x 131072, 32/2, d 256", repeated(8, 131072), 32, 2, 256},
        {"8 x 131072, f16", repeated(8, 131072), 32, 8, 128, Dtype::f16},
        {"8 x 131072, 4 new", repeated(8, 131072), 32, 8, 128, Dtype::bf16, 4},
        {"8 x 131072, 8 new", repeated(8, 131072), 32, 8, 128, Dtype::bf16, 8},
    };
}

DecodeCase in_fp8(DecodeCase shape) {
    shape.name = "fp8, " + shape.name;
    shape.kv_dtype = KvDtype::fp8_e4m3;
    return shape;
}

std::vector<DecodeCase> fp8_cases() {
    std::vector<DecodeCase> made = cases();
    std::ranges::transform(made, made.begin(), in_fp8);
    return made;
}

// "5 x 3000", in the model's dtype and in fp8.
std::vector<DecodeCase> cases_named(const char* name) {
    int count = 0, length = 0;
    if (std::sscanf(name, "%d x %d", &count, &length) != 2 || count < 1 || length < 1) return {};
    const DecodeCase plain{.name = name, .lengths = repeated(count, length), .calls = 10};
    return {plain, in_fp8(plain)};
}

kernels::UnitCut cut_named(const std::string& name) {
    using Kind = kernels::UnitCut::Kind;
    if (name == "ranges") return {};
    if (name == "small") return {Kind::small_blocks, 1};
    return {Kind::clusters, std::atoi(name.c_str())};
}

void run(const DecodeCase& shape, double bytes_per_second) {
    const DecodeOnDevice batch(shape);
    const kernels::Decode work = batch.work();
    const double difference = batch.difference_from_general();
    const double us = median_us([&](kernels::Stream stream) { decode(work, stream); }, {.calls = shape.calls});
    const double schedule_us =
        median_us([&](kernels::Stream stream) { schedule_decode(batch.schedule(), stream); }, {20});
    const double floor_us = batch.kv_bytes() / bytes_per_second * 1e6;
    std::string path = name_of(kernels::path_of(work.shape, work.dtype, work.kv_dtype));
    const kernels::UnitCut& cut = work.shape.cut;
    if (cut.kind == kernels::UnitCut::Kind::clusters) path += ", " + std::to_string(cut.parts);
    if (cut.kind == kernels::UnitCut::Kind::small_blocks) path += ", small";
    std::printf("%-28s %9.1f us  floor %8.1f  ratio %.3f  %6.3f TB/s  %-14s  schedule %5.1f us", shape.name.c_str(), us,
                floor_us, floor_us / us, batch.kv_bytes() / us / 1e6, path.c_str(), schedule_us);
    if (difference >= 0) {
        std::printf("  difference %.1e\n", difference);
    } else {
        std::printf("  difference -\n");
    }
    std::fflush(stdout);
}

}  // namespace
}  // namespace kvgrid::bench

int main(int argc, char** argv) {
    using namespace kvgrid;
    if (kernels::device_count() == 0) {
        std::printf("gpu_decode_bench: this machine has no CUDA device\n");
        return 0;
    }
    const double bytes_per_second = bench::read_bytes_per_second(std::size_t{4} << 30);
    std::printf("%s, %d SMs, commit %s, reads %.3f TB/s (4 GiB, 16-byte loads)\n",
                kernels::current_device().name.c_str(), kernels::current_device().multiprocessor_count, build_commit(),
                bytes_per_second / 1e12);
    std::printf("32 query and 8 KV heads, d 128, bf16, one new token, unless said\n");
    std::vector<bench::DecodeCase> cases = bench::cases();
    std::ranges::move(bench::fp8_cases(), std::back_inserter(cases));
    if (argc > 1) {
        std::erase_if(cases, [&](const auto& shape) { return shape.name.find(argv[1]) == std::string::npos; });
        if (cases.empty()) cases = bench::cases_named(argv[1]);
    }
    for (bench::DecodeCase& shape : cases) {
        if (argc > 2) shape.cut = bench::cut_named(argv[2]);
        bench::run(shape, bytes_per_second);
    }
    return 0;
}
