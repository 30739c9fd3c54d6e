#!/usr/bin/env python3
"""The competitors of `peers ann` that are used from Python.

`ann_worker.py NAME` answers the requests of the driver: one JSON object a line on standard input,
one on standard output, `{"ok": VALUE}` or `{"error": "text"}`, until standard input ends.
`ann_worker.py --self-check` builds every competitor that is installed on made vectors, through the
same protocol, and prints its recall.
"""

import argparse
import ctypes
import gc
import importlib.metadata
import json
import os
import signal
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from ann_competitors import COMPETITORS, Refused, need, unit_rows
from ann_self_check import made_vectors, self_check
from ann_timing import latencies, microseconds_per_job, summary, timed


class Server:
    """Answers requests about one competitor. Fields that a request has beyond those that are read
    here are of no matter."""

    def __init__(self, name):
        self.kind = COMPETITORS[name]
        self.competitor = None

    def answer(self, request):
        """The value of one request."""
        what = request["do"]
        if what == "open":
            return self.open(request)
        handlers = {
            "memory": self.memory,
            "reset": self.reset,
            "insert": self.insert,
            "search": self.search,
            "visits": self.visits,
            "beside": self.beside,
        }
        if what not in handlers:
            raise Refused(f"no such request: {what}")
        if self.competitor is None:
            raise Refused("open comes first")
        return handlers[what](request)

    def open(self, request):
        """Maps the vectors and tells what will be measured."""
        kind = self.kind
        need(kind.package)
        folder, dim = Path(request["folder"]), request["dim"]
        base = unit_rows(folder / "base.f32", dim)
        if request["rows"] > len(base):
            raise Refused(f"{request['rows']} rows are more than the {len(base)} of the file")
        base = base[: request["rows"]]
        competitor = kind(base, unit_rows(folder / "queries.f32", dim), request)
        how = f"{competitor.how()}; {self.overhead(competitor, request)}"
        self.competitor = competitor
        return {
            "version": f"{kind.distribution} {importlib.metadata.version(kind.distribution)}",
            "how": how,
            "incremental": kind.incremental,
            "counts_visits": kind.counts_visits,
            "reports_bytes": True,
        }

    def overhead(self, competitor, settings):
        """What a call costs when there is next to nothing to search."""
        few = competitor.rows_min
        rows = competitor.base[:few]
        tiny = self.kind(rows, rows, settings)
        tiny.reset(1)
        tiny.insert(0, few)
        tiny.set_ef(1)
        jobs, _found = tiny.jobs(0, 1, 1)
        call = microseconds_per_job(jobs * 200)
        loop = microseconds_per_job([partial(id, None)] * 200)
        rows_text = "1 row" if few == 1 else f"{few} rows"
        return (
            f"one call from Python on an index of {rows_text} takes {call:.1f} us, "
            f"the loop around it {loop:.2f} us of that"
        )

    def memory(self, _request):
        """Anonymous memory of this process, and the size that the index gives of itself."""
        gc.collect()
        # What the allocator keeps for later is no part of the index. Not every libc has this.
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
        status = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        kib = next(int(line.split()[1]) for line in status if line.startswith("RssAnon:"))
        reported = self.competitor.index_bytes() if self.competitor.count > 0 else None
        return {"anonymous_bytes": kib * 1024, "reported_bytes": reported}

    def reset(self, request):
        """An empty index, to be built with so many threads."""
        self.competitor.reset(request["threads"])
        return {}

    def insert(self, request):
        """Indexes rows `[from, to)`."""
        seconds, cpu_s = self.competitor.insert(request["from"], request["to"])
        return {"seconds": seconds, "cpu_s": cpu_s}

    def with_beam(self, request):
        """The competitor, which has rows, with its `ef` set."""
        if self.competitor.count == 0:
            raise Refused("there are no rows in the index")
        self.competitor.set_ef(request["ef"])
        return self.competitor

    def search(self, request):
        """Searches queries `[from, to)`, after some others that are not measured."""
        competitor = self.with_beam(request)
        start, end, k = request["from"], request["to"], request["k"]
        threads, repeat = request["threads"], request["repeat"]
        if not 0 <= start < end <= len(competitor.queries) or min(threads, repeat, k) < 1:
            raise Refused(f"nothing to do: queries {start} to {end}, {repeat} times, k {k}")
        warm_up = request.get("warm_up", 0)
        # Those before, or the last ones where there are not so many.
        warm_end = start if warm_up <= start else len(competitor.queries)
        warm_start = max(0, warm_end - warm_up)
        if request["batched"]:
            warm = [partial(competitor.batch, warm_start, warm_end, k, threads)] if warm_up else []
            job = partial(competitor.batch, start, end, k, threads)
            seconds, cpu_s, [[keys]] = timed([[job]], repeat, warm)
            found = keys.tolist
        else:
            warm, _kept = competitor.jobs(warm_start, warm_end, k)
            jobs, found_by = competitor.jobs(start, end, k)
            shares = [jobs[thread::threads] for thread in range(threads)]
            seconds, cpu_s, answers = timed(shares, repeat, warm)
            in_order = [None] * len(jobs)
            for thread, share in enumerate(answers):
                in_order[thread::threads] = share
            found = partial(found_by, in_order)
        answer = {"seconds": seconds, "cpu_s": cpu_s, "found": []}
        if request.get("answers", True):
            # A library that found too few fills up with a number that is no row.
            rows = range(competitor.count)
            answer["found"] = [[key for key in keys if key in rows] for keys in found()]
        return answer

    def visits(self, request):
        """Counts distance computations in an untimed pass."""
        return {"mean": self.with_beam(request).mean_visits(request["k"])}

    def beside(self, request):
        """Searches for so many seconds; none of these libraries allows a writer beside it."""
        if request["write"]:
            raise Refused(self.kind.no_writer_beside)
        competitor = self.with_beam(request)
        jobs, _found = competitor.jobs(0, len(competitor.queries), request["k"])
        taken = []
        begin = time.perf_counter()
        while (elapsed := time.perf_counter() - begin) < request["seconds"]:
            taken += latencies([jobs], 1)
        return {
            "latency": summary(taken),
            "searches_per_s": len(taken) / elapsed,
            "inserted_per_s": 0.0,
        }


def serve(name):
    """Answers requests until standard input ends."""
    # Libraries may write to standard output, which belongs to the protocol: they get standard
    # error in its place, below Python as well.
    output = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    # Python looks at signals only between calls into a library, and a build is one such call.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    # There are no cycles to speak of; `reset` and `memory` collect by hand.
    gc.disable()
    server = Server(name)
    for line in sys.stdin:
        try:
            answer = {"ok": server.answer(json.loads(line))}
        except Exception as error:  # Whatever a library raises ends this request, not the run.
            text = str(error) if isinstance(error, Refused) else f"{type(error).__name__}: {error}"
            answer = {"error": text}
        output.write(json.dumps(answer) + "\n")
        output.flush()


def main():
    """The command line."""
    parser = argparse.ArgumentParser(description="Competitors of `peers ann` in Python.")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("name", nargs="?", choices=COMPETITORS, help="answer requests about this one")
    what.add_argument("--self-check", action="store_true", help="try all that are installed")
    parser.add_argument(
        "--folder", type=Path, help="with --self-check: base.f32, queries.f32 (default: made)"
    )
    parser.add_argument("--dim", type=int, default=128, help="components of a row (default 128)")
    parser.add_argument("--rows", type=int, default=5000, help="rows to index (default 5000)")
    options = parser.parse_args()
    if options.name is not None:
        serve(options.name)
        return 0
    try:
        if options.folder is not None:
            return 0 if self_check(options.folder, options.dim, options.rows) else 1
        with tempfile.TemporaryDirectory() as folder:
            made_vectors(Path(folder), options.dim, options.rows)
            return 0 if self_check(Path(folder), options.dim, options.rows) else 1
    except Refused as error:
        print(error)
        return 1


if __name__ == "__main__":
    sys.exit(main())
