#!/usr/bin/env bash
# The GPU's unit tests under compute-sanitizer, each of its tools over all tests: one line for each shard, and what was found. racecheck and
# synccheck make kernels some hundred times slower: under them each batch is computed with one cut over blocks instead of all.
#
#   tools/gpu_sanitize.sh [PROGRAM]      default: build/gpu/bin/gpu_kernels_test, as tools/gpu_check.sh builds it
#
#   TOOLS     default: memcheck racecheck initcheck synccheck
#   SHARDS    of the tests, for each tool; default: 16
#   JOBS      shards at once; default: 4
#   SECONDS_MAX   for all of it; default: 3000
#   LOGS      a folder where the logs of all shards stay; default: none
set -euo pipefail

root=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.." && pwd -P)
program=${1:-$root/build/gpu/bin/gpu_kernels_test}
shards=${SHARDS:-16}
end=$((SECONDS + ${SECONDS_MAX:-3000}))
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
logs=${LOGS:-$scratch/logs}
mkdir -p "$logs"

options_of() {
    case $1 in
        # Blocks of all kernels have some; what is not tracked is reported as misuse.
        synccheck) echo --num-cuda-barriers 65536 ;;
        # NCCL asks for kernels that this GPU does not have; what the runtime refuses us is checked at each call.
        memcheck) echo --report-api-errors no ;;
    esac
}

run_shard() {
    local tool=$1 shard=$2 log=$logs/$1.$2 left=$((end - SECONDS)) status=0 began=$SECONDS
    if ((left < 5)); then
        echo "$tool $shard: no time left"
        touch "$scratch/failed"
        return
    fi
    if [[ $tool == racecheck || $tool == synccheck ]]; then export KVGRID_ONE_CUT=1; fi
    # shellcheck disable=SC2046  # options have no spaces
    GTEST_TOTAL_SHARDS=$shards GTEST_SHARD_INDEX=$shard timeout "$left" compute-sanitizer --tool "$tool" $(options_of "$tool") \
        --error-exitcode 9 "$program" >"$log" 2>&1 || status=$?
    printf '%s %d: ended with %d after %d s, %d tests passed, %s\n' "$tool" "$shard" "$status" $((SECONDS - began)) \
        "$(grep -c '^\[       OK \]' "$log" || true)" "$(grep -o '[A-Z]* SUMMARY: .*' "$log" | head -n 1)"
    if ((status)); then
        touch "$scratch/failed"
        grep -A 3 '^========= [A-Z]\|Failure$\|exception' "$log" | grep -v 'COMPUTE-SANITIZER\|SUMMARY\|Host Frame\|^--' | head -n 12 || true
    fi
}

running=0
for tool in ${TOOLS:-memcheck racecheck initcheck synccheck}; do
    for ((shard = 0; shard < shards; ++shard)); do
        if ((running == ${JOBS:-4})); then
            wait -n
            running=$((running - 1))
        fi
        run_shard "$tool" "$shard" &
        running=$((running + 1))
    done
done
wait
[[ ! -e $scratch/failed ]]
