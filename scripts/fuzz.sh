#!/usr/bin/env bash
# Runs a target of fuzz/ under libFuzzer: scripts/fuzz.sh TARGET SECONDS [ARGUMENT OF LIBFUZZER ...]
# On stable: the coverage that guides libFuzzer is asked for by flags, and there is no sanitizer, for
# which a nightly toolchain is needed (then `cargo fuzz run TARGET` is the way). Needs a C++ compiler.
# What fails is in fuzz/artifacts/TARGET; under a name of its own in fuzz/seeds/TARGET the ordinary
# tests run it from then on.
set -euo pipefail
cd "$(dirname "$0")/../fuzz"
target=$1 seconds=$2
shift 2

passes="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4"
for wanted in inline-8bit-counters pc-table trace-compares; do
    passes+=" -Cllvm-args=-sanitizer-coverage-$wanted"
done
export RUSTFLAGS="--cfg fuzzing $passes -Ccodegen-units=1 -Cdebug-assertions=on -Coverflow-checks=on"
# A target of the compiler, so that build scripts are not instrumented.
host=$(rustc -vV | sed -n 's/^host: //p')
cargo build --release --bin "$target" --target "$host"

mkdir -p "corpus/$target" "artifacts/$target"
"target/$host/release/$target" "corpus/$target" "seeds/$target" -max_total_time="$seconds" \
    -artifact_prefix="artifacts/$target/" -max_len=8192 -timeout=20 -malloc_limit_mb=256 \
    -print_final_stats=1 "$@"
