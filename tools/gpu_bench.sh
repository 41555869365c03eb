#!/usr/bin/env bash
# Everything that is measured on one GPU, in one run: kernels, peers (FlashInfer where Python finds it, PyTorch), and layer calls of a whole
# shard, of a program that embeds one, and of clients. Prints it, and keeps it in docs/measurements/ with device, date, commit and command.
#
#   KVGRID_COMMIT        what a copy of the tree without its history is, here and while it is built
#   KVGRID_MEASUREMENTS  where the table goes
#
#   tools/gpu_bench.sh [BUILD_DIRECTORY]        default: build/release; ./dev bench gpu builds it first
set -euo pipefail

root=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.." && pwd -P)
build=${1:-$root/build/release}
bin=$build/bin
cd "$root"

device=$(nvidia-smi --query-gpu=name --format=csv,noheader | head -n 1)
commit=${KVGRID_COMMIT:-$(git rev-parse --short HEAD 2>/dev/null || echo unknown)}
name=$(tr 'A-Z ' 'a-z-' <<<"${device#NVIDIA }")
record=${KVGRID_MEASUREMENTS:-$root/docs/measurements}/$(date +%F)-${name%%-*}-gpu.txt

part() {
    printf '\n== %s\n' "$*"
    timeout "${PART_SECONDS:-240}" "$@" || echo "(ended with $?)"
}

{
    printf 'device   %s, driver %s\ndate     %s\ncommit   %s\ncommand  tools/gpu_bench.sh\n' "$device" \
        "$(nvidia-smi --query-gpu=driver_version --format=csv,noheader | head -n 1)" "$(date -u +%FT%TZ)" "$commit"
    part "$bin/gpu_decode_bench"
    part "$bin/gpu_prefill_bench"
    part "$bin/gpu_pages_bench"
    for bench in gpu_layer_bench gpu_client_bench gpu_join_bench embedded_decode sequence_bench; do
        if [[ -x $bin/$bench ]]; then part "$bin/$bench"; fi
    done
    if [[ -x $bin/kvgrid ]]; then part "$bin/kvgrid" bench --local 1 --clients 4 --context 262144 --steps 2500 --prefill 0 -q; fi
    if python3 -c 'import torch' 2>/dev/null; then
        timeout "${PART_SECONDS:-240}" python3 tests/bench/cuda/gpu_peers.py --compile || true
        part python3 tests/bench/cuda/gpu_peers.py
        part python3 tests/bench/cuda/gpu_peers.py --chunks
    fi
} 2>&1 | sed "s|$bin/||" | tee "$record"
echo "kept in $record"
