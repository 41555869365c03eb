#!/usr/bin/env bash
# Everything that is measured on one GPU, in one run: kernels, peers (FlashInfer where Python finds it, PyTorch), and layer calls of a whole
# shard, of a program that embeds one, and of clients. Prints it, and keeps it in docs/measurements/ with device, date, commit and command.
#
#   KVGRID_COMMIT        what a copy of the tree without its history is, here and while it is built
#   KVGRID_MEASUREMENTS  where the table goes
#
#   PARTS                kernels, service, peers, python; default: all
#   PYTHON               one with kvgrid (of a wheel that was built with CUDA: ./dev python on a GPU host), torch and transformers; default:
#                        build/python's, or python3. Part `python` is left out where it has not all of them
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
parts=${PARTS:-kernels service peers python}
python=${PYTHON:-$root/build/python/bin/python}
[[ -x $python ]] || python=python3
what=gpu
if [[ -n ${PARTS:-} ]]; then what=${PARTS// /-}; fi
record=${KVGRID_MEASUREMENTS:-$root/docs/measurements}/$(date +%F)-${name%%-*}-$what.txt

part() {
    printf '\n== %s\n' "$*"
    timeout "${PART_SECONDS:-240}" "$@" || echo "(ended with $?)"
}

has() { [[ " $parts " == *" $1 "* ]]; }

# The memory of GPU and processes while a command runs: its first and last readings.
watching_memory() {
    local readings watcher
    readings=$(mktemp)
    while sleep 2; do
        echo "memory: GPU $(nvidia-smi --query-gpu=memory.used --format=csv,noheader | paste -sd' '), worker $(ps -C kvgrid-worker -o rss= | paste -sd' ') KiB"
    done >"$readings" &
    watcher=$!
    "$@"
    kill "$watcher"
    awk '/worker [0-9]/ {line[n++] = $0} END {print line[int(n / 2)]; print line[n - 2]}' "$readings"
    rm -f "$readings"
}

{
    printf 'device   %s, driver %s\ndate     %s\ncommit   %s\ncommand  %stools/gpu_bench.sh\n' "$device" \
        "$(nvidia-smi --query-gpu=driver_version --format=csv,noheader | head -n 1)" "$(date -u +%FT%TZ)" "$commit" "${PARTS:+PARTS='$PARTS' }"
    if has kernels; then
        for bench in gpu_decode_bench gpu_prefill_bench gpu_pages_bench; do part "$bin/$bench"; done
    fi
    if has service && [[ -x $bin/kvgrid ]]; then
        for bench in gpu_layer_bench gpu_client_bench gpu_join_bench embedded_decode sequence_bench; do part "$bin/$bench"; done
        for batch in "1 x 262144" "4 x 262144"; do part "$bin/gpu_decode_bench" "$batch"; done
        for workers in 1 2; do
            watching_memory part "$bin/kvgrid" bench --local $workers --clients 4 --context 262144 --steps 2500 --layers 8 --prefill 0 -q
        done
    fi
    if has peers && python3 -c 'import torch' 2>/dev/null; then
        timeout "${PART_SECONDS:-240}" python3 tests/bench/cuda/gpu_peers.py --compile || true
        part python3 tests/bench/cuda/gpu_peers.py
        part python3 tests/bench/cuda/gpu_peers.py --chunks
    fi
    if has python && "$python" -c 'import kvgrid, torch, transformers' 2>/dev/null; then
        part "$python" -m pytest -p no:cacheprovider -q tests/python/test_gpu_tensors.py tests/python/test_gpu_driver.py tests/python/test_docs.py
        part "$python" tests/bench/gpu_layer_call_bench.py
        part "$python" tests/bench/transformers_gpu_bench.py
        part "$python" tests/bench/transformers_gpu_bench.py --dtype float16 --no-eager
        for length in 5+507 512+512; do part "$python" client/examples/lckv.py --gpu --tinyllama --pool 4096 --length $length; done
    fi
} 2>&1 | sed "s|$bin/||" | tee "$record"
echo "kept in $record"
