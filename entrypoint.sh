#!/bin/sh
# Entry point of the images: `docker run IMAGE serve|api|worker|doctor`.
#
# Every word ends in an exec, so that the service is the process that gets the signals. Serving runs
# the start-up checks itself and obeys MESHPRESS_GUARD; what it cannot do ends with exit code 2.
set -eu

word=${1:-serve}
case $word in
    serve | api | worker | doctor | health | train | mesh | sog | jobs) [ $# -eq 0 ] || shift ;;
    --version | --help | -h) exec meshpress "$@" ;;
    -*) word=serve ;; # `docker run IMAGE --port 9000`
esac

# A container is reached from outside it; elsewhere the default stays the loopback address.
export MESHPRESS_HOST="${MESHPRESS_HOST:-0.0.0.0}"
# An image made for a GPU does not quietly work without one.
case ${MESHPRESS_VARIANT:-} in sm_*) export MESHPRESS_DEVICES="${MESHPRESS_DEVICES:-cuda}" ;; esac

case $word in
    serve) exec meshpress serve "$@" ;;
    api | worker) exec meshpress serve --role "$word" "$@" ;;
    doctor | mesh | sog | jobs) exec meshpress "$word" "$@" ;;
    health)
        # HEALTHCHECK. A worker opens no port: it is well while the process that counts, 1, is there.
        case $(tr '\0' ' ' </proc/1/cmdline) in *'--role worker'*) exit 0 ;; esac
        port=${SAGEMAKER_BIND_TO_PORT:-${MESHPRESS_PORT:-8080}}
        exec python3 -c 'import http.client, sys
ping = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=4)
ping.request("GET", "/ping")
sys.exit(ping.getresponse().status != 200)' "$port"
        ;;
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
