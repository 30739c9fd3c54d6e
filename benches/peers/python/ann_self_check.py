"""Drives every competitor that is installed as the driver does, so that the script can be tried
alone."""

import json
import math
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

from ann_competitors import COMPETITORS, Refused, need, unit_rows

K = 10
# At a beam of 200 a sound graph over some thousand rows finds nearly all; one whose keys, metric
# or parameters are wrong is far below.
EF_WIDE = 200
RECALL_LEAST = 0.9


class Child:
    """A competitor in a process of its own."""

    def __init__(self, name):
        script = Path(__file__).with_name("ann_worker.py")
        self.process = subprocess.Popen(
            [sys.executable, str(script), name],
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def ask(self, do, **fields):
        """The value of the answer."""
        self.process.stdin.write(json.dumps({"do": do, **fields}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise Refused("ended without an answer")
        answer = json.loads(line)
        if "error" in answer:
            raise Refused(answer["error"])
        return answer["ok"]

    def close(self):
        """Ends it; its exit code."""
        self.process.stdin.close()
        code = self.process.wait()
        self.process.stdout.close()
        return code


def self_check(folder, dim, rows):
    """Tries every competitor on the first `rows` rows of a folder; whether at least one is
    installed, and none that is fails."""
    numpy = need("numpy")
    base = unit_rows(folder / "base.f32", dim)[:rows]
    queries = unit_rows(folder / "queries.f32", dim)
    truth = numpy.argsort(-(queries @ base.T), axis=1, kind="stable")[:, :K].tolist()
    shape = {"dim": dim, "rows": len(base), "m": 16, "ef_construction": 200, "seed": 7}
    good = []
    for name in COMPETITORS:
        child = Child(name)
        try:
            opened = child.ask("open", folder=str(folder.resolve()), **shape)
        except Refused as error:
            print(f"{name}: not tried: {error}")
        else:
            print(f"{name}: {opened['version']}: {opened['how']}")
            try:
                build(child, len(base), opened["incremental"])
                good.append(search(child, truth))
                extras(child)
            except Refused as error:
                print(f"  FAILED: {error}")
                good.append(False)
        code = child.close()
        if code != 0:
            print(f"  FAILED: exit code {code}")
            good.append(False)
    return any(good) and all(good)


def build(child, count, incremental):
    """Builds at one thread, then at two, slice by slice where that is possible."""
    before = child.ask("memory")["anonymous_bytes"]
    for threads in (1, 2):
        child.ask("reset", threads=threads)
        slices = 4 if incremental else 1
        cuts = [count * i // slices for i in range(slices + 1)]
        spans = [{"from": start, "to": end} for start, end in pairwise(cuts)]
        answers = [child.ask("insert", **span) for span in spans]
        seconds, cpu_s = (sum(answer[name] for answer in answers) for name in ("seconds", "cpu_s"))
        print(
            f"  threads {threads}: {count / seconds:.0f} rows/s built, "
            f"{cpu_s / seconds:.2f} s of processor time a second"
        )
    memory = child.ask("memory")
    grown, own = memory["anonymous_bytes"] - before, memory["reported_bytes"]
    print(f"  grown by {grown / 1e6:.1f} MB, by its own account {own / 1e6:.1f} MB")


def search(child, truth):
    """Searches in each of the ways; whether each finds enough at the widest beam."""
    everything = {"from": 0, "to": len(truth), "repeat": 3, "k": K, "warm_up": 32}
    good = True
    for ef in (10, 50, EF_WIDE):
        for batched in (False, True):
            for threads in (1, 2):
                way = {"ef": ef, "threads": threads, "batched": batched}
                result = child.ask("search", **everything, **way)
                pairs = zip(truth, result["found"], strict=True)
                hits = sum(len(set(right) & set(keys)) for right, keys in pairs)
                recall = hits / (K * len(truth))
                rate = everything["repeat"] * len(truth) / result["seconds"]
                enough = ef < EF_WIDE or recall > RECALL_LEAST
                good &= enough
                how = "batched" if batched else "one per call"
                verdict = "" if enough else f" FAILED: not above {RECALL_LEAST}"
                print(
                    f"  ef {ef}, {how}, threads {threads}: recall@{K} {recall:.4f}, "
                    f"{rate:.0f} queries/s{verdict}"
                )
    return good


def extras(child):
    """What not every competitor can do."""
    for what, fields in (
        ("visits", {}),
        ("beside", {"seconds": 0.2, "write": False}),
        ("beside", {"seconds": 0.2, "write": True}),
    ):
        try:
            answer = child.ask(what, ef=50, k=K, **fields)
        except Refused as error:
            answer = error
        print(f"  {what} {fields}: {answer}")


def made_vectors(folder, dim, rows):
    """Writes clustered vectors of unit length: 50 rows around a center, half as far apart."""
    numpy = need("numpy")
    random = numpy.random.default_rng(7)
    centers = random.standard_normal((math.ceil(rows / 50), dim))
    for name, count in (("base", rows), ("queries", 200)):
        around = centers[random.integers(len(centers), size=count)]
        vectors = around + 0.5 * random.standard_normal((count, dim))
        vectors /= numpy.linalg.norm(vectors, axis=1, keepdims=True)
        vectors.astype("<f4").tofile(folder / f"{name}.f32")
