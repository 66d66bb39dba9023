# Makes .venv beside this checkout and installs meshpress into it: `. tests/setup.sh [EXTRA]`.
# Sourced by demo.sh and run.sh; needs Python 3.11 to 3.13 and nothing else.

root=$(cd "$(dirname "$0")/.." && pwd)
extra=${1:-}

python=
for candidate in "${PYTHON:-}" python3 python3.13 python3.12 python3.11; do
    if [ -n "$candidate" ] && command -v "$candidate" >/dev/null 2>&1 &&
        "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))'; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    echo "meshpress needs Python 3.11, 3.12 or 3.13 on PATH, or in the variable PYTHON." >&2
    exit 2
fi

[ -x "$root/.venv/bin/python" ] || "$python" -m venv "$root/.venv"
echo "Installing into $root/.venv ..." >&2
"$root/.venv/bin/python" -m pip install --quiet --disable-pip-version-check -e "$root$extra"
