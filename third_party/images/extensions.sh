#!/bin/sh
# Compiles what PyPI has no wheels of, for the one GPU of a stack, into wheels: flash-attn, nvdiffrast.
# usage: STACK=sm_86 [FLASH_ATTN=1] [NVDIFFRAST=<its licence, accepted>] extensions.sh WHEELS
#
# Needs nvcc 12.8 or newer (CUDA_HOME), and on PATH the python with tools.lock and the stack's lock:
# an extension is compiled against the torch it will run with. MAX_JOBS compilers at once, 4 GB each.
set -eu
wheels=$1
here=$(cd "$(dirname "$0")" && pwd)

LICENCE=i-accept-nvidia-source-code-license-non-commercial
NVDIFFRAST_COMMIT=253ac4fcea7de5f396371124af597e6cc957bfae # v0.4.0

refuse() {
    echo "extensions: $*" >&2
    exit 2
}

# What was asked for, before anything is downloaded.
case ${FLASH_ATTN:-0} in
    0) ;;
    1)
        case $STACK in
            sm_86) flash_attn_archs=80 ;; # there is no 86: code for 8.0 is what 8.6 and 8.9 run
            sm_120) flash_attn_archs=120 ;;
            sm_75) refuse "flash-attn runs on compute capability 8.0 and newer, a T4 is 7.5:" \
                "build sm_75 without FLASH_ATTN=1; attention is xformers' or torch's there." ;;
            *) refuse "flash-attn needs a GPU: STACK is '$STACK', it must be sm_86 or sm_120." ;;
        esac
        ;;
    *) refuse "FLASH_ATTN is '$FLASH_ATTN'; allowed: 0, 1." ;;
esac
case ${NVDIFFRAST:-} in
    '') ;;
    "$LICENCE") [ "$STACK" != cpu ] || refuse "nvdiffrast needs a GPU: STACK is 'cpu'." ;;
    *) refuse "NVDIFFRAST is '$NVDIFFRAST'. Its licence, the Nvidia Source Code License (1-Way" \
        "Commercial), allows research and evaluation, not commercial use, and binds whoever gets" \
        "the image. To accept it: NVDIFFRAST=$LICENCE" ;;
esac

mkdir -p "$wheels"
[ "${FLASH_ATTN:-0}${NVDIFFRAST:-}" != 0 ] || exit 0

nvcc=${CUDA_HOME:=/usr/local/cuda}/bin/nvcc
[ -x "$nvcc" ] || refuse "there is no compiler at $nvcc: set BUILD_IMAGE to an image with CUDA 12.8 or" \
    "newer, such as nvidia/cuda:12.8.1-devel-ubuntu24.04."
export CUDA_HOME MAX_JOBS="${MAX_JOBS:-2}" NVCC_THREADS=1

if [ "${FLASH_ATTN:-0}" = 1 ]; then
    # Without FORCE_BUILD its setup looks for a wheel elsewhere, which no hash of ours covers.
    FLASH_ATTENTION_FORCE_BUILD=TRUE FLASH_ATTN_CUDA_ARCHS=$flash_attn_archs \
        python -m pip wheel --no-build-isolation --no-deps --no-binary flash-attn \
        --require-hashes -r "$here/flash_attn.lock" -w "$wheels"
fi
if [ -n "${NVDIFFRAST:-}" ]; then
    case $STACK in
        sm_120) arch=12.0+PTX ;;
        *) arch=${STACK#sm_} && arch=${arch%?}.${arch#"${arch%?}"} ;;
    esac
    source=$(mktemp -d)
    git -C "$source" init --quiet
    git -C "$source" fetch --quiet --depth 1 https://github.com/NVlabs/nvdiffrast "$NVDIFFRAST_COMMIT"
    git -C "$source" checkout --quiet FETCH_HEAD
    TORCH_CUDA_ARCH_LIST=$arch python -m pip wheel --no-build-isolation --no-deps \
        -w "$wheels" "$source"
fi
