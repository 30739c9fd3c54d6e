#!/usr/bin/env bash
# Runs the tests of rooms that have `unsafe` code, as far as miri can, under miri, which sees undefined
# behaviour of any kind in what it runs: aliasing, provenance, alignment, races. Of the kernels that is the portable
# code; mapped files and foreign functions (simsimd) it cannot run.
# Optional: needs a nightly toolchain with the components miri and rust-src.
#   scripts/miri.sh [FILTER ...]   tests whose names have a FILTER in them, instead of those below
set -euo pipefail
cd "$(dirname "$0")/.."
if ! cargo +nightly miri --version > /dev/null 2>&1; then
    echo "there is no nightly toolchain with miri: rustup component add --toolchain nightly miri rust-src" >&2
    exit 1
fi
if [ $# -eq 0 ]; then
    set -- index::columns:: index::rows:: index::zeroed:: kernels::
fi
# proptest looks for files of earlier failures, which miri refuses unless it is told not to.
MIRIFLAGS="${MIRIFLAGS:--Zmiri-disable-isolation}" PROPTEST_CASES="${PROPTEST_CASES:-2}" \
    cargo +nightly miri test --lib --target-dir target/miri -- "$@"
