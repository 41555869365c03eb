#pragma once

#include "core/model_spec.h"
#include "kernels/cuda/decode.h"
#include "kernels/cuda/device_buffer.h"

namespace kvgrid {

// One decode call of one sequence, with nothing around it: what layer calls are measured beside. Pages of zeros.
class BareDecode {
  public:
    BareDecode(const ModelSpec& spec, int tokens, kernels::Stream stream);  // the new one included
    void queue(kernels::Stream stream) const;

  private:
    kernels::Decode work_;
    kernels::DeviceBytes pages_, tensors_, workspace_;
    kernels::DeviceArray<kernels::DecodeItem> items_;
    kernels::DeviceArray<kernels::PageList> lists_;
    kernels::DeviceArray<kernels::PageEntry> entries_;
    kernels::DeviceArray<kernels::DecodeUnit> units_;
    kernels::DeviceArray<kernels::DecodeBlock> blocks_;
};

}  // namespace kvgrid
