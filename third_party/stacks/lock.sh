#!/bin/sh
# Writes the lock of each stack anew: every version, with the hashes of its wheels, from PyPI alone.
# sources: ../../pyproject.toml (base dependencies and the [gpu] extra) and <stack>.in
# usage:   third_party/stacks/lock.sh [cpu|sm_75|sm_86|sm_120]...     needs uv >= 0.13
set -eu
cd "$(dirname "$0")"
[ $# -gt 0 ] || set -- cpu sm_75 sm_86 sm_120
for stack in "$@"; do
    extra="--extra gpu"
    [ "$stack" != cpu ] || extra=
    # shellcheck disable=SC2086 # two words or none
    uv pip compile --no-config --quiet \
        --python-version 3.12 --python-platform x86_64-manylinux_2_28 \
        --generate-hashes --no-emit-index-url --no-emit-find-links --no-header \
        --only-binary :all: \
        $extra ../../pyproject.toml "$stack.in" -o "$stack.lock"
    echo "$stack: $(grep -c '^[a-z0-9].*==' "$stack.lock") packages"
done
