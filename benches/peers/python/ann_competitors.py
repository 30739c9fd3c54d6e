"""The libraries behind one interface. Rows are f32, row-major, `[rows, dim]`, and of unit length;
a key is a row number.

All get the same rows, so that the largest inner product, the largest cosine and the smallest
Euclidean distance are the same neighbor. One query per call means one call of the library's own
function with prepared arguments. Every such call gives up Python's global lock, so searching
threads do run at once.
"""

import gc
import importlib
import math
import tempfile
import time
from functools import partial
from pathlib import Path

from ann_timing import between, now


class Refused(Exception):
    """What is answered as an error; the text is for the reader of the table."""


def need(package):
    """The module `package`, or the reason why there is none."""
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise Refused(f"the Python package {error.name} is missing") from error
    except ImportError as error:
        raise Refused(f"the Python package {package} cannot be loaded: {error}") from error


def unit_rows(path, dim):
    """The rows of a file, mapped; a copy with length 1 where the file's rows have another."""
    numpy = need("numpy")
    rows = numpy.asarray(numpy.memmap(path, dtype="<f4", mode="r")).reshape(-1, dim)
    norms = numpy.sqrt(numpy.einsum("ij,ij->i", rows, rows, dtype=numpy.float64))
    # As the competitors of the driver's own program have it.
    if numpy.abs(norms - 1.0).max() < 5e-7:
        return rows
    norms[norms == 0.0] = 1.0
    return (rows / norms[:, None]).astype(numpy.float32)


class Competitor:
    """What they have in common: an index over the first `count` rows of `base`, keys in order."""

    package = ""
    distribution = ""
    incremental = True
    counts_visits = False
    # An index of so many rows is used to measure what a call costs before it searches.
    rows_min = 1
    no_writer_beside = ""

    def __init__(self, base, queries, settings):
        self.base = base
        self.queries = queries
        self.m = settings["m"]
        self.ef_construction = settings["ef_construction"]
        self.seed = settings["seed"]
        self.index = None
        self.count = 0
        self.threads = 1
        self.library = need(self.package)
        self.numpy = need("numpy")

    def how(self):
        """How the library was built and is used, as one sentence without its end."""
        raise NotImplementedError

    def empty(self):
        """A new index, with capacity for all of `base`."""
        raise NotImplementedError

    def add(self, start, end):
        """Indexes rows `[start, end)` with `self.threads` threads."""
        raise NotImplementedError

    def set_ef(self, ef):
        """Sets the search beam of all that follows."""
        raise NotImplementedError

    def jobs(self, start, end, k):
        """Prepares queries `[start, end)`: a callable for each, and a function that turns the
        list of what they returned into the list of the keys that they found."""
        raise NotImplementedError

    def batch(self, start, end, k, threads):
        """Searches queries `[start, end)` in one call; the keys, `[queries, k]`."""
        raise NotImplementedError

    def index_bytes(self):
        """What the index says of its own size, the rows included."""
        raise NotImplementedError

    def mean_visits(self, k):
        """Distance computations of a query, the mean over all queries."""
        raise Refused(f"{self.package} does not count its distance computations in Python")

    def reset(self, threads):
        """Drops the index and makes an empty one."""
        self.threads = threads
        self.index = None
        self.count = 0
        gc.collect()
        self.index = self.empty()

    def insert(self, start, end):
        """Indexes the next rows; the seconds of wall and of processor time it took."""
        if self.index is None:
            raise Refused("no index yet: reset comes first")
        if start != self.count or not start < end <= len(self.base):
            raise Refused(f"rows {start} to {end} do not follow {self.count} of {len(self.base)}")
        if not self.incremental and start > 0:
            raise Refused("a static index takes its rows in one call")
        begin = now()
        self.add(start, end)
        taken = between(begin, now())
        self.count = end
        return taken


class Hnswlib(Competitor):
    """hnswlib through `add_items` and `knn_query`."""

    package = "hnswlib"
    distribution = "hnswlib"
    no_writer_beside = (
        "hnswlib's documentation: knn_query is thread-safe with other knn_query calls, "
        "but not with add_items"
    )

    def how(self):
        # The module cannot be asked, but its kernels have names. It has those of AVX and AVX-512
        # only if it was compiled for a processor that has them.
        code = Path(self.library.__file__).read_bytes()
        kernels = [k for k in ("AVX512", "AVX", "SSE") if f"SIMD16Ext{k}E".encode() in code]
        simd = f"kernels for {', '.join(kernels)}" if kernels else "kernels unknown"
        return (
            "compiled by pip from its source, by default with -O3 -march=native "
            f"({simd} in the module, the best one taken at run time); space 'ip', f32 rows "
            "beside their links in one block; size is that of its file"
        )

    def empty(self):
        index = self.library.Index(space="ip", dim=self.base.shape[1])
        index.init_index(
            max_elements=len(self.base),
            M=self.m,
            ef_construction=self.ef_construction,
            random_seed=self.seed,
        )
        return index

    def add(self, start, end):
        keys = self.numpy.arange(start, end)
        self.index.add_items(self.base[start:end], keys, num_threads=self.threads)

    def set_ef(self, ef):
        self.index.set_ef(ef)

    def jobs(self, start, end, k):
        search = self.index.knn_query
        jobs = [partial(search, self.queries[i : i + 1], k, 1) for i in range(start, end)]
        return jobs, first_of_pairs

    def batch(self, start, end, k, threads):
        return self.index.knn_query(self.queries[start:end], k, threads)[0]

    def index_bytes(self):
        return self.index.index_file_size()


class FaissHnswFlat(Competitor):
    """faiss' HNSW over the rows as they are."""

    package = "faiss"
    distribution = "faiss-cpu"
    counts_visits = True
    no_writer_beside = (
        "faiss' documentation: searches may run at once, but not beside a call that changes "
        "the index, which the caller must lock out"
    )
    codes = "IndexHNSWFlat, f32 rows"

    def how(self):
        level = self.library.SIMDConfig.get_level_name()
        return (
            f"PyPI's wheel, compiled for {self.library.get_compile_options().strip()}, running "
            f"at {level}; {self.codes}, inner product; one query per call is its own search_c on "
            "prepared pointers; size is that of its codes, links, offsets and levels"
        )

    def bare(self):
        """The index as its constructor makes it."""
        faiss = self.library
        return faiss.IndexHNSWFlat(self.base.shape[1], self.m, faiss.METRIC_INNER_PRODUCT)

    def empty(self):
        index = self.bare()
        index.hnsw.efConstruction = self.ef_construction
        index.hnsw.rng = self.library.RandomGenerator(self.seed)
        return index

    def add(self, start, end):
        self.library.omp_set_num_threads(self.threads)
        self.index.add(self.base[start:end])

    def set_ef(self, ef):
        self.index.hnsw.efSearch = ef

    def jobs(self, start, end, k):
        pointer, search = self.library.swig_ptr, self.index.search_c
        similarities = self.numpy.empty((end - start, k), dtype=self.numpy.float32)
        keys = self.numpy.empty((end - start, k), dtype=self.numpy.int64)
        jobs = [
            partial(
                search,
                1,
                pointer(self.queries[start + i : start + i + 1]),
                k,
                pointer(similarities[i : i + 1]),
                pointer(keys[i : i + 1]),
            )
            for i in range(end - start)
        ]

        # A pointer keeps no array alive, so this function has to hold both until it is dropped.
        def found(_answers, _kept=similarities):
            return keys.tolist()

        return jobs, found

    def batch(self, start, end, k, threads):
        self.library.omp_set_num_threads(threads)
        return self.index.search(self.queries[start:end], k)[1]

    def index_bytes(self):
        hnsw = self.index.hnsw
        codes = self.library.downcast_index(self.index.storage).codes.size()
        return codes + 4 * hnsw.neighbors.size() + 8 * hnsw.offsets.size() + 4 * hnsw.levels.size()

    def mean_visits(self, k):
        stats = self.library.cvar.hnsw_stats
        stats.reset()
        self.batch(0, len(self.queries), k, 1)
        return stats.ndis / len(self.queries)


class FaissHnswSq8(FaissHnswFlat):
    """faiss' HNSW over 8 bits a component, which it does not re-rank."""

    codes = "IndexHNSWSQ, QT_8bit codes alone, no re-rank"

    def how(self):
        begin = time.perf_counter_ns()
        self.empty()
        seconds = (time.perf_counter_ns() - begin) / 1e9
        return f"{super().how()}; training on the base took {seconds:.3f} s, no part of the inserts"

    def bare(self):
        faiss = self.library
        index = faiss.IndexHNSWSQ(
            self.base.shape[1],
            faiss.ScalarQuantizer.QT_8bit,
            self.m,
            faiss.METRIC_INNER_PRODUCT,
        )
        faiss.omp_set_num_threads(self.threads)
        index.train(self.base)
        return index


class SymphonyQg(Competitor):
    """SymphonyQG (Gou and others, 2025) by its authors."""

    package = "rabitqlib"
    distribution = "rabitqlib"
    incremental = False
    no_writer_beside = "SymphonyQG is static: a new row means a new index"

    def __init__(self, base, queries, settings):
        super().__init__(base, queries, settings)
        self.ef = 0
        # HNSW has 2 M links where all rows are, which is what a degree means here; the library
        # takes multiples of 32.
        self.degree = 32 * math.ceil(2 * self.m / 32)
        self.rows_min = self.degree + 1

    def how(self):
        return (
            "PyPI's wheel, which takes AVX-512 or AVX2 at run time; SymqgIndex with degree "
            f"{self.degree} (2 M), its default metric 'l2', which orders unit vectors as the inner "
            "product does, f32 rows beside 1-bit codes of their neighbors, its default start "
            "'pipnn', no seed to set; several queries by its search_batch; size is that of its file"
        )

    def empty(self):
        return self.library.SymqgIndex(dim=self.base.shape[1], max_degree=self.degree)

    def add(self, start, end):
        self.index.build(self.base[start:end], self.ef_construction, self.threads)

    def set_ef(self, ef):
        self.ef = ef

    def jobs(self, start, end, k):
        # It refuses a beam that is narrower than k, which the others widen on their own.
        ef, search = max(self.ef, k), self.index.search
        jobs = [partial(search, self.queries[i : i + 1], k, ef, 1) for i in range(start, end)]
        return jobs, first_of_pairs

    def batch(self, start, end, k, threads):
        return self.index.search_batch(self.queries[start:end], k, max(self.ef, k), threads)[0]

    def index_bytes(self):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "index")
            self.index.save(str(path))
            return path.stat().st_size


COMPETITORS = {
    "hnswlib": Hnswlib,
    "faiss-hnsw-flat": FaissHnswFlat,
    "faiss-hnsw-sq8": FaissHnswSq8,
    "symphonyqg": SymphonyQg,
}


def first_of_pairs(answers):
    """The keys of answers `(keys [1, k], distances [1, k])`."""
    return [keys[0].tolist() for keys, _ in answers]
