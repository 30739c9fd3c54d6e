"""Clocks around prepared jobs. A job is a callable without arguments; a share is a list of them
that one thread runs in order."""

import math
import threading
import time


def timed(shares, repeat, warm_up=()):
    """Runs each share of jobs in a thread of its own, all of it `repeat` times, after each thread
    has run the jobs of `warm_up`, which are not measured; the seconds of wall time and of processor
    time of all threads, and for each share what its last pass returned."""
    spans = [None] * len(shares)
    answers = [None] * len(shares)
    together = threading.Barrier(len(shares))

    def loop(share):
        jobs = shares[share]
        try:
            for job in warm_up:
                job()
        finally:
            # Whatever became of the warm-up: the others wait for this thread.
            together.wait()
        begin = now()
        for _ in range(repeat):
            last = [job() for job in jobs]
        spans[share] = (begin, now())
        answers[share] = last

    in_threads(loop, len(shares))
    # Both clocks are of the process: who was first by one was first by the other.
    first, last = min(begin for begin, _ in spans), max(end for _, end in spans)
    return *between(first, last), answers


def now():
    """Wall time and processor time of all threads, in nanoseconds."""
    return time.perf_counter_ns(), time.process_time_ns()


def between(first, last):
    """The seconds of both from one `now` to another."""
    return (last[0] - first[0]) / 1e9, (last[1] - first[1]) / 1e9


def latencies(shares, repeat):
    """As `timed`, but with a clock around every job; the nanoseconds of all."""
    taken = [[] for _ in shares]
    together = threading.Barrier(len(shares))

    def loop(share):
        clock, note, jobs = time.perf_counter_ns, taken[share].append, shares[share]
        together.wait()
        for _ in range(repeat):
            for job in jobs:
                begin = clock()
                job()
                note(clock() - begin)

    in_threads(loop, len(shares))
    return [nanoseconds for share in taken for nanoseconds in share]


def in_threads(loop, count):
    """Runs `loop(0)` to `loop(count - 1)` at once; a single one in this thread. What any of them
    raises is raised here, and then there is no measurement."""
    failures = []

    def guarded(share):
        try:
            loop(share)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(share,)) for share in range(1, count)]
    for thread in threads:
        thread.start()
    guarded(0)
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def summary(nanoseconds):
    """The figures that are reported of some latencies; a quantile is the nearest rank."""
    ordered = sorted(nanoseconds)

    def quantile(q):
        return ordered[max(0, math.ceil(q * len(ordered)) - 1)] / 1e3

    return {
        "count": len(ordered),
        "p50_us": quantile(0.5),
        "p99_us": quantile(0.99),
        "p999_us": quantile(0.999),
        "max_us": ordered[-1] / 1e3,
    }


def microseconds_per_job(jobs):
    """The least of some passes, so that it is the cost and not what else the machine does."""
    return min(timed([jobs], 1)[0] for _ in range(50)) / len(jobs) * 1e6
