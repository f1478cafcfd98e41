"""Write loops in LLVM's language, for `loops.py`: numbers, addresses, vectors, cycles."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

Value = Any  # of llvmlite.ir, which is untyped
Body = Callable[..., Sequence[Value] | None]


class Writer:
    """Writes one function: integers are 64 bit, addresses are integers, vectors are float32."""

    def __init__(self, module: Value, name: str, fields: Sequence[str]) -> None:
        from llvmlite import ir

        self.ir = ir
        self.i16, self.i32, self.i64 = (ir.IntType(n) for n in (16, 32, 64))
        self.f32 = ir.FloatType()
        self.module = module
        self.function = ir.Function(module, ir.FunctionType(ir.VoidType(), [self.i64]), name)
        self.function.attributes.add("nounwind")
        self.b = ir.IRBuilder(self.function.append_basic_block())
        base = self.function.args[0]
        self.counter = {name: self.add(base, 8 * i) for i, name in enumerate(fields)}
        self.field = {
            name: self.load(self.i64, self.add(base, 8 * i)) for i, name in enumerate(fields)
        }

    def draw(self, name: str) -> Value:
        """The value of a field as it is now, one more for the next thread that asks."""
        counter = self.b.inttoptr(self.counter[name], self.i64.as_pointer())
        return self.b.atomic_rmw("add", counter, self.integer(1), "monotonic")

    def integer(self, x: Value | int) -> Value:
        """A constant, or the value as it is."""
        return self.ir.Constant(self.i64, x) if isinstance(x, int) else x

    def add(self, *terms: Value | int) -> Value:
        """Sum of values and constants."""
        total = self.integer(terms[0])
        for term in terms[1:]:
            total = self.b.add(total, self.integer(term))
        return total

    def mul(self, *factors: Value | int) -> Value:
        """Product of values and constants."""
        product = self.integer(factors[0])
        for factor in factors[1:]:
            product = self.b.mul(product, self.integer(factor))
        return product

    def sub(self, x: Value, y: Value | int) -> Value:
        """x − y."""
        return self.b.sub(x, self.integer(y))

    def ceil_div(self, x: Value, y: Value | int) -> Value:
        """x / y rounded up, both positive."""
        return self.b.udiv(self.sub(self.add(x, y), 1), self.integer(y))

    def minimum(self, x: Value | int, y: Value) -> Value:
        """The smaller of two."""
        x = self.integer(x)
        return self.b.select(self.b.icmp_signed("<", x, y), x, y)

    def vector(self, n: int) -> Value:
        """Type of n lanes of float32."""
        return self.ir.VectorType(self.f32, n)

    def load(self, kind: Value, address: Value) -> Value:
        """The value at an address."""
        align = {self.i16: 2, self.i64: 2}.get(kind, 4)
        return self.b.load(self.b.inttoptr(address, kind.as_pointer()), align=align)

    def store(self, value: Value, address: Value) -> None:
        """Write a value at an address."""
        self.b.store(value, self.b.inttoptr(address, value.type.as_pointer()), align=4)

    def index(self, at: Value) -> Value:
        """The feature that the kept pair number `at` reads."""
        kept = self.load(self.i16, self.add(self.field["indices"], self.mul(at, 2)))
        return self.b.zext(kept, self.i64)

    def start_of(self, a_class: Value) -> Value:
        """Where the kept pairs of a class start."""
        return self.load(self.i64, self.add(self.field["indptr"], self.mul(a_class, 8)))

    def number(self, name: str, at: Value) -> Value:
        """Element of a float32 array that a field points to."""
        return self.load(self.f32, self.add(self.field[name], self.mul(at, 4)))

    def shuffle(self, x: Value, y: Value, lanes: list[int]) -> Value:
        """The named lanes of x followed by y."""
        mask = self.ir.Constant(self.ir.VectorType(self.i32, len(lanes)), lanes)
        return self.b.shuffle_vector(x, y, mask)

    def splat(self, x: Value, n: int) -> Value:
        """A vector of n times x."""
        undefined = self.ir.Constant(self.vector(n), self.ir.Undefined)
        first = self.b.insert_element(undefined, x, self.ir.Constant(self.i32, 0))
        return self.shuffle(first, first, [0] * n)

    def call(self, name: str, result: Value, *arguments: Value) -> Value:
        """Call one of LLVM's own functions."""
        kind = self.ir.FunctionType(result, [a.type for a in arguments])
        known = self.module.globals.get(name) or self.ir.Function(self.module, kind, name)
        return self.b.call(known, arguments)

    def fma(self, x: Value, y: Value, z: Value) -> Value:
        """x·y + z of vectors, rounded once."""
        return self.call(f"llvm.fma.v{x.type.count}f32", x.type, x, y, z)

    def prefetch_to_write(self, address: Value) -> None:
        """Ask for a cache line that will be written."""
        pointer = self.b.inttoptr(address, self.ir.IntType(8).as_pointer())
        write, keep, data = (self.ir.Constant(self.i32, n) for n in (1, 3, 1))
        self.call("llvm.prefetch.p0", self.ir.VoidType(), pointer, write, keep, data)

    def loop(
        self,
        start: Value | int,
        stop: Value | int,
        body: Body,
        carried: Sequence[Value] = (),
        step: int = 1,
    ) -> list[Value]:
        """`for i in range(start, stop, step): carried = body(i, *carried)`; the last carried."""
        phis: list[Value]
        with self._cycle(self.integer(start), carried) as (i, phis, inside, after, close):
            self.b.cbranch(self.b.icmp_signed("<", i, self.integer(stop)), inside, after)
            self.b.position_at_end(inside)
            new = body(i, *phis) or ()
            close(self.add(i, step), new)
        return phis

    def tasks(self, n_tasks: Value, body: Body, carried: Sequence[Value] = ()) -> None:
        """Draw tasks until none is left, then return: `carried = body(task, *carried)`."""
        with self._cycle(self.draw("n_drawn"), carried) as (task, phis, inside, after, close):
            self.b.cbranch(self.b.icmp_signed("<", task, n_tasks), inside, after)
            self.b.position_at_end(inside)
            new = body(task, *phis) or ()
            close(self.draw("n_drawn"), new)
        self.b.ret_void()

    @contextmanager
    def _cycle(self, start: Value, carried: Sequence[Value]) -> Iterator[tuple[Any, ...]]:
        entry = self.b.block
        head, inside, after = (self.function.append_basic_block() for _ in range(3))
        self.b.branch(head)
        self.b.position_at_end(head)
        phis = [self.b.phi(v.type) for v in (start, *carried)]
        for phi, value in zip(phis, (start, *carried), strict=True):
            phi.add_incoming(value, entry)

        def close(following: Value, new: Sequence[Value]) -> None:
            for phi, value in zip(phis, (following, *new), strict=True):
                phi.add_incoming(value, self.b.block)
            self.b.branch(head)

        yield phis[0], phis[1:], inside, after, close
        self.b.position_at_end(after)

    def transposed(self, rows: list[Value]) -> list[Value]:
        """n vectors of n lanes, rows for columns: swaps of halves, quarters, … (n a power of 2)."""
        n = len(rows)
        d = n // 2
        while d:
            for i in range(n):
                if not i & d:
                    x, y = rows[i], rows[i + d]
                    low = [n + lane - d if lane & d else lane for lane in range(n)]
                    rows[i] = self.shuffle(x, y, low)
                    rows[i + d] = self.shuffle(
                        x, y, [n + lane if lane & d else lane + d for lane in range(n)]
                    )
            d //= 2
        return rows
