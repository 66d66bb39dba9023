#!/bin/sh
# The main job on shipped samples: an image to a GLB, a splat to a .sog. `sh tests/demo.sh [FOLDER]`
set -eu
out=${1:-out}
set -- ''
. "$(dirname "$0")/setup.sh"

mkdir -p "$out"
meshpress=$root/.venv/bin/meshpress
"$meshpress" mesh "$root/tests/samples/robot.png" -o "$out/robot.glb" -w
"$meshpress" sog "$root/tests/samples/playbot.compressed.ply" "$out/playbot.sog" -w

cat <<END

Done. The files lie in $(cd "$out" && pwd):
  robot.glb   Blender: File > Import > glTF 2.0; or drop it on any glTF viewer
  playbot.sog   drop it on the SuperSplat editor, or load it as a gsplat asset in PlayCanvas

Next: $meshpress serve, then
  curl -sSf --data-binary @tests/samples/robot.png http://127.0.0.1:8080/v1/mesh -o robot.glb
END
