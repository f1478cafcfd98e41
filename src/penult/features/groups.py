"""Groups: named attributes of samples, and the file that a user gives them in."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

import torch
from torch import Tensor

from penult.errors import InputError
from penult.storage import read_tensors, write_tensors
from penult.text import one_line, some

FORMAT = "penult-groups/1"
MOST_VALUES = 100
FEWEST_RANKED = 10  # a group of fewer samples is shown with its interval and never called the worst


@dataclass(frozen=True, eq=False)
class Attribute:
    """One property of the samples, such as a photo's domain or a person's age.

    Attributes:
        name: of the attribute.
        values: what it can be.
        codes: (n_samples,) int64, which value each sample has; -1 where it has none.
    """

    name: str
    values: tuple[str, ...]
    codes: Tensor

    @property
    def known(self) -> Tensor:
        """Which samples have a value, (n_samples,) bool."""
        return self.codes >= 0

    def groups(self, labels: Tensor) -> Tensor:
        """Group of each sample, (n_samples,) int64: `class · n_values + value`, else -1.

        A group is a class with a value.

        Args:
            labels: (n_samples,) int64.
        """
        return torch.where(self.known, labels * len(self.values) + self.codes, -1)

    def named(self, group: int, class_names: Sequence[str]) -> tuple[str, str]:
        """Class and value of a group."""
        c, value = divmod(group, len(self.values))
        return class_names[c], self.values[value]


@dataclass(frozen=True, eq=False)
class Groups:
    """The attributes of some samples.

    Attributes:
        attributes: by name.
        n_samples: how many samples there are.
    """

    attributes: Mapping[str, Attribute]
    n_samples: int

    def attribute(self, name: str) -> Attribute:
        """One attribute; refuses a name that there is not."""
        if name not in self.attributes:
            raise InputError(
                f"the groups have no attribute {name!r}; they have {some([*self.attributes], 20)}"
            )
        return self.attributes[name]

    def save(self, path: Path) -> None:
        """Write a groups file of a run: which value each sample has."""
        tensors = {name: found.codes.to(torch.int16) for name, found in self.attributes.items()}
        values = {name: found.values for name, found in self.attributes.items()}
        text = json.dumps(values, ensure_ascii=False)
        write_tensors(path, tensors, {"format": FORMAT, "values": text})

    @classmethod
    def load(cls, path: Path, n_samples: int) -> Groups:
        """Read what `save` wrote.

        Raises:
            InputError: absent, damaged, or of another number of samples.
        """
        tensors, notes = read_tensors(path, FORMAT, ())
        values = json.loads(notes["values"])
        for codes in tensors.values():
            if len(codes) != n_samples:
                raise InputError(
                    f"{path} holds the groups of {len(codes)} samples and the run has {n_samples}: "
                    "give the groups again with penult groups RUN FILE"
                )
        attributes = {
            name: Attribute(name, tuple(values[name]), tensors[name].long()) for name in values
        }
        return cls(attributes, n_samples)


@dataclass(frozen=True, eq=False)
class GroupsTable:
    """What a groups file says, before its rows are matched with samples.

    Attributes:
        where: the file, for messages.
        keys: (n_rows,) what names the sample of each row.
        by_row: whether the keys are row numbers of the features.
        attributes: with one code for each row of the file.
    """

    where: str
    keys: Sequence[str]
    by_row: bool
    attributes: Mapping[str, Attribute]

    def match(self, ids: Sequence[str]) -> tuple[Tensor, list[str]]:
        """Row of the file of each sample, (n_samples,) int64, -1 for none; and keys without sample.

        A key names a sample by its id, or by an end of its path that no other sample has; the id
        may also be the end of the key.

        Raises:
            InputError: two rows for one sample, or an end of a path that several samples have.
        """
        found = torch.full((len(ids),), -1, dtype=torch.int64)
        place = self._rows(len(ids)) if self.by_row else _EndsOfNames(ids)
        unknown: list[str] = []
        for row, key in enumerate(self.keys):
            try:
                sample = place.get(key)
            except LookupError as error:
                raise InputError(f"{self.where}: {error}") from None
            if sample is None:
                unknown.append(key)
                continue
            if int(found[sample]) >= 0:
                raise InputError(
                    f"{self.where} has two rows for sample {one_line(ids[sample], 80)}: rows "
                    f"{int(found[sample]) + 1} and {row + 1}; expected one for each sample"
                )
            found[sample] = row
        return found, unknown

    def groups(self, rows: Tensor) -> Groups:
        """Groups of samples from `match`'s rows."""
        made = {}
        for name, table in self.attributes.items():
            codes = torch.where(rows >= 0, table.codes[rows.clamp_min(0)], -1)
            made[name] = Attribute(name, table.values, codes)
        return Groups(made, len(rows))

    def _rows(self, n_samples: int) -> Mapping[str, int]:
        return {str(i): i for i in range(n_samples)}


class _EndsOfNames:
    """Where samples stand, by their ids and by ends of their paths."""

    def __init__(self, ids: Sequence[str]) -> None:
        self._ids = [name.replace("\\", "/") for name in ids]
        self._exact = {name: i for i, name in enumerate(self._ids)}
        self._last: dict[str, list[int]] = {}
        for i, name in enumerate(self._ids):
            self._last.setdefault(name.rsplit("/", 1)[-1], []).append(i)

    def get(self, key: str) -> int | None:
        """Sample of a key, None where there is none; LookupError where there are several."""
        name = key.replace("\\", "/").removeprefix("./")
        end = name
        while True:
            if end in self._exact:
                return self._exact[end]
            _, slash, end = end.partition("/")
            if not slash:
                break
        near = self._last.get(name.rsplit("/", 1)[-1], [])
        found = [i for i in near if self._ids[i].endswith(f"/{name}")]
        if len(found) > 1:
            both = " and ".join(one_line(self._ids[i], 80) for i in found[:2])
            raise LookupError(
                f"{one_line(key, 80)} is the end of {len(found)} samples' paths ({both}); expected "
                "more of the path, so that it is the end of one"
            )
        return found[0] if found else None


def coded(where: str, name: str, column: Sequence[str | None], bins: int | None) -> Attribute:
    """An attribute from its column of text; None is no value.

    Args:
        where: the file, for messages.
        name: of the attribute.
        column: a value for each row.
        bins: cut numbers into so many ranges that hold about as many samples each.

    Raises:
        InputError: too many values, none at all, or no numbers where they are to be cut.
    """
    if bins is not None:
        return _binned(where, name, column, bins)
    counts = Counter(value for value in column if value is not None)
    if not counts:
        raise InputError(f"{where}: attribute {name} has no values")
    if len(counts) > MOST_VALUES:
        cut = f"cut it into ranges with --bins {quote(f'{name}=4')}"
        remedy = cut if _numbers(column) else "leave it out"
        raise InputError(
            f"{where}: attribute {name} has {len(counts)} different values; expected at most "
            f"{MOST_VALUES}: {remedy}, or name the attributes to take with --attribute"
        )
    values = tuple(sorted(counts))
    place: dict[str | None, int] = {value: i for i, value in enumerate(values)}
    return Attribute(name, values, torch.tensor([place.get(value, -1) for value in column]))


def _numbers(column: Iterable[str | None]) -> list[float] | None:
    """A column as numbers, NaN for no value; None where something else stands in it."""
    try:
        return [float("nan") if value is None else float(value) for value in column]
    except ValueError:
        return None


def _binned(where: str, name: str, column: Sequence[str | None], bins: int) -> Attribute:
    if not 2 <= bins <= MOST_VALUES:
        raise InputError(f"--bins {name}: expected 2 to {MOST_VALUES} ranges, found {bins}")
    found = _numbers(column)
    if found is None:
        bad = next(v for v in column if v is not None and _numbers([v]) is None)
        raise InputError(
            f"{where}: --bins {name}: expected numbers, found {one_line(bad, 40)!r}; take it as it "
            "is, without --bins"
        )
    numbers = torch.tensor(found, dtype=torch.float64)
    known = numbers[numbers.isfinite()]
    if not len(known):
        raise InputError(f"{where}: attribute {name} has no values")
    inner = torch.linspace(0, 1, bins + 1, dtype=torch.float64)[1:-1]
    ordered = known.sort().values
    # Cut at values that occur, so that equal numbers are never torn apart.
    edges = ordered[(inner * len(ordered)).long().clamp_max(len(ordered) - 1)]
    edges = torch.unique(edges)
    codes = torch.bucketize(numbers, edges, right=True)
    inside = [numbers[(codes == code) & numbers.isfinite()] for code in range(len(edges) + 1)]
    ends = [(float(x.min()), float(x.max())) if len(x) else None for x in inside]
    names = _bin_names(ends)
    codes = torch.where(numbers.isfinite(), codes, -1)
    filled = [code for code, text in enumerate(names) if text]
    place = torch.full((len(names) + 1,), -1)
    place[filled] = torch.arange(len(filled))
    return Attribute(name, tuple(names[code] for code in filled), place[codes])


def _bin_names(ends: Sequence[tuple[float, float] | None]) -> list[str]:
    """Names of bins by their ends, in as many digits as tell them apart; "" for an empty bin."""
    for digits in (6, 9, 12, 17):
        names = [
            "" if end is None else f"{end[0]:.{digits}g} to {end[1]:.{digits}g}" for end in ends
        ]
        filled = [name for name in names if name]
        if len(set(filled)) == len(filled):
            break
    return names
