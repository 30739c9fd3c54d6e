#!/usr/bin/env bash
# Runs the tests of the rooms that have `unsafe` code under valgrind's memcheck, which sees reads of
# what was never written, reads and writes out of bounds, and memory that nothing leads to any more.
# Optional: needs valgrind. It knows no AVX-512, so of the kernels AVX2 and the portable one are run.
#   scripts/valgrind.sh [FILTER ...]   tests whose names have a FILTER in them, instead of those below
set -euo pipefail
cd "$(dirname "$0")/.."
if ! command -v valgrind > /dev/null; then
    echo "valgrind is not installed" >&2
    exit 1
fi
if [ $# -eq 0 ]; then
    set -- distance:: index::arena:: index::columns:: index::rows:: index::zeroed:: kernels:: mapping:: \
        sync::stopwatch::
fi
cargo test --lib --no-run
program=$(cargo test --lib --no-run --message-format=json 2> /dev/null |
    sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)
# Fewer inputs: a program is fifty times slower in there.
PROPTEST_CASES="${PROPTEST_CASES:-16}" valgrind --quiet --error-exitcode=1 --fair-sched=yes \
    --leak-check=full --show-leak-kinds=definite --errors-for-leak-kinds=definite \
    "$program" --test-threads=1 "$@"
