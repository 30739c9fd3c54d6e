#!/usr/bin/env python3
"""Reads an HdrHistogram interval log with the package `hdrhistogram` of PyPI.

For every tag, all intervals added up, as one JSON object: the number of times, some percentiles,
and each bucket that was recorded into, as [least value, count]. Values are as in the log.

Usage: read_hlog.py FILE.hlog
Exit status: 0 read; 1 not readable; 3 the package is not there (pip install hdrhistogram).
"""

import json
import sys

try:
    from hdrh.histogram import HdrHistogram
    from hdrh.log import HistogramLogReader
except ImportError as error:
    print(f"the package hdrhistogram is not there: {error}", file=sys.stderr)
    sys.exit(3)

LEAST, LARGEST, DIGITS = 1, 60_000_000_000, 3


def summary(histogram):
    buckets = [
        [histogram.get_lowest_equivalent_value(item.value_iterated_to), item.count_at_value_iterated_to]
        for item in histogram.get_recorded_iterator()
    ]
    percentiles = {str(at): histogram.get_value_at_percentile(at) for at in (50, 99, 99.9, 100)}
    return {"count": histogram.get_total_count(), "percentiles": percentiles, "buckets": buckets}


def main(path):
    reader = HistogramLogReader(path, HdrHistogram(LEAST, LARGEST, DIGITS))
    sums, intervals = {}, {}
    while (interval := reader.get_next_interval_histogram()) is not None:
        tag = interval.get_tag()
        intervals[tag] = intervals.get(tag, 0) + 1
        sums.setdefault(tag, HdrHistogram(LEAST, LARGEST, DIGITS)).add(interval)
    told = {tag: summary(total) | {"intervals": intervals[tag]} for tag, total in sums.items()}
    json.dump(told, sys.stdout)
    if not told:
        sys.exit(1)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
