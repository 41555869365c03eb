#!/usr/bin/env bash
# Everything that needs two GPUs of one host: tests of the kernels and of grids with a rank on each, joins across, one layer on two GPUs against one, the
# service, the demonstration, and workers that are killed. Prints it, and keeps it in docs/measurements/ with device, date, commit and command.
#
#   KVGRID_COMMIT        what a copy of the tree without its history is, here and while it is built
#   KVGRID_MEASUREMENTS  where the table goes
#
#   tools/two_gpu.sh [BUILD_DIRECTORY]        default: build/release; ./dev bench two-gpu builds it first
set -euo pipefail

root=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.." && pwd -P)
bin=${1:-$root/build/release}/bin
cd "$root"

gpus=$(nvidia-smi --query-gpu=name --format=csv,noheader | wc -l)
if ((gpus < 2)); then
    echo "two_gpu.sh: this host has $gpus GPUs: it needs two" >&2
    exit 1
fi
device=$(nvidia-smi --query-gpu=name --format=csv,noheader | head -n 1)
name=$(tr 'A-Z ' 'a-z-' <<<"${device#NVIDIA }")
record=${KVGRID_MEASUREMENTS:-$root/docs/measurements}/$(date +%F)-2x${name%%-*}.txt

part() {
    printf '\n== %s\n' "$*"
    timeout "${PART_SECONDS:-240}" "$@" || echo "(ended with $?)"
}
# What a GoogleTest program says in the end, and what went wrong.
tests() { part "$@" | grep -E '^==|Failure|FAILED|tests ran|PASSED|SKIPPED|noticed|opened and stepped|^\(ended' || true; }

# Of the GPUs and of the workers, while one of them runs.
watch_memory() {
    sleep 6
    while sleep 4; do
        printf '   GPU memory, MiB: %s   worker RSS, KiB: %s\n' \
            "$(nvidia-smi --query-gpu=memory.used --format=csv,noheader,nounits | paste -sd' ')" "$(ps -C kvgrid-worker -o rss= | xargs)"
    done
}

{
    printf 'device   %s x %s, driver %s\ndate     %s\ncommit   %s\ncommand  tools/two_gpu.sh\n' "$gpus" "$device" \
        "$(nvidia-smi --query-gpu=driver_version --format=csv,noheader | head -n 1)" "$(date -u +%FT%TZ)" \
        "${KVGRID_COMMIT:-$(git rev-parse --short HEAD 2>/dev/null || echo unknown)}"
    nvidia-smi topo -p2p r 2>/dev/null | grep -E '^ *GPU[0-9]' || true
    tests "$bin/gpu_kernels_test" --gtest_filter='PeerExchange*:DecodeGpu*'
    tests "$bin/gpu_grid_test"
    part "$bin/gpu_join_bench" 2
    part "$bin/gpu_tail_bench"
    part "$bin/gpu_embedded_join_bench"
    tests "$bin/faults_test" --gtest_filter='Loss.OfPeers*:Loss.*Peer*'
    tests "$bin/gpu_client_test"
    part "$bin/gpu_client_bench" 4000 2
    part "$bin/kvgrid" demo -q
    for context in 4096 65536 1048576; do  # what the join moves does not grow
        part "$bin/kvgrid" bench --local 2 --clients 1 --context $context --steps 50 --layers 2 --prefill 0 -q
    done
    for workers in 1 2; do
        watch_memory &
        watch=$!
        part "$bin/kvgrid" bench --local $workers --clients 4 --context 524288 --steps "${SERVICE_STEPS:-10000}" --layers 2 --prefill 0 -q
        kill $watch
    done
} 2>&1 | grep -v ' info kvgrid: ' | sed "s|$bin/||" | tee "$record"
echo "kept in $record"
