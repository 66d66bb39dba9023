#!/bin/sh
# Fuzzes every reader for SECONDS each, JOBS of them at a time: `sh tests/fuzz/run.sh 600 8`.
# Fails on any crash, hang or memory blow-up and keeps the input that caused it.
#
# PYTHON   the interpreter (default python3); needs numpy, pillow, zstandard and requirements.txt
# WHEELS   a folder of wheels of these packages, for a machine without pip or a network
# CORPUS   where inputs are kept between runs (default: a folder that is removed at the end)
# CRASHES  where inputs that failed are kept (default: fuzz-crashes)
# TARGETS  which readers (default: all)
set -eu

seconds=${1:?"usage: run.sh SECONDS [JOBS]"}
jobs=${2:-$(nproc)}
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
corpus=${CORPUS:-$work/corpus}
crashes=${CRASHES:-$(pwd)/fuzz-crashes}

if [ -n "${WHEELS:-}" ]; then
    for wheel in "$WHEELS"/*.whl; do
        "$python" -m zipfile -e "$wheel" "$work/site"
    done
    export PYTHONPATH="$work/site"
fi

mkdir -p "$crashes"
targets=${TARGETS:-$(cd "$here" && ls fuzz_*.py | sed 's/^fuzz_//; s/\.py$//')}

one='
name=$1
log="$WORK/$name.log"
mkdir -p "$CORPUS/$name"
if nice -n 19 "$PYTHON" "$HERE/fuzz_$name.py" -max_total_time="$SECONDS_EACH" -print_final_stats=1 \
    -artifact_prefix="$CRASHES/$name-" "$CORPUS/$name" >"$log" 2>&1 &&
    grep -q "^stat::number_of_executed_units" "$log"; then
    runs=$(sed -n "s/^stat::number_of_executed_units: *//p" "$log")
    peak=$(sed -n "s/^stat::peak_rss_mb: *//p" "$log")
    echo "ok    $name: $runs inputs, $(ls "$CORPUS/$name" | wc -l) kept, peak $peak MB"
else
    echo "FAIL  $name"
    tail -n 40 "$log"
    exit 1
fi
'
export PYTHON="$python" HERE="$here" WORK="$work" CORPUS="$corpus" CRASHES="$crashes" SECONDS_EACH="$seconds"
# One BLAS thread and one decoder a job: jobs are the parallelism.
export OPENBLAS_NUM_THREADS=1
# shellcheck disable=SC2086 # one word a target
if printf '%s\n' $targets | xargs -P "$jobs" -I{} sh -c "$one" run {}; then
    rmdir "$crashes" 2>/dev/null || true
else
    echo "Inputs that failed are in $crashes" >&2
    exit 1
fi
