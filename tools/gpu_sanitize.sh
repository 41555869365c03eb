#!/usr/bin/env bash
# The GPU's unit tests under compute-sanitizer, each of its tools over all tests: one line for each shard, and what was found.
#
#   tools/gpu_sanitize.sh [PROGRAM]      default: build/gpu/bin/gpu_kernels_test, as tools/gpu_check.sh builds it
#
#   TOOLS     default: memcheck racecheck initcheck synccheck; they run at the same time
#   SHARDS    of the tests, one after the other for each tool; default: 10
#   SECONDS_MAX   for all of it; default: 3000
set -euo pipefail

root=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.." && pwd -P)
program=${1:-$root/build/gpu/bin/gpu_kernels_test}
shards=${SHARDS:-10}
end=$((SECONDS + ${SECONDS_MAX:-3000}))
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT

options_of() {
    # Blocks of all kernels have some; what is not tracked is reported as misuse.
    if [[ $1 == synccheck ]]; then echo --num-cuda-barriers 1048576; fi
}

run_tool() {
    local tool=$1 shard left log status began
    for ((shard = 0; shard < shards; ++shard)); do
        left=$((end - SECONDS)) log=$logs/$tool.$shard status=0 began=$SECONDS
        if ((left < 5)); then
            echo "$tool $shard: no time left"
            touch "$logs/failed"
            continue
        fi
        # shellcheck disable=SC2046  # options have no spaces
        GTEST_TOTAL_SHARDS=$shards GTEST_SHARD_INDEX=$shard timeout "$left" compute-sanitizer --tool "$tool" $(options_of "$tool") \
            --error-exitcode 9 "$program" >"$log" 2>&1 || status=$?
        printf '%s %d: ended with %d after %d s, %d tests passed, %s\n' "$tool" "$shard" "$status" $((SECONDS - began)) \
            "$(grep -c '^\[       OK \]' "$log" || true)" "$(grep -o '[A-Z]* SUMMARY: .*' "$log" | head -n 1)"
        if ((status)); then
            touch "$logs/failed"
            grep -A 3 '^========= [A-Z]' "$log" | grep -v 'COMPUTE-SANITIZER\|SUMMARY\|Host Frame\|^--' | head -n 12 || true
        fi
    done
}

for tool in ${TOOLS:-memcheck racecheck initcheck synccheck}; do run_tool "$tool" & done
wait
[[ ! -e $logs/failed ]]
