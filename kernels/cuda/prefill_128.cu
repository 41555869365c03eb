#include "kernels/cuda/prefill_kernel.cuh"

namespace kvgrid::kernels {

template void launch_prefill<Bf16>(const GeneralDecode& work, Stream stream);
template void launch_prefill<F16>(const GeneralDecode& work, Stream stream);

}  // namespace kvgrid::kernels
