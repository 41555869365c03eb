#include "kernels/cuda/prefill_kernel.cuh"

namespace kvgrid::kernels {

template void launch_prefill<128, Bf16>(const PrefillWork& work, Stream stream);
template void launch_prefill<128, F16>(const PrefillWork& work, Stream stream);

}  // namespace kvgrid::kernels
