// Appending a chunk to pages in random order, and copying pages, on one GPU: CUDA graph replay, medians. The floor is the copy bandwidth of
// the same run (each byte read and written, both counted).

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdio>
#include <numeric>
#include <random>

#include "core/build_info.h"
#include "kernels/cuda/cuda_error.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/device_buffer.h"
#include "kernels/cuda/device_page_layout.h"
#include "kernels/cuda/device_pages.h"
#include "kernels/cuda/fp8_pages.h"
#include "tests/bench/cuda/device_tools.h"

namespace kvgrid::bench {
namespace {

using namespace kernels;

double copy_bytes_per_second(std::size_t bytes) {
    const DeviceArray<std::byte> from(bytes), to(bytes);
    fill_with_normal(from.span(), Dtype::bf16, 1);
    const double us = median_us(
        [&](Stream stream) {
            check_cuda(cudaMemcpyAsync(to.span().data, from.span().data, bytes, cudaMemcpyDeviceToDevice, stream),
                       "cudaMemcpyAsync");
        },
        {});
    return 2.0 * static_cast<double>(bytes) / us * 1e6;
}

struct Case {
    int token_count, kv_heads, head_dim;
    KvDtype kv_dtype = KvDtype::as_model;
};

void append(const Case& shape, double copy_speed) {
    const bool is_fp8 = shape.kv_dtype == KvDtype::fp8_e4m3;
    const int row_bytes = 2 * shape.head_dim;
    const std::size_t page_bytes = DevicePageLayout::of(shape.head_dim, Dtype::bf16, shape.kv_dtype).page_bytes();
    std::vector<PageRun> list;
    for (int token = 0; token < shape.token_count; token += kPageTokens) {
        const int count = std::min(kPageTokens, shape.token_count - token);
        for (int head = 0; head < shape.kv_heads; ++head) list.push_back({0, 0, count, token, head});
    }
    std::vector<std::uint32_t> pages(list.size());
    std::iota(pages.begin(), pages.end(), 0u);
    std::mt19937_64 random(5);
    std::shuffle(pages.begin(), pages.end(), random);
    for (std::size_t index = 0; index < pages.size(); ++index) list[index].page = pages[index];

    const std::size_t bytes = std::size_t{1} * shape.token_count * shape.kv_heads * row_bytes;
    const DeviceArray<std::byte> slab(list.size() * page_bytes), k(bytes), v(bytes);
    fill_with_normal(k.span(), Dtype::bf16, 2);
    fill_with_normal(v.span(), Dtype::bf16, 3);
    const DeviceArray<PageRun> runs{std::span<const PageRun>(list)};
    const PageSlab pages_there{slab.span().data, page_bytes};
    const DeviceAppend plain{shape.kv_heads, row_bytes, shape.token_count, pages_there,
                             runs.span(),    k.span(),  v.span()};
    const DeviceFp8Append fp8{shape.kv_heads, shape.head_dim, Dtype::bf16, shape.token_count,
                              pages_there,    runs.span(),    k.span(),    v.span()};
    const double us =
        median_us([&](Stream stream) { is_fp8 ? append_fp8_on_device(fp8, stream) : append_on_device(plain, stream); },
                  {.calls = 5});
    const double floor_us = (is_fp8 ? 3.0 : 4.0) * static_cast<double>(bytes) / copy_speed * 1e6;
    std::printf("append %7d tokens, %2d heads, d %3d%s  %9.1f us  floor %8.1f  ratio %.3f\n", shape.token_count,
                shape.kv_heads, shape.head_dim, is_fp8 ? ", fp8" : "     ", us, floor_us, floor_us / us);
}

void copy(std::size_t page_bytes, int pair_count, double copy_speed) {
    std::vector<PagePair> list;
    std::vector<std::uint32_t> pages(2 * pair_count);
    std::iota(pages.begin(), pages.end(), 0u);
    std::mt19937_64 random(6);
    std::shuffle(pages.begin(), pages.end(), random);
    for (int pair = 0; pair < pair_count; ++pair) list.push_back({pages[2 * pair], pages[2 * pair + 1]});
    const DeviceArray<std::byte> slab(2 * pair_count * page_bytes);
    fill_with_normal(slab.span(), Dtype::bf16, 4);
    const DeviceArray<PagePair> pairs{std::span<const PagePair>(list)};
    const DeviceCopyPages work{{slab.span().data, page_bytes}, pairs.span()};
    const double us = median_us([&](Stream stream) { copy_pages_on_device(work, stream); }, {.calls = 5});
    const double floor_us = 2.0 * static_cast<double>(pair_count * page_bytes) / copy_speed * 1e6;
    std::printf("copy   %7d pages of %zu KiB         %9.1f us  floor %8.1f  ratio %.3f\n", pair_count,
                page_bytes / 1024, us, floor_us, floor_us / us);
}

}  // namespace
}  // namespace kvgrid::bench

int main() {
    using namespace kvgrid;
    if (kernels::device_count() == 0) {
        std::printf("gpu_pages_bench: this machine has no CUDA device\n");
        return 0;
    }
    const double copy_speed = bench::copy_bytes_per_second(std::size_t{2} << 30);
    std::printf("%s, commit %s, copies %.3f TB/s (read and written)\n", kernels::current_device().name.c_str(),
                build_commit(), copy_speed / 1e12);
    for (const bench::Case& shape : {bench::Case{131072, 8, 128}, {8192, 8, 128}, {131072, 3, 64}, {64, 8, 128}}) {
        bench::append(shape, copy_speed);
        bench::append({shape.token_count, shape.kv_heads, shape.head_dim, KvDtype::fp8_e4m3}, copy_speed);
    }
    bench::copy(32768, 16384, copy_speed);
    return 0;
}
