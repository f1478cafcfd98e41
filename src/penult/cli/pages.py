"""What a run found, as a person reads it in the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from penult.cli.console import PlainConsole
from penult.cli.multi_label_pages import (
    EXPLAINED,
    classes_table,
    dense_lines,
    is_multi_label,
    ratings_table,
    seen_first,
    shown,
)
from penult.data.image import noted_lines
from penult.errors import InputError
from penult.heads.judge import Judge
from penult.intervals import accuracy_interval
from penult.text import one_line, percent

CLASSES_SHOWN = 20
RATED = ("balanced_accuracy", "mean_average_precision")
WEAKEST_SHOWN = 5
BAR = 40


def summary_page(
    summary: Mapping[str, Any],
    *,
    score: str | None = None,
    k: int | None = None,
    only: Sequence[str] = (),
) -> RenderableType:
    """The page that `penult show` prints.

    Args:
        summary: a run's `summary.json`.
        score: the influence score whose features and curve are shown; the one that keeps most
            accuracy with k features where None.
        k: features per class that are listed; up to five where None.
        only: names of classes to list; the first few where empty.

    Raises:
        InputError: a score, a k or a class that the run does not hold.
    """
    found = summary["influence"]
    if score is not None and score not in found:
        raise InputError(f"no score is called {score!r}; there are {', '.join(found)}")
    if k is None:
        k = max(int(size) for size in found[score or next(iter(found))] if int(size) <= 5)
    score = best_score(found, k) if score is None else score
    if str(k) not in found[score]:
        raise InputError(f"the run holds no k = {k}; it holds {', '.join(found[score])}")
    unknown = [name for name in only if name not in summary["class_names"]]
    if unknown:
        raise InputError(f"no class is called {unknown[0]!r}: see class_names of --json")
    return Group(
        _heading(summary),
        Text(),
        _accuracy_table(summary, score),
        Text(),
        _curve(summary, score),
        Text(),
        *(ratings_table(summary) if is_multi_label(summary) else _weakest(summary, only)),
        (classes_table if is_multi_label(summary) else _classes_table)(summary, score, k, only),
        *_faults(summary),
    )


def print_page(page: RenderableType, console: PlainConsole | None = None) -> None:
    """Print to standard output, as wide as the terminal; 100 columns where there is none."""
    console = console or PlainConsole()
    if not console.is_terminal:
        console.width = 100
    console.print(page)


def best_score(found: Mapping[str, Any], k: int) -> str:
    """The score that keeps most accuracy with k features per class; of equals the first."""
    with_k = {name: rows[str(k)]["accuracy"] for name, rows in found.items() if str(k) in rows}
    if not with_k:
        sizes = dict.fromkeys(size for rows in found.values() for size in rows)
        raise InputError(f"the run holds no k = {k}; it holds {', '.join(sizes)}")
    return max(with_k, key=with_k.__getitem__)


def _heading(summary: Mapping[str, Any]) -> RenderableType:
    judge = Judge.read(summary["judge"])
    layer = f"layer [bold]{escape(summary['head'])}[/], " if summary["head"] else ""
    n_classes, n_outputs = summary["n_classes"], summary["n_outputs"]
    of = "" if n_outputs == n_classes else f" of {n_outputs:,}"
    head = f"{layer}{n_classes:,}{of} classes × {summary['n_features']:,} features"
    network = summary["network"]
    lines = [f"[bold]Network[/]   {escape(network)}"] if network else []
    lines += [
        f"[bold]Head[/]      {head}",
        f"[bold]Samples[/]   {summary['n_samples']:,} analysed; accuracy measured on "
        + judge.samples,
        *_also_fitted(summary),
        *_network_lines(summary, judge),
    ]
    lines += [f"[yellow]Warning[/]   {escape(text)}" for text in warnings_of(summary)]
    return Text.from_markup("\n".join(lines))


def _network_lines(summary: Mapping[str, Any], judge: Judge) -> list[str]:
    """How right the network is; nothing of that where its own classes are the labels."""
    if judge.own_labels:
        return ["[bold]Dense[/]     how often it is right is not known: its classes are the labels"]
    dense = summary["dense"]
    return dense_lines(dense) if is_multi_label(summary) else _dense_lines(dense, judge)


def _dense_lines(dense: Mapping[str, Any], judge: Judge) -> list[str]:
    most = dense["commonest"]
    analysed = f" (analysed samples: {percent(dense['train_accuracy'])} %)" if judge.vouches else ""
    low, high = map(percent, dense["interval"])
    return [
        f"[bold]Dense[/]     {percent(dense['accuracy'])} % right, 95 % interval {low} to {high}"
        + analysed,
        f"[bold]Baseline[/]  {percent(most['accuracy'])} % right by always saying "
        f"{escape(one_line(most['class'], 40))}",
    ]


def _also_fitted(summary: Mapping[str, Any]) -> list[str]:
    """What the sparse heads were fitted to beside the analysed samples."""
    found, views = [], summary.get("views")
    if n_also := summary.get("n_also"):
        found.append(f"{n_also:,} unlabelled samples")
    if views and views["n"]:
        found.append(f"{views['n']} further views of the images ({', '.join(views['kinds'])})")
    return [f"[bold]Fitted[/]    to these and {' and '.join(found)}"] if found else []


def warnings_of(summary: Mapping[str, Any]) -> list[str]:
    """What a person should know before anything is concluded from a run."""
    judge = Judge.read(summary["judge"])
    return [*summary["warnings"], *([judge.warning] if judge.warning else [])]


def _accuracy_table(summary: Mapping[str, Any], marked: str) -> RenderableType:
    found = summary["influence"]
    sizes = sorted({size for row in found.values() for size in row}, key=int)
    fitted = {row["select"] for row in summary["path"]}
    rows = [["k", *sizes, "dense"]]
    styles = [""]
    for name, row in found.items():
        cells = [percent(row[k]["accuracy"]) if k in row else "" for k in sizes]
        styles.append(("bold " if name == marked else "") + ("green" if name in fitted else ""))
        label = f"{name}, refitted" if name in fitted else name
        rows.append([label, *cells, percent(summary["dense"]["accuracy"])])
    title = f"{_measured(summary)} (%) with k features per class, by the dense weights where not "
    title += "refitted"
    return Group(Text(title, style="bold"), _Numbers(rows, styles))


@dataclass(frozen=True)
class _Numbers:
    """A table of numbers with names in its first column; in blocks where it is too wide for one."""

    rows: Sequence[Sequence[str]]
    styles: Sequence[str]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        widths = [2 + max(map(len, column)) for column in zip(*self.rows, strict=True)]
        start = 1
        while start < len(widths):
            stop = start + 1
            room = options.max_width - widths[0]
            while stop < len(widths) and sum(widths[start : stop + 1]) <= room:
                stop += 1
            table = Table(box=None, pad_edge=False)
            for i, name in enumerate([self.rows[0][0], *self.rows[0][start:stop]]):
                table.add_column(name, justify="right" if i else "left", no_wrap=True)
            for row, style in zip(self.rows[1:], self.styles[1:], strict=True):
                table.add_row(*row[:1], *row[start:stop], style=style)
            yield table
            start = stop


def _curve(summary: Mapping[str, Any], score: str) -> RenderableType:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(justify="right")
    table.add_column(width=BAR)
    table.add_column(justify="right")
    rows = [(k, row["accuracy"]) for k, row in summary["influence"][score].items()]
    rows.append(("dense", summary["dense"]["accuracy"]))
    for label, accuracy in rows:
        style = "green" if label == "dense" else "cyan"
        table.add_row(label, Text(_bar(accuracy), style=style), f"{percent(accuracy)} %")
    title = f"{_measured(summary)} against features per class ({score})"
    return Group(Text(title, style="bold"), table)


def _measured(summary: Mapping[str, Any]) -> str:
    """What accuracies are: those by the network's own classes are agreement with it."""
    own = Judge.read(summary["judge"]).own_labels
    return "Agreement with the network" if own else "Accuracy"


def _bar(fraction: float) -> str:
    halves = round(fraction * BAR * 2)
    return "━" * (halves // 2) + "╸" * (halves % 2)


def _weakest(summary: Mapping[str, Any], only: Sequence[str]) -> list[RenderableType]:
    """The classes of which the network has least right, where there are more than are listed."""
    dense = summary["dense"]
    there = [c for c, n in enumerate(dense["n_samples"]) if n]
    if only or len(there) <= CLASSES_SHOWN or Judge.read(summary["judge"]).own_labels:
        return []
    highs = {c: accuracy_interval(dense["n_right"][c], dense["n_samples"][c])[1] for c in there}
    table = Table(box=None, pad_edge=False)
    table.add_column("class", overflow="fold", max_width=40)
    for name in ("samples", "right (%)", "95 % interval"):
        table.add_column(name, justify="right")
    for c in sorted(there, key=lambda c: highs[c])[:WEAKEST_SHOWN]:
        table.add_row(Text(one_line(summary["class_names"][c])), *_right(dense, c))
    return [Text("Weakest classes of the network", style="bold"), table, Text()]


def _right(dense: Mapping[str, Any], c: int) -> tuple[str, str, str]:
    """Samples of a class that were judged, accuracy of the network on them, and its interval."""
    n, n_right = dense["n_samples"][c], dense["n_right"][c]
    if not n:
        return "0", "", ""
    low, high = accuracy_interval(n_right, n)
    return f"{n:,}", percent(n_right / n), f"{percent(low)} to {percent(high)}"


def _classes_table(
    summary: Mapping[str, Any], score: str, k: int, only: Sequence[str]
) -> RenderableType:
    classes = summary["influence"][score][str(k)]["classes"]
    place = {name: c for c, name in enumerate(summary["class_names"])}
    counts, dense = summary["class_counts"], summary["dense"]
    names = list(only) or seen_first(classes, counts, place)[:CLASSES_SHOWN]
    table = Table(box=None, pad_edge=False)
    table.add_column("class", overflow="fold", max_width=40)
    own = Judge.read(summary["judge"]).own_labels  # of which the network is always right
    columns = ("analysed", "judged", "network right (%)", "95 % interval")
    for name in columns[:1] if own else columns:
        table.add_column(name, justify="right")
    table.add_column("features")
    for name in names:
        # A class name is data: brackets in it are no markup, control characters no commands.
        shown, c = one_line(name), place[name]
        kept = " ".join(f"{feature:>4}" for feature in classes[name])
        judged = () if own else _right(dense, c)
        table.add_row(Text(shown), f"{counts[c]:,}", *judged, Text(kept))
    title = f"Features that decide each class ({score}, k = {k}; the most influential first)"
    page: list[RenderableType] = [Text(title, style="bold"), table]
    left = len(classes) - len(names)
    if not only and left > 0:
        none = sum(n == 0 for n in counts)
        of_them = f", {none:,} of the run's classes without images" if none else ""
        text = f"… and {left:,} more classes{of_them}: --class NAME, or --json"
        page.append(Text(text, style="dim"))
    return Group(*page)


def _faults(summary: Mapping[str, Any]) -> list[RenderableType]:
    lines: list[RenderableType] = []
    for part, faults in summary["faults"].items():
        if faults["n_faults"]:
            path, reason = faults["named"][0]
            text = f"{faults['n_faults']} samples of {part} left out, the first: {path}: {reason}"
            lines.append(Text(text, style="yellow"))
        lines += [Text(line, style="dim") for line in noted_lines(faults["converted"], part)]
        lines += [Text(f"{part}: {note}", style="dim") for note in summary["notes"][part]]
    return [Text(), *lines] if lines else []


def path_page(document: Mapping[str, Any]) -> RenderableType:
    """The page that `penult fit` prints: accuracy, size and time of every head of a path."""
    steps = document["path"]
    title = f"Sparse heads ({steps[0]['select']}, refit {steps[0]['refit']})"
    lines: list[RenderableType] = [Text(title, style="bold"), _heads_table(steps)]
    lines += _judged(document["dense"], Judge.read(document["judge"]))
    if (pick := document.get("pick")) and pick["k"] is not None:
        lines.append(Text(f"picked: {pick['why']}", style="green" if pick["vouched"] else "yellow"))
    return Group(*lines)


def added_page(summary: Mapping[str, Any], new: Sequence[int]) -> RenderableType:
    """The fitted heads of a run, those marked that were just added."""
    said = f"Added: k = {', '.join(map(str, new))}" if new else "Nothing to add"
    lines: list[RenderableType] = [Text(said, style="green" if new else "")]
    if summary["path"]:
        lines.append(_heads_table(summary["path"], new))
    return Group(*lines, *_judged(summary["dense"], Judge.read(summary["judge"])))


def _heads_table(steps: Sequence[Mapping[str, Any]], marked: Sequence[int] = ()) -> Table:
    """Accuracy and size of heads, and their times where these are known."""
    table = Table(box=None, pad_edge=False)
    names = ["k", "accuracy", "loss", "95 % interval", "agreement", "KL", "features", "weights"]
    timed = all("seconds" in step for step in steps)
    several = any(RATED[0] in step for step in steps)
    more = ["balanced", "average precision"] if several else []
    for name in [*names, *(["seconds"] if timed else []), *more]:
        table.add_column(name, justify="right")
    for step in steps:
        table.add_row(
            str(step["k"]),
            f"{percent(step['accuracy'])} %",
            f"{100 * step['loss']:.2f}",
            "{:.2f} to {:.2f}".format(*(100 * end for end in step["interval"])),
            f"{percent(step['agreement'])} %",
            "" if step["kl"] is None else f"{step['kl']:.4f}",
            f"{step['n_features_used']:,}",
            f"{step['nnz']:,}",
            *([f"{step['seconds']:.2f}"] if timed else []),
            *(f"{shown(step.get(name))} %" for name in RATED if several),
            style="green" if step["k"] in marked else "",
        )
    return table


def _judged(dense: Mapping[str, Any], judge: Judge) -> list[RenderableType]:
    """On what heads were measured, and what the columns mean."""
    explained = (
        "agreement: samples that a head classifies as the network does; KL: mean divergence of its "
        "probabilities from the network's, 0 where they are equal"
    )
    rated = ""
    if RATED[0] in dense:
        balanced, precision = (shown(dense[name]) for name in RATED)
        rated = f" (balanced {balanced} %, mean average precision {precision} %)"
        explained = f"{EXPLAINED}; agreement and KL: of these decisions"
    return [
        Text(f"dense head: {percent(dense['accuracy'])} %{rated}; measured on {judge.samples}"),
        Text(explained, style="dim"),
    ]


def tuned_page(document: Mapping[str, Any]) -> RenderableType:
    """What tuning did, for a terminal."""
    found = document
    held_out = found["evaluated_on"] == "eval"
    where = "evaluation images" if held_out else "analysed images themselves, some trained on"
    what = "the head alone" if found["head_only"] else "the whole network"
    trained = f"{found['n_train']:,} images, {found['n_held_out']:,} held out"
    lines = [
        f"Tuned     {what} through {found['select']}, k = {found['k']}: {trained}, "
        f"{found['seconds']:.0f} s",
        f"Accuracy  measured on {found['n_eval_samples']:,} {where}",
    ]
    if not found["head_only"]:
        used = ", ".join(found["augment"]) or "none"
        n_epochs, best = len(found["epochs"]), found["best_epoch"]
        lines.append(f"Epochs    {n_epochs}, best {best}; augmentation: {used}")
    table = Table(box=None, pad_edge=False)
    for name in ("accuracy (%)", "evaluation", "held out"):
        table.add_column(name, justify="left" if name == "accuracy (%)" else "right")
    table.add_row("dense", percent(found["dense"]["accuracy"]), "")
    rows = {"before": "before", "head refitted": "refitted", "tuned": "after"}
    for name, key in rows.items():
        if key in found:
            table.add_row(name, percent(found[key]["accuracy"]), percent(found[key]["held_out"]))
    return Group(*map(Text, lines), Text(), table)
