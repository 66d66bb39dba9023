#!/bin/sh
# Makes the base image of builds without a registry, under a local name, and prints that name: Ubuntu
# 24.04 (noble) as its archive has it, a stand-in for `ubuntu:24.04` with the same signed packages.
# usage: third_party/images/base.sh [SUITE]      needs root, buildah, debootstrap
#
# Without SUITE and where that archive cannot be reached: Debian 13 (trixie), whose Python is 3.13.
# Root file systems are kept in $IMAGE_CACHE (~/.cache/meshpress-images): one download for all builds.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cache=${IMAGE_CACHE:-${HOME:-/root}/.cache/meshpress-images}

unpack() { # unpack SUITE: into $cache/SUITE.tar
    mkdir -p "$cache"
    work=$(mktemp -d "$cache/XXXXXX")
    trap 'rm -rf "$work"' EXIT
    case $1 in
        noble) # A debootstrap older than the suite knows how from its predecessor.
            gpg --batch --quiet --dearmor <"$here/ubuntu-archive.asc" >"$work/keyring.gpg"
            set -- --keyring="$work/keyring.gpg" --components=main,universe \
                "$1" "$work/root" "" /usr/share/debootstrap/scripts/jammy
            ;;
        *) set -- "$1" "$work/root" ;;
    esac
    debootstrap --variant=minbase "$@" >"$work/log" 2>&1 || {
        tail -5 "$work/log" >&2
        return 1
    }
    tar -C "$work/root" --exclude='./var/cache/apt/*' --exclude='./var/lib/apt/lists/*' \
        -cf "$work/root.tar" .
    mv "$work/root.tar" "$cache/$suite.tar"
    rm -rf "$work"
}

for suite in ${1:-noble trixie}; do
    image=localhost/base:$suite
    if ! buildah inspect --type image "$image" >/dev/null 2>&1; then
        [ -f "$cache/$suite.tar" ] || (unpack "$suite") || continue
        container=$(buildah from scratch)
        buildah add --quiet "$container" "$cache/$suite.tar" / >/dev/null
        buildah config --cmd /bin/bash "$container"
        buildah commit --quiet --rm "$container" "$image" >/dev/null
    fi
    echo "$image"
    exit 0
done
echo "base: no suite could be unpacked; name an image you have with RUNTIME_IMAGE" >&2
exit 1
