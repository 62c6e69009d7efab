#!/bin/sh
# Builds the extensions with bounds checks and assertions, apart from the ordinary build, and runs the unit tests on them.
set -eu
cd "$(dirname "$0")/.."
export CPRO_DEBUG=1
[ -x .venv-debug/bin/python ] || python3 -m venv .venv-debug
.venv-debug/bin/python -m pip install -q --disable-pip-version-check ".[test]"
exec .venv-debug/bin/python -m pytest -n "${CPRO_TEST_JOBS:-4}" --dist worksteal tests/unit "$@"
