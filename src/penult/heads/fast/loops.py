"""The compiled loops of a sparse head on CPUs, written as LLVM code and built at first use.

Neither a compiler nor a cache on disk is needed: `llvmlite` brings LLVM in its wheel and builds the
few loops below in a fraction of a second. `penult.heads.fast.choose` decides when they run.

Every loop is one function of one argument, the address of an array of int64: `FIELDS`, in order.
Threads that share the array draw their tasks from its last field until none is left: a thread that
the system holds up does fewer. Each logit is one sum in a fixed order, whichever thread
computes it: the same input gives the same bits on any number of threads.
"""

from __future__ import annotations

import ctypes
import importlib.util
import threading
import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch

from penult.heads.fast.llvm import Value, Writer

FIELDS = (
    "features",  # address, (n_samples, n_features) float32, row-major
    "n_samples",
    "n_features",
    "n_classes",
    "indptr",  # address, (n_classes + 1,) int64
    "indices",  # address, (nnz,) uint16
    "values",  # address, (nnz,) float32
    "bias",  # address, (n_classes,) float32
    "logits",  # address, (n_samples, n_classes) float32, row-major
    "scratch",  # address, `scratch_bytes` for each thread
    "scratch_bytes",
    "chunk",  # classes in a task; for tiles a multiple of 16
    "n_scratch",  # parts of the scratch memory taken so far, 0 at the start
    "n_drawn",  # tasks drawn so far, 0 at the start
)
Arguments = ctypes.Array[ctypes.c_int64]
ARGUMENTS = ctypes.c_int64 * len(FIELDS)
FEATURES, LOGITS, SCRATCH = (FIELDS.index(name) for name in ("features", "logits", "scratch"))


def arguments(**fields: int) -> Arguments:
    """Arguments of a loop, by the names of `FIELDS`; what is not named is 0."""
    return ARGUMENTS(*(fields.get(name, 0) for name in FIELDS))


def copied(prepared: Arguments, features: int, logits: int, scratch: int) -> Arguments:
    """The same arguments for one call more, with the addresses that are its own."""
    own = ARGUMENTS.from_buffer_copy(prepared)
    own[FEATURES], own[LOGITS], own[SCRATCH] = features, logits, scratch
    return own


ROWS = "rows"
TILES = {8: (8, 1), 16: (16, 1), 32: (16, 2)}  # samples in a tile: (lanes, vectors)
UNROLL = 4
PREFETCH = 32  # classes: what is written to memory is fetched two blocks of 16 ahead


def scratch_bytes(width: int, n_features: int) -> int:
    """Bytes that one thread needs for tiles of `width` samples, a multiple of a cache line."""
    return (width * (n_features + TILES[width][0] + 2) * 4 + 63) // 64 * 64


def write_rows(module: Value) -> None:
    """Sample by sample, each class gathers its features from the row: best for one sample.

    A task is a chunk of classes, for all samples.
    """
    w = Writer(module, ROWS, FIELDS)
    n_features, n_classes = w.field["n_features"], w.field["n_classes"]
    four = w.vector(4)

    def one_class(row: Value, logits: Value, c: Value, start: Value) -> Sequence[Value]:
        stop = w.start_of(w.add(c, 1))
        middle = w.add(start, w.b.and_(w.sub(stop, start), w.integer(-4)))

        def feature(j: Value) -> Value:
            return w.load(w.f32, w.add(row, w.mul(j, 4)))

        def gather(at: Value, sums: Value) -> list[Value]:
            # One load brings four indices of 16 bits: loads are what this loop waits for.
            packed = w.load(w.i64, w.add(w.field["indices"], w.mul(at, 2)))
            found = w.ir.Constant(four, w.ir.Undefined)
            for i in range(4):
                j = w.b.and_(w.b.lshr(packed, w.integer(16 * i)), w.integer(0xFFFF))
                found = w.b.insert_element(found, feature(j), w.ir.Constant(w.i32, i))
            return [w.fma(found, w.load(four, w.add(w.field["values"], w.mul(at, 4))), sums)]

        zero = w.ir.Constant(four, [0.0] * 4)
        (sums,) = w.loop(start, middle, gather, [zero], step=4)
        lanes = [w.b.extract_element(sums, w.ir.Constant(w.i32, i)) for i in range(4)]
        total = w.b.fadd(w.b.fadd(lanes[0], lanes[2]), w.b.fadd(lanes[1], lanes[3]))

        def rest(at: Value, total: Value) -> list[Value]:
            return [w.b.fadd(total, w.b.fmul(feature(w.index(at)), w.number("values", at)))]

        (total,) = w.loop(middle, stop, rest, [w.b.fadd(total, w.number("bias", c))])
        w.store(total, w.add(logits, w.mul(c, 4)))
        return [stop]

    def task(number: Value) -> None:
        """One chunk of classes for one tile."""
        first = w.mul(number, w.field["chunk"])
        last = w.minimum(w.add(first, w.field["chunk"]), n_classes)

        def sample(i: Value) -> None:
            row = w.add(w.field["features"], w.mul(i, n_features, 4))
            logits = w.add(w.field["logits"], w.mul(i, n_classes, 4))
            w.loop(first, last, lambda c, at: one_class(row, logits, c, at), [w.start_of(first)])

        w.loop(0, w.field["n_samples"], sample)

    w.tasks(w.ceil_div(n_classes, w.field["chunk"]), task)


class TileWriter:
    """Tiles of `width` samples: zᵀ of the tile in the second-level cache, sums in registers.

    A task is a chunk of classes for one tile. A tile with fewer samples, or the last block of
    classes, is filled up by repeating the last sample or by starting earlier: the same bits are
    then written twice. So n_features and n_classes must not be less than `lanes`.
    """

    def __init__(self, module: Value, width: int) -> None:
        self.width = width
        self.lanes, self.n_vectors = TILES[width]
        self.w = w = Writer(module, f"tiles{width}", FIELDS)
        self.n_chunks = w.ceil_div(w.field["n_classes"], w.field["chunk"])
        part = w.mul(w.draw("n_scratch"), w.field["scratch_bytes"])
        self.offsets = w.add(w.field["scratch"], part)  # (width,) int64: of the rows of logits
        self.block = w.add(self.offsets, width * 8)  # (lanes classes, width samples)
        self.tile = w.add(self.block, width * self.lanes * 4)  # (n_features, width)

    def write(self) -> None:
        """Write the function, whole."""
        w = self.w
        n_tiles = w.ceil_div(w.field["n_samples"], self.width)
        w.tasks(w.mul(n_tiles, self.n_chunks), self.task, [w.integer(-1)])

    def task(self, number: Value, filled: Value) -> list[Value]:
        """One chunk of classes for one tile; `filled` is the tile in the scratch memory."""
        w, n_classes = self.w, self.w.field["n_classes"]
        number_of_tile = w.b.udiv(number, self.n_chunks)
        chunk = w.sub(number, w.mul(number_of_tile, self.n_chunks))
        first = w.mul(chunk, w.field["chunk"])
        last = w.minimum(w.add(first, w.field["chunk"]), n_classes)
        sample = w.mul(number_of_tile, self.width)
        logits = w.add(w.field["logits"], w.mul(sample, n_classes, 4))
        with w.b.if_then(w.b.icmp_signed("!=", number_of_tile, filled)):
            self.fill(sample)
        w.loop(first, last, lambda c: self.sum_block(c, logits), step=self.lanes)
        return [number_of_tile]

    def fill(self, sample: Value) -> None:
        """Transpose the tile's samples, and note where their logits go."""
        w, n_features, lanes = self.w, self.w.field["n_features"], self.lanes
        last = w.sub(w.sub(w.field["n_samples"], sample), 1)
        row_bytes = w.mul(w.field["n_classes"], 4)

        def note(i: Value) -> None:
            offset = w.mul(w.minimum(i, last), row_bytes)
            w.store(offset, w.add(self.offsets, w.mul(i, 8)))

        w.loop(0, self.width, note)
        tile_row = w.mul(n_features, 4)
        features = w.add(w.field["features"], w.mul(sample, tile_row))

        def band(i: Value) -> None:
            inside = [w.minimum(w.add(i, k), last) for k in range(lanes)]
            rows = [w.add(features, w.mul(k, tile_row)) for k in inside]

            def flip(j: Value) -> None:
                j = w.minimum(j, w.sub(n_features, lanes))
                vectors = [w.load(w.vector(lanes), w.add(row, w.mul(j, 4))) for row in rows]
                target = w.add(self.tile, w.mul(j, self.width * 4), w.mul(i, 4))
                for k, vector in enumerate(w.transposed(vectors)):
                    w.store(vector, w.add(target, k * self.width * 4))

            w.loop(0, n_features, flip, step=lanes)

        w.loop(0, self.width, band, step=lanes)

    def sum_block(self, c: Value, logits: Value) -> None:
        """Logits of `lanes` classes: summed class by class, then transposed into their rows."""
        w, n_classes, lanes = self.w, self.w.field["n_classes"], self.lanes
        c = w.minimum(c, w.sub(n_classes, lanes))

        def row(i: Value) -> Value:
            return w.load(w.i64, w.add(self.offsets, w.mul(i, 8)))

        ahead = w.add(logits, w.mul(w.minimum(w.add(c, PREFETCH), w.sub(n_classes, 1)), 4))
        w.loop(0, self.width, lambda i: w.prefetch_to_write(w.add(ahead, row(i))))
        w.loop(0, lanes, lambda i, start: self.sum_class(c, i, start), [w.start_of(c)])
        target = w.add(logits, w.mul(c, 4))

        def flip(i: Value) -> None:
            source = w.add(self.block, w.mul(i, 4))
            columns = [
                w.load(w.vector(lanes), w.add(source, k * self.width * 4)) for k in range(lanes)
            ]
            for k, vector in enumerate(w.transposed(columns)):
                w.store(vector, w.add(target, row(w.add(i, k))))

        w.loop(0, self.width, flip, step=lanes)

    def sum_class(self, block: Value, i: Value, start: Value) -> list[Value]:
        """Logits of one class, for the whole tile, into the block."""
        w, lanes = self.w, self.lanes
        c = w.add(block, i)
        stop = w.start_of(w.add(c, 1))
        middle = w.add(start, w.b.and_(w.sub(stop, start), w.integer(-UNROLL)))

        def one(at: Value, *sums: Value) -> list[Value]:
            source = w.add(self.tile, w.mul(w.index(at), self.width * 4))
            value = w.splat(w.number("values", at), lanes)
            parts = [w.load(w.vector(lanes), w.add(source, k * lanes * 4)) for k in self.vectors]
            return [w.fma(part, value, total) for part, total in zip(parts, sums, strict=True)]

        def several(at: Value, *sums: Value) -> list[Value]:
            found = list(sums)
            for k in range(UNROLL):
                found = one(w.add(at, k), *found)
            return found

        sums = [w.splat(w.number("bias", c), lanes)] * self.n_vectors
        sums = w.loop(start, middle, several, sums, step=UNROLL)
        sums = w.loop(middle, stop, one, sums)
        for k, total in zip(self.vectors, sums, strict=True):
            w.store(total, w.add(self.block, w.mul(i, self.width * 4), k * lanes * 4))
        return [stop]

    @property
    def vectors(self) -> range:
        """Numbers of the vectors that one row of the tile holds."""
        return range(self.n_vectors)


class Machine:
    """The loops as machine code of this processor, and the threads that they run on.

    The threads are those of torch itself (its OpenMP library's), so that nothing else spins beside
    them; where torch has none that can be asked, one thread does it all.
    """

    def __init__(self) -> None:
        from llvmlite import binding, ir

        binding.initialize_native_target()
        binding.initialize_native_asmprinter()
        module = ir.Module()
        write_rows(module)
        for width in TILES:
            TileWriter(module, width).write()
        target = binding.Target.from_default_triple().create_target_machine(
            cpu=binding.get_host_cpu_name(),
            features=binding.get_host_cpu_features().flatten(),
            opt=3,
            jit=True,
        )
        code = binding.parse_assembly(str(module))
        code.verify()
        self._engine = binding.create_mcjit_compiler(code, target)  # owns the machine code
        self._engine.finalize_object()
        function = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
        names = [ROWS, *(f"tiles{width}" for width in TILES)]
        self._address = {name: self._engine.get_function_address(name) for name in names}
        self._function = {name: function(address) for name, address in self._address.items()}
        self._fork = _torch_threads()

    def run(self, name: str, arguments: Arguments, n_threads: int) -> None:
        """Run a loop without the lock of Python; its counters must be 0.

        The caller answers for every address and size: nothing is checked here.
        """
        address = ctypes.addressof(arguments)
        if n_threads == 1:
            self._function[name](address)
        else:
            self._fork(self._address[name], address, n_threads, 0)


@cache
def _torch_threads() -> Any:
    """OpenMP's own entry: calls a function on each thread of the pool that torch uses, or None."""
    library = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    if not library.is_file():
        return None
    # Symbols are looked for in the libraries this one was linked with, the one pool among them.
    fork = getattr(ctypes.CDLL(str(library)), "GOMP_parallel", None)
    if fork is not None:
        fork.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
        fork.restype = None
    return fork


def has_threads() -> bool:
    """Whether a loop may run on several threads; asked before the loops are built."""
    return _torch_threads() is not None


_built: list[Machine | None] = []
_building = threading.Lock()


def may_have_machine() -> bool:
    """Whether `machine` gives the compiled loops, as far as is known without building them."""
    return _built[0] is not None if _built else _installed()


@cache
def _installed() -> bool:
    return importlib.util.find_spec("llvmlite") is not None


def machine() -> Machine | None:
    """The compiled loops, built at the first call; None where llvmlite is missing or fails.

    A llvmlite that is installed and fails costs one warning, not the result.
    """
    if not _built:
        with _building:
            if not _built:
                _built.append(_build() if may_have_machine() else None)
    return _built[0]


def _build() -> Machine | None:
    try:
        return Machine()
    except Exception as error:  # a broken library fails in ways of its own
        warnings.warn(
            f"llvmlite cannot be used ({type(error).__name__}: {error}): the sparse heads run "
            "without compiled loops, more slowly; install it anew with pip install "
            "'penult[fast]', or uninstall it",
            stacklevel=2,
        )
        return None
