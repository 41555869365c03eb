#!/usr/bin/env bash
# Runs fuzz targets, one after the other, each over its corpus and what earlier runs have found on this machine.
#
#   tools/fuzz.sh BUILD SECONDS SEED [TARGET ...]      BUILD: the build folder of the preset fuzz; SEED 0: another one each time
#
# What is found is BUILD/findings/TARGET-*; new inputs that reach new code stay in BUILD/corpus/TARGET. Prints a line for each target:
# executions, inputs, findings. Ends with 1 if there was a finding.
set -euo pipefail

root=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.." && pwd -P)
build=$1 seconds=$2 seed=$3
shift 3
targets=("$@")
if ((${#targets[@]} == 0)); then
    for folder in "$root"/tests/fuzz/corpus/*/; do targets+=("$(basename "$folder")"); done
fi
if ((seed == 0)); then seed=$((RANDOM * 32768 + RANDOM + 1)); fi

export ASAN_OPTIONS=${ASAN_OPTIONS:-detect_stack_use_after_return=1:strict_string_checks=1:allocator_may_return_null=1}
export UBSAN_OPTIONS=${UBSAN_OPTIONS:-print_stacktrace=1}
mkdir -p "$build/findings"
found=0
for target in "${targets[@]}"; do
    corpus=$root/tests/fuzz/corpus/$target own=$build/corpus/$target log=$build/findings/$target.log
    if [[ ! -d $corpus ]]; then
        echo "fuzz: there is no target '$target': tests/fuzz/corpus has $(ls "$root/tests/fuzz/corpus" | tr '\n' ' ')" >&2
        exit 2
    fi
    mkdir -p "$own"
    status=0
    "$build/bin/fuzz_$target" -seed="$seed" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=2048 -print_final_stats=1 \
        -artifact_prefix="$build/findings/$target-" "$own" "$corpus" >"$log" 2>&1 || status=$?
    executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    printf '%-12s seed %s  %s s  %s executions  %s inputs  %s\n' "$target" "$seed" "$seconds" "${executions:-?}" \
        "$(find "$own" "$corpus" -type f | wc -l)" "$( ((status)) && echo "FOUND SOMETHING: $log" || echo "nothing found")"
    if ((status)); then
        found=1
        tail -n 40 "$log" >&2
    fi
done
exit "$found"
