#!/bin/sh
# Runs the tests of service/ and models/ inside an image: on its Python, its packages, its torch.
# usage: third_party/images/test.sh IMAGE [PYTEST ARGUMENT]...      needs podman, runc
#
# The image has no test tools: they are installed into a folder of their own beside it, and the tree
# is mounted so that what tests write goes nowhere. Tests that need more tools skip.
set -eu
image=${1:?image: localhost/meshpress:cpu}
shift
cd "$(dirname "$0")/../.."
[ $# -gt 0 ] || set -- tests/service tests/models
tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT

inside() { # inside COMMAND...: as root, on the host's network, with limits any builder may set
    podman --runtime runc --cgroup-manager cgroupfs run --rm --network host --no-healthcheck \
        --user 0:0 --ulimit nofile=1024:1024 --ulimit nproc=4096:4096 \
        --volume "$PWD:/src:O" --volume "$tools:/tools" ${mounts:-} \
        --unsetenv MESHPRESS_DATA_DIR --unsetenv MESHPRESS_VARIANT \
        --workdir /src --env PYTHONPATH=/tools --entrypoint "$1" "$image" \
        $(shift && printf '%s ' "$@")
}

mounts=
[ ! -d ../shared ] || mounts="--volume $(cd ../shared && pwd):/shared:ro"
[ -z "${SSL_CERT_FILE:-}" ] || mounts="$mounts --volume $SSL_CERT_FILE:/run/certificates:ro"
inside pip install --quiet --disable-pip-version-check --target /tools \
    ${SSL_CERT_FILE:+--cert /run/certificates} pytest pytest-timeout hypothesis
inside python3 -m pytest -p no:cacheprovider "$@"
