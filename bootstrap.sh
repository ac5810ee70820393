#!/bin/sh
# Makes .venv with everything Labferry, its tests and its tools need, from requirements.lock (hashes checked).
# Works on a bare Debian with Python 3.11+: where pip and venv are missing it asks apt for them, as root or through sudo.
set -eu
cd "$(dirname "$0")"
# The same version as in pyproject.toml, so that the sync leaves it alone.
UV_VERSION=0.13.8

fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }

# Debian's own Python comes first if it is complete: it is built with every optimisation, a version tool's rarely is,
# and the difference is a factor of two.
find_python() {
    for candidate in "${PYTHON:-}" /usr/bin/python3 python3 python3.13 python3.12 python3.11; do
        [ -n "$candidate" ] || continue
        "$candidate" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$candidate"; return; }
    done
    for candidate in "${PYTHON:-}" python3 python3.13 python3.12 python3.11; do
        [ -n "$candidate" ] || continue
        "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$candidate"; return; }
    done
    return 1
}

install_debian_packages() {
    command -v apt-get >/dev/null 2>&1 || fail "these are missing and there is no apt-get to install them: $*"
    if [ "$(id -u)" = 0 ]; then as_root=""; elif command -v sudo >/dev/null 2>&1; then as_root=sudo
    else fail "these Debian packages are needed; install them as root, then try again: $*"; fi
    $as_root apt-get update -qq && $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null \
        || fail "apt-get could not install: $*"
}

python=$(find_python) || { install_debian_packages python3 python3-venv; python=$(find_python) || fail "Python 3.11 or newer is needed"; }

stamp=.venv/.labferry-lock
if [ ! -x .venv/bin/uv ]; then
    "$python" -c 'import ensurepip, venv' 2>/dev/null || install_debian_packages python3-venv
    rm -rf .venv
    "$python" -m venv .venv
    .venv/bin/python -m pip install --quiet --disable-pip-version-check "uv==$UV_VERSION"
fi
if ! cat requirements.lock pyproject.toml | cmp -s - "$stamp"; then
    export VIRTUAL_ENV="$PWD/.venv"
    # A service starts twice as fast when nothing is left to compile.
    .venv/bin/uv pip sync --quiet --compile-bytecode --require-hashes requirements.lock
    .venv/bin/uv pip install --quiet --no-deps --no-build-isolation --editable .
    cat requirements.lock pyproject.toml > "$stamp"
fi
