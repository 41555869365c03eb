#include "kernels/cuda/decode_kernel.cuh"

namespace kvgrid::kernels {

template void launch_decode<128, Bf16, 8, PlainKv<Bf16>>(const DecodeArguments& arguments, Stream stream);
template void launch_decode<128, Bf16, 16, PlainKv<Bf16>>(const DecodeArguments& arguments, Stream stream);
template void launch_decode<128, Bf16, 32, PlainKv<Bf16>>(const DecodeArguments& arguments, Stream stream);
template void launch_decode<128, F16, 8, PlainKv<F16>>(const DecodeArguments& arguments, Stream stream);
template void launch_decode<128, F16, 16, PlainKv<F16>>(const DecodeArguments& arguments, Stream stream);
template void launch_decode<128, F16, 32, PlainKv<F16>>(const DecodeArguments& arguments, Stream stream);

}  // namespace kvgrid::kernels
