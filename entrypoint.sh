#!/bin/sh
# Entry point of the images: `docker run IMAGE serve|api|worker|doctor`.
#
# Every word ends in an exec, so that the service is the process that gets the signals. Serving runs
# the start-up checks itself and obeys MESHPRESS_GUARD; what it cannot do ends with exit code 2.
set -eu

word=${1:-serve}
case $word in
    serve | api | worker | doctor | train | mesh | sog | jobs) [ $# -eq 0 ] || shift ;;
    --version | --help | -h) exec meshpress "$@" ;;
    -*) word=serve ;; # `docker run IMAGE --port 9000`
esac

# A container is reached from outside it; elsewhere the default stays the loopback address.
export MESHPRESS_HOST="${MESHPRESS_HOST:-0.0.0.0}"

case $word in
    serve) exec meshpress serve "$@" ;;
    api | worker) exec meshpress serve --role "$word" "$@" ;;
    doctor | mesh | sog | jobs) exec meshpress "$word" "$@" ;;
    train)
        reason="meshpress is for inference; it cannot train. Start it with: serve"
        # SageMaker shows the content of this file as the reason of a failed training job.
        if [ -d /opt/ml/output ]; then echo "$reason" > /opt/ml/output/failure || true; fi
        echo "entrypoint: $reason" >&2
        exit 2
        ;;
    *)
        echo "entrypoint: there is no '$word'; use one of: serve api worker doctor mesh sog jobs" >&2
        exit 2
        ;;
esac
