#!/usr/bin/env bash
# One run of the service under load: 30 s in a closed loop, then as long in an open one at 70% of the
# requests that the closed one had answered. What it prints and keeps: latencies by route, the interval
# log of the engine and its pictures, the page for Prometheus, read by another's parser.
#
#   bash examples/ingest-service/measure.sh OUT [SECONDS [CONNECTIONS [BATCH [DIM]]]]
#
# OUT is created, on the disk that is to be measured. TALA_PYTHON names a Python with the package
# prometheus_client; without one the page is kept and not read. CARGO_TARGET_DIR is respected.
set -euo pipefail
out=$(realpath -m "$1")
seconds=${2:-30} connections=${3:-16} batch=${4:-10} dim=${5:-384}
cd "$(dirname "$0")"
target=${CARGO_TARGET_DIR:-target}
cargo build --quiet --release
cargo build --quiet --release --manifest-path ../../Cargo.toml --target-dir "$target" --bin tala-store
mkdir -p "$out"
rm -rf "$out/store" "$out/store-dumps"

"$target/release/ingest-service" "$out/store" 127.0.0.1:0 "$dim" 100000 1 > "$out/service.log" &
service=$!
trap 'kill -TERM "$service" 2> "$out/kill.log" || true' EXIT
until grep -q '^listening on ' "$out/service.log"; do
    kill -0 "$service"
    sleep 0.05
done
addr=$(sed -n 's/^listening on //p' "$out/service.log")

load() {
    "$target/release/load" "$addr" "$seconds" "$connections" "$batch" "$dim" "$@"
}

uptime
load | tee "$out/closed.txt"
answered=$(awk '/when it was sent$/ { sum += $3 } END { print int(sum * 0.7) }' "$out/closed.txt")
load "$answered" | tee "$out/open.txt"
curl --silent --fail "$addr/metrics" > "$out/metrics.txt"
curl --silent --fail --request POST "$addr/dump" > "$out/dump.json"
curl --silent --fail "$addr/healthz"
echo
trap - EXIT
kill -TERM "$service"
wait "$service"
tail -n 1 "$out/service.log"

"$target/release/tala-store" hist report "$out/store-dumps/intervals.hlog" --svg "$out/pictures" |
    tee "$out/report.txt"
"${TALA_PYTHON:-python3}" - "$out/metrics.txt" << 'END' || [ $? -eq 3 ]
import sys
try:
    from prometheus_client.parser import text_string_to_metric_families as parse
except ImportError:
    print("prometheus_client is not there: the page is not read")
    sys.exit(3)
families = list(parse(open(sys.argv[1]).read()))
for family in families:
    assert family.documentation and family.type != "unknown", family.name
samples = sum(len(family.samples) for family in families)
histograms = sum(family.type == "histogram" for family in families)
print(f"prometheus_client reads {len(families)} families, {histograms} of histograms, {samples} samples")
END
