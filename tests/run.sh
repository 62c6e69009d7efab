#!/bin/sh
# Installs what the tests need and runs them: Debian packages where they are missing, a virtual environment in .venv.
# Arguments go to pytest. Most tests wait for somebody, so four at a time take little from each other (CPRO_TEST_JOBS).
set -eu
cd "$(dirname "$0")/.."

missing=""
command -v redis-server >/dev/null || missing="$missing redis-server"
command -v openssl >/dev/null || missing="$missing openssl"
python3 -c "import ensurepip" 2>/dev/null || missing="$missing python3-venv"
if [ -n "$missing" ]; then
    root=""
    [ "$(id -u)" = 0 ] || root="sudo"
    $root apt-get update -qq
    # shellcheck disable=SC2086 -- a list of names
    DEBIAN_FRONTEND=noninteractive $root apt-get install -y -qq --no-install-recommends $missing
fi

[ -x .venv/bin/python ] || python3 -m venv .venv
.venv/bin/python -m pip install -q --disable-pip-version-check -e ".[test]"
if command -v npm >/dev/null && command -v centrifugo >/dev/null; then
    npm install --silent --no-audit --no-fund --prefix tests/e2e/js
fi
exec .venv/bin/python -m pytest -n "${CPRO_TEST_JOBS:-4}" --dist worksteal "$@"
