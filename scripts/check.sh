#!/usr/bin/env bash
# Everything that has to pass before a change is kept: formatting, lints, documentation, all tests,
# the loom models, the random schedules, the examples, the benches, the demo. Needs cargo and a C
# compiler, and fetches crates.
# TALA_PEERS=1 also checks benches/peers, whose competitors take ten minutes to compile.
# TALA_SERVICE=1 also checks examples/ingest-service, whose web framework takes minutes to compile.
# TALA_PYTHON names a Python with the package hdrhistogram, by which interval logs are read back.
# TALA_KILLS=N sets the kills per durability level; see README.md for the other switches.
set -euo pipefail
cd "$(dirname "$0")/.."

# What is run is built once, with all that can be asked for; the lints see what is asked for by default.
all_features=tala-store/metrics,tala-store/tracing

step() {
    printf '\n==> %s (%s s so far)\n' "$1" "$SECONDS"
    shift
    "$@"
}

check_rust_version() {
    local wanted found
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
    found=$(rustc --version | cut -d ' ' -f 2)
    case "$found" in
        "$wanted".*) echo "rustc $found is the rust-version $wanted: it is checked by this run" ;;
        *) echo "rustc $found is newer than the rust-version $wanted, which this run does not check" ;;
    esac
}

loom() {
    RUSTFLAGS="--cfg loom -C debug-assertions" LOOM_MAX_PREEMPTIONS="${LOOM_MAX_PREEMPTIONS:-2}" \
        cargo test --release --no-default-features --test loom --target-dir target/loom "$@"
}

shuttle() {
    RUSTFLAGS="--cfg shuttle -C debug-assertions" \
        cargo test --release --no-default-features --test shuttle --target-dir target/shuttle "$@"
}

# Not to measure, but to see that all of them run, and that recall is what it has to be. So they are built
# as the tests are, from what those have already built and with their assertions. What criterion is about
# to do matters only to who waits for it.
benches() {
    cargo bench --quiet --profile dev --package tala-store --features "$all_features" -- --quick --quiet 2>&1 |
        grep -v '^Benchmarking '
}

# The tool as the tests have built it: the lints have seen it as users build it.
demo() {
    "${CARGO_TARGET_DIR:-target}/debug/tala-store" demo
}

# What comes after the tests, compiled while those wait for disks and clocks, by what is left of the
# processors. Each has a target directory of its own, so that nobody waits for a lock.
ahead_log=$(mktemp)
ahead=
trap 'rm -f "$ahead_log"; [ -z "$ahead" ] || kill "$ahead" 2>/dev/null || true' EXIT

begin_ahead() {
    {
        renice -n 19 -p "$BASHPID" || true
        loom --no-run && shuttle --no-run
    } >"$ahead_log" 2>&1 &
    ahead=$!
}

end_ahead() {
    if ! wait "$ahead"; then
        cat "$ahead_log"
        return 1
    fi
    ahead=
}

# Those of the workspace, and of the crates that stand outside of it and are not all built here.
lock_files() {
    local manifest
    for manifest in Cargo.toml benches/peers/Cargo.toml examples/ingest-service/Cargo.toml fuzz/Cargo.toml; do
        cargo metadata --locked --format-version 1 --manifest-path "$manifest" >/dev/null
    done
}

step "Rust version" check_rust_version
step "Lock files" lock_files
step "Formatting" cargo fmt --all --check
step "Formatting of the comparison" cargo fmt --manifest-path benches/peers/Cargo.toml --check
step "Formatting of the service" cargo fmt --manifest-path examples/ingest-service/Cargo.toml --check
step "Formatting of the fuzz targets" cargo fmt --manifest-path fuzz/Cargo.toml --check
step "Lints" cargo clippy --workspace --all-targets -- -D warnings
step "Lints as users build it" cargo clippy -p tala-store --lib --bins -- -D warnings
step "Lints without the tool" cargo clippy -p tala-store --lib --no-default-features -- -D warnings
step "Documentation" env RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --quiet
step "Tests are built" cargo test --workspace --features "$all_features" --quiet --no-run
begin_ahead
# The stress test on threads has half a minute here.
step "Tests" env TALA_STRESS_SECONDS="${TALA_STRESS_SECONDS:-30}" \
    cargo test --workspace --features "$all_features" --quiet
step "Models are built" end_ahead
step "Loom models" loom -- --nocapture
step "Random schedules" shuttle -- --nocapture
step "Examples" cargo run --quiet --features "$all_features" --example quickstart
step "Examples" cargo run --quiet --features "$all_features" --example many_writers
step "Benches" benches
if [ "${TALA_PEERS:-0}" = 1 ]; then
    step "Lints of the comparison" \
        cargo clippy --manifest-path benches/peers/Cargo.toml --all-targets -- -D warnings
    step "Tests of the comparison" cargo test --manifest-path benches/peers/Cargo.toml --quiet
else
    echo "benches/peers is only formatted: TALA_PEERS=1 checks it"
fi
if [ "${TALA_SERVICE:-0}" = 1 ]; then
    step "Lints of the service" \
        cargo clippy --manifest-path examples/ingest-service/Cargo.toml --all-targets -- -D warnings
    step "Tests of the service" cargo test --manifest-path examples/ingest-service/Cargo.toml --quiet
else
    echo "examples/ingest-service is only formatted: TALA_SERVICE=1 checks it"
fi
step "Demo" demo

printf '\nAll checks passed in %s s.\n' "$SECONDS"
