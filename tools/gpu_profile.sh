#!/usr/bin/env bash
# What Nsight Compute counts in one kernel of a benchmark's row: how busy memory, the second-level cache and the tensor cores are, and what warps
# wait for.
#
#   tools/gpu_profile.sh NAME [BENCHMARK [BUILD_DIRECTORY]]      as in: tools/gpu_profile.sh "1 x 4096"
#
#   NAME       as the benchmark takes it
#   BENCHMARK  default: gpu_decode_bench
set -euo pipefail

root=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.." && pwd -P)
name=$1
bin=${3:-$root/build/release}/bin/${2:-gpu_decode_bench}

command -v ncu >/dev/null || { echo "gpu_profile: there is no ncu (Nsight Compute) on the PATH" >&2; exit 1; }
# The first launches are cold. Clocks are left as they are.
ncu --clock-control none --kernel-name 'regex:decode_block|decode_own_block|prefill_block' --launch-skip 3 --launch-count 1 \
    --section SpeedOfLight --section MemoryWorkloadAnalysis --section WarpStateStats --section SchedulerStats --section Occupancy \
    --section LaunchStats --metrics sm__inst_executed_pipe_tensor.avg.pct_of_peak_sustained_active,lts__t_sector_hit_rate.pct \
    "$bin" "$name"
