#include "kernels/cuda/decode_kernel.cuh"

namespace kvgrid::kernels {

template void launch_decode<96, Bf16, 8, Fp8Kv>(const DecodeArguments& arguments, Stream stream);
template void launch_decode<96, Bf16, 16, Fp8Kv>(const DecodeArguments& arguments, Stream stream);
template void launch_decode<96, Bf16, 32, Fp8Kv>(const DecodeArguments& arguments, Stream stream);
template void launch_decode<96, F16, 8, Fp8Kv>(const DecodeArguments& arguments, Stream stream);
template void launch_decode<96, F16, 16, Fp8Kv>(const DecodeArguments& arguments, Stream stream);
template void launch_decode<96, F16, 32, Fp8Kv>(const DecodeArguments& arguments, Stream stream);

}  // namespace kvgrid::kernels
