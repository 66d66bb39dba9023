#!/bin/sh
# Builds the image of one stack without a Docker daemon and without a registry: buildah in a chroot, on
# the host's network, on the base of base.sh unless RUNTIME_IMAGE names another.
# usage: third_party/images/build.sh cpu|sm_75|sm_86|sm_120 [ARGUMENT OF buildah build]...
#
# What belongs to this machine and not into an image reaches the build as secrets and mounts:
#   PIP_CONFIG_FILE   a pip.conf: an index of one's own, a proxy
#   SSL_CERT_FILE     the certificates to trust
#   WHEELS            a folder with the wheels of the locks: nothing is asked of an index
set -eu
stack=${1:?stack: cpu, sm_75, sm_86 or sm_120}
shift
cd "$(dirname "$0")/../.."
image=${IMAGE:-localhost/meshpress}:$stack
started=$(date +%s)

RUNTIME_IMAGE=${RUNTIME_IMAGE:-$(sh third_party/images/base.sh)}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if [ -n "${PIP_CONFIG_FILE:-}" ]; then
    cp "$PIP_CONFIG_FILE" "$work/pip.conf"
else
    echo "[global]" >"$work/pip.conf"
    [ -z "${SSL_CERT_FILE:-}" ] || echo "cert = /run/secrets/certificates" >>"$work/pip.conf"
    [ -z "${WHEELS:-}" ] || printf 'no-index = true\nfind-links = /run/wheelhouse\n' >>"$work/pip.conf"
fi
set -- --secret id=pip.conf,src="$work/pip.conf" "$@"
[ -z "${SSL_CERT_FILE:-}" ] || set -- --secret id=certificates,src="$SSL_CERT_FILE" "$@"
[ -z "${WHEELS:-}" ] || set -- --volume "$WHEELS:/run/wheelhouse:ro" "$@"

# --format docker: the other one has no place for a HEALTHCHECK. --layers: else all steps become one
# layer, which takes four times its size of disk while it is committed.
buildah build --isolation chroot --network host --format docker --layers --file Dockerfile.gpu \
    --build-arg STACK="$stack" --build-arg RUNTIME_IMAGE="$RUNTIME_IMAGE" \
    --build-arg REVISION="$(git rev-parse HEAD 2>/dev/null || true)" --tag "$image" "$@" .

size=$(buildah images --json "$image" | sed -n 's/.*"size": "\(.*\)".*/\1/p')
echo "$image on $RUNTIME_IMAGE: $size, built in $(($(date +%s) - started)) s"
