#!/bin/sh
# Coverage-guided fuzzing under the address and undefined-behaviour sanitizers: tests/fuzz/run.sh [seconds per target].
# With --corpus it makes the corpus anew instead. Exit code 1 when something was found; findings and what the runs have
# learned stay in .venv-fuzz. FUZZ_TARGETS chooses among the targets.
#
# The engine is libFuzzer by way of atheris, whose wheel brings the sanitizers' library. It comes before everything else
# (LD_PRELOAD), and PYTHONMALLOC=malloc lets it watch over every bytes object. Python itself leaks on purpose.
set -eu
cd "$(dirname "$0")/../.."
targets=${FUZZ_TARGETS:-request response forward event answer frames commands row segment}

if ! command -v clang >/dev/null; then
    root=""
    [ "$(id -u)" = 0 ] || root="sudo"
    $root apt-get update -qq
    DEBIAN_FRONTEND=noninteractive $root apt-get install -y -qq --no-install-recommends clang
fi
[ -x .venv-fuzz/bin/python ] || python3 -m venv .venv-fuzz
CPRO_SANITIZE=1 CC=clang LDSHARED="clang -shared" .venv-fuzz/bin/python -m pip install -q --disable-pip-version-check ".[fuzz]"
library="$(.venv-fuzz/bin/python -c 'import atheris; print(atheris.path())')/asan_with_fuzzer.so"

sanitized() {
    LD_PRELOAD="$library" PYTHONMALLOC=malloc ASAN_OPTIONS=detect_leaks=0:quarantine_size_mb=64 .venv-fuzz/bin/python -m "$@"
}

work=.venv-fuzz/fuzz
mkdir -p "$work"

if [ "${1:-}" = --corpus ]; then
    rm -rf "$work/seeds" "$work/merged"
    sanitized tests.fuzz.make_corpus "$work/seeds"
    for target in $targets; do
        mkdir -p "$work/merged/$target"
        sanitized tests.fuzz.engine "$target" -merge=1 "$work/merged/$target" "$work/seeds/$target" 2>"$work/$target.log"
        sanitized tests.fuzz.make_corpus "$work/seeds/$target" "$work/merged/$target" "tests/fuzz/corpus/$target"
        echo "$target: $(find "tests/fuzz/corpus/$target" -type f | wc -l) files"
    done
    exit
fi

found=0
for target in $targets; do
    case $target in
        event | answer) words=json ;;
        commands | frames) words=client ;;
        *) words=http ;;
    esac
    case $target in event | answer) words=json ;; row | segment) words=journal ;; *) words=http ;; esac
    mkdir -p "$work/$target"
    if sanitized tests.fuzz.engine "$target" -max_total_time="${1:-60}" -max_len=1024 -timeout=10 -rss_limit_mb=2048 \
        -dict="tests/fuzz/dictionaries/$words.dict" -artifact_prefix="$work/found-$target-" \
        "$work/$target" "tests/fuzz/corpus/$target" >"$work/$target.log" 2>&1; then
        echo "$target: $(grep -a 'DONE ' "$work/$target.log" | tail -n 1)"
    else
        found=1
        echo "$target: FOUND SOMETHING, whole log in $work/$target.log"
        grep -aE 'ERROR|Error|Test unit written' "$work/$target.log" || tail -n 20 "$work/$target.log"
    fi
done
exit $found
