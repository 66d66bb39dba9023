#!/bin/sh
# Sets up everything the tests need and runs them all: `sh tests/run.sh [PYTEST ARGUMENTS]`.
set -eu
arguments=$*
set -- '[dev]'
. "$(dirname "$0")/setup.sh"

cd "$root"
# shellcheck disable=SC2086 # pytest's own arguments, split on purpose
exec "$root/.venv/bin/python" -m pytest $arguments
