#!/usr/bin/env bash
# Builds the CUDA kernels alone, from source, then runs their tests and their benchmark: for a GPU host without the service's libraries.
#
#   tools/gpu_check.sh [BUILD_DIRECTORY]        default: build/gpu
#
#   TEST_SECONDS, BENCH_SECONDS   how long the tests and the benchmark may take
#   SANITIZE=1        runs the tests under compute-sanitizer as well: tools/gpu_sanitize.sh
set -euo pipefail

root=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.." && pwd -P)
build=${1:-$root/build/gpu}

say() { printf '==> %s\n' "$*"; }

cd "$root"
say "configure"
cmake --preset gpu -B "$build" >"$build.configure.log" 2>&1 || { cat "$build.configure.log"; exit 1; }
say "build"
time cmake --build "$build" --parallel --target device_plan_test gpu_kernels_test gpu_decode_bench gpu_pages_bench gpu_prefill_bench | tail -n 5

say "device"
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
nvcc --version | tail -n 2
status=0
say "tests"
"$build/bin/device_plan_test" | tail -n 3 || status=1
timeout "${TEST_SECONDS:-240}" "$build/bin/gpu_kernels_test" | grep -v '^\[ RUN\|^KVGRID_SEED\|OK \]' || status=1
if [[ ${SANITIZE:-0} == 1 ]]; then
    say "compute-sanitizer"
    tools/gpu_sanitize.sh "$build/bin/gpu_kernels_test" || status=1
fi
say "benchmark"
timeout "${BENCH_SECONDS:-300}" "$build/bin/gpu_decode_bench" || status=1
timeout 60 "$build/bin/gpu_pages_bench" || status=1
timeout 120 "$build/bin/gpu_prefill_bench" || status=1
exit $status
