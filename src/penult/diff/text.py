"""What a comparison says as Markdown for a pull request, and as JUnit XML for a build server."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

from penult.diff.gate import FAILS, PASSES
from penult.text import as_code, called, number_of, one_line, percent, unbroken
from penult.text import in_markdown as plain

ROWS = 10
MOST = 5000  # letters of what is said in one go
FLIPS = {"negative": "Right before, wrong now", "positive": "Wrong before, right now"}
SURE = "changed, with 95 % confidence"
MARKS = {FAILS: "❌", PASSES: "✅"}


def markdown(document: Mapping[str, Any]) -> str:
    """A comparison as Markdown: the verdict and the rules, the rest in a fold."""
    lines = [
        f"### {plain(document['old']['name'])} → {plain(document['new']['name'])}",
        "",
    ]
    lines += [_said(document["verdict"]), ""]
    if document.get("gate"):
        lines += ["| | rule | |", "| --- | --- | --- |"]
        lines += [
            f"| {MARKS.get(row['verdict'], '❔')} | {_code(row['rule'])} | {_said(ruled(row))} |"
            for row in document["gate"]
        ]
        lines.append("")
    lines += ["<details><summary>Classes, groups, samples</summary>", ""]
    lines += _table("Classes", document["classes"], "class")
    for attribute, rows in document["groups"].items():
        lines += _table(f"Groups: {attribute}", rows, "value")
    lines += _flips(document["flips"])
    lines += _evidence(document)
    lines += ["| size and speed | before | now |", "| --- | --: | --: |"]
    lines += [f"| {plain(name)} | {old} | {new} |" for name, old, new in sizes(document)]
    lines.append("")
    lines += [part for said in suspects_said(document["suspects"]) for part in (_said(said), "")]
    return "\n".join([*lines, "</details>", ""])


def junit(document: Mapping[str, Any], strict: bool = False) -> str:
    """The rules of a comparison as JUnit XML: one test case for each, as build servers read it."""
    rows = document.get("gate") or []
    failed = [row for row in rows if fails(row, strict)]
    suite = ElementTree.Element(
        "testsuite",
        name="penult diff",
        tests=str(len(rows)),
        failures=str(len(failed)),
        errors="0",
        skipped=str(sum(row["verdict"] not in MARKS and row not in failed for row in rows)),
    )
    for row in rows:
        case = ElementTree.SubElement(suite, "testcase", classname="penult", name=_xml(row["rule"]))
        if row in failed:
            ElementTree.SubElement(case, "failure", message=_xml(ruled(row)))
        elif row["verdict"] not in MARKS:
            ElementTree.SubElement(case, "skipped", message=_xml(ruled(row)))
    ElementTree.SubElement(suite, "system-out").text = _xml(document["verdict"])
    body = ElementTree.tostring(suite, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{body}\n'


def fails(row: Mapping[str, Any], strict: bool) -> bool:
    """Whether a judged rule stops the change; with `strict` also where it cannot be told."""
    return bool(row["verdict"] == FAILS or (strict and row["verdict"] != PASSES))


def ruled(row: Mapping[str, Any]) -> str:
    """What a rule found, in words."""
    whose = row["whose"]
    if "interval" not in row:
        are = "is" if len(whose) == 1 else "are"
        said = row["why"]
        if whose:
            first = ", ".join(one_line(name, 60) for name in whose[:3])
            said = f"{number_of(len(whose), 'shortcuts')} {are} back: {first}"
        return f"{row['verdict']}: {said}"
    if row["value"] is None:
        return f"{row['verdict']}: there are no samples"
    low, high = (100 * end for end in row["interval"])
    value = 100 * row["value"]
    rate = row["what"].endswith("_flips")
    number = f"{value:.2f} %" if rate else f"{value:+z.2f} points"
    ends = f"{low:.2f} to {high:.2f}" if rate else f"{low:+z.2f} to {high:+z.2f}"
    more = f" and {len(whose) - 1} more" if len(whose) > 1 and row["verdict"] == FAILS else ""
    # The name of a class may be a number, or any words.
    kind = "class " if row["what"].startswith("class.") else ""
    return f"{row['verdict']}: {kind}{called(whose[0], 40)} {number} ({ends}){more}"


def _table(title: str, rows: Sequence[Mapping[str, Any]], name: str) -> list[str]:
    changed = [row for row in rows if row["lost"] or row["won"]]
    if not changed:
        return [f"**{plain(title)}**: no sample is won or lost.", ""]
    lines = [
        f"**{plain(title)}**",
        "",
        f"| {name} | samples | before | after | 95 % interval of the change, in points | |",
    ]
    lines.append("| --- | --: | --: | --: | --: | --- |")
    for row in changed[:ROWS]:
        low, high = (-100 * end for end in reversed(row["interval"]))
        sure = SURE if row["sure"] else ""
        lines.append(
            f"| {_cell(row[name])} | {row['n_samples']:,} | {percent(row['before'])} % | "
            f"{percent(row['after'])} % | {low:+z.2f} to {high:+z.2f} | {sure} |"
        )
    more = len(changed) - ROWS
    return [*lines, *(["", f"… and {more:,} more"] if more > 0 else []), ""]


def _flips(found: Mapping[str, Any]) -> list[str]:
    lines = []
    for kind, title in FLIPS.items():
        samples = found[kind]["samples"][:ROWS]
        lines += [f"**{title}**: {number_of(found[kind]['n_samples'], 'samples')}", ""]
        if samples:
            lines += ["| sample | before | after | by features |", "| --- | --- | --- | --- |"]
            lines += [
                f"| {' | '.join(_cell(row[key]) for key in ('id', 'before', 'after'))} | "
                f"{', '.join(map(feature_name, row['features']))} |"
                for row in samples
            ]
            lines.append("")
    return lines


def _evidence(document: Mapping[str, Any]) -> list[str]:
    said, classes = evidence_said(document), document["evidence"]["classes"]
    if not classes:
        return [f"**{said}**", ""]
    if not document["evidence"]["comparable"]:
        lines = [f"**{said}**", "", "| class | rested on | rests on |", "| --- | --- | --- |"]
        lines += [
            f"| {' | '.join((_cell(row['class']), *map(in_words, rested_on(row))))} |"
            for row in classes[:ROWS]
        ]
        return [*lines, ""]
    lines = [f"**{said}**", "", "| class | changed by | features |", "| --- | --: | --- |"]
    lines += [
        f"| {_cell(row['class'])} | {100 * row['changed']:.0f}\u00a0% | "
        f"{'; '.join(map(change_of, row['features']))} |"
        for row in classes[:ROWS]
    ]
    return [*lines, ""]


def feature_name(row: Mapping[str, Any]) -> str:
    """A feature of both sides: its number, or `12→40` where the numbers differ."""
    old, new = row["old"], row["new"]
    if old is None:
        return f"new {new}"
    if new is None:
        return f"old {old}"
    return str(old) if old == new else f"{old}→{new}"


def change_of(row: Mapping[str, Any]) -> str:
    """A feature, and how its part in a class's evidence changed, in words."""
    return f"{feature_name(row)}{how_changed(row)}"


def how_changed(row: Mapping[str, Any]) -> str:
    """What stands behind the name of a feature whose part in a class's evidence changed."""
    called = f", judged {row['verdict']}," if row.get("verdict") else ""
    before, after = 100 * row["before"], 100 * row["after"]
    # Rounded first: no −0.
    return unbroken(f"{called} {row['what']} ({round(before)} → {round(after)} %)")


def rested_on(row: Mapping[str, Any]) -> tuple[list[tuple[int, float]], list[tuple[int, float]]]:
    """The features that count most for a class before, and those now, each with its share.

    For networks of which hardly a feature is one of the other: to tell what came and what went
    would say that of all of them.
    """
    found = []
    for which, share in (("old", "before"), ("new", "after")):
        own = [(one[which], one[share]) for one in row["features"] if one[which] is not None]
        found.append([one for one in own if round(100 * one[1])])
    return found[0], found[1]


def in_words(features: Sequence[tuple[int, float]]) -> str:
    """Features with their shares: `83 (12 %), 239 (5 %)`."""
    said = ", ".join(f"{j} ({round(100 * share)} %)" for j, share in features)
    return unbroken(said or "none by as much as 1 %")


def evidence_said(document: Mapping[str, Any]) -> str:
    """How many classes rest on other features now, or why that cannot be said."""
    found, matched = document["evidence"], document["matched"]
    if not found["comparable"]:
        have = "has" if matched["n_matched"] == 1 else "have"
        return (
            f"Evidence: only {matched['n_matched']:,} of the {matched['n_features']:,} features of "
            f"the first {have} one like it in the second, "
            "so evidence cannot be compared feature by feature; classes, groups and samples can"
        )
    n = found["n_classes"]
    if not n:
        return "Evidence: every class rests on the same features as before"
    rest = "rests" if n == 1 else "rest"
    return f"Evidence: {number_of(n, 'classes')} {rest} on other features, or on others more"


def sizes(document: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Size and speed of both sides: what it is, before, and now."""
    old, new = document["old"], document["new"]
    rows = [
        (name, f"{old[key]:,}", f"{new[key]:,}")
        for name, key in (("features read", "n_features_used"), ("weights", "nnz"))
    ]
    for one in document["exports"]:
        ends = one["bytes"]
        rows.append((f"bytes as {one['format']}", f"{ends['old']:,}", f"{ends['new']:,}"))
        together = "" if one["together"] else ", not measured side by side"
        for row in one["seconds"]:
            name = f"ms for {row['batch_size']} ({row['runtime']}{together})"
            first, second = (1000 * row[side]["median"] for side in ("old", "new"))
            rows.append((name, f"{first:.3g}", f"{second:.3g}"))
    return rows


def suspects_said(found: Mapping[str, Any]) -> list[str]:
    """Suspects that are new and gone, in a sentence each."""
    if found["new"] is None:
        return [f"{note[:1].upper()}{note[1:]}" for note in found["notes"]]
    said = [
        f"Suspects: {found['n_new']:,} new, {found['n_gone']:,} gone, {found['n_stayed']:,} as "
        "before"
    ]
    for key, title in (("new", "New"), ("gone", "Gone")):
        if found[key]:
            names = "; ".join(map(suspect_name, found[key][:ROWS]))
            more = f"; and {found[f'n_{key}'] - ROWS:,} more" if found[f"n_{key}"] > ROWS else ""
            said.append(f"{title}: {names}{more}")
    return [*said, *(f"{note[:1].upper()}{note[1:]}" for note in found["notes"])]


def suspect_name(row: Mapping[str, Any]) -> str:
    """A suspect: its feature and class, and what a person called it."""
    of = "all classes with few samples" if row["class"] is None else called(row["class"])
    judged = f", judged {row['verdict']}" if row["verdict"] else ""
    return f"{feature_name(row)} of {of}{judged}"


def matched_said(found: Mapping[str, Any]) -> str:
    """How features were matched, and how alike they are."""
    n, matched = found["n_features"], found["n_matched"]
    alike = f"all features together are alike by {found['cka']:.2f} (linear CKA, at most 1)"
    if found["how"] == "number":
        how = "Features are matched by their numbers"
    else:
        how = "Features are matched by the assignment with the largest correlations"
    if not matched:
        return f"No feature of the one network is one of the other: {alike}"
    return f"{how}: {matched:,} of {n:,} correlate by 0.5 or more; {alike}"


def samples_said(found: Mapping[str, Any]) -> list[str]:
    """What was compared and what was left out."""

    def counted(n: int, things: str, one: str, many: str) -> str:
        return f"{number_of(n, things)} {one if n == 1 else many}"

    said = [f"Compared on {number_of(found['n_samples'], 'samples')} that both have"]
    if found["renamed"]:
        n = found["renamed"]
        said.append(f"{n:,} of them {'has' if n == 1 else 'have'} other names, but one content")
    for key, text in (("only_old", "only the first"), ("only_new", "only the second")):
        if found[key]:
            ends = (f"is in {text} and left out", f"are in {text} and left out")
            said.append(counted(found[key], "samples", *ends))
    if found["left_out"]:
        n = sum(found["left_out"].values())
        ends = ("is of a class", "are of classes")
        said.append(f"{counted(n, 'samples', *ends)} that only one has, and left out")
    for key, text in (("classes_only_old", "first"), ("classes_only_new", "second")):
        if found[key]:
            names = ", ".join(map(called, found[key][:5]))
            ends = (f"is only in the {text}", f"are only in the {text}")
            said.append(f"{counted(len(found[key]), 'classes', *ends)}: {names}")
    if found["classes_rewritten"]:
        first = [f"{called(a)} → {called(b)}" for a, b in found["classes_rewritten"].items()]
        ends = ("is written in another way", "are written in another way")
        said.append(f"{counted(len(first), 'classes', *ends)}: {', '.join(first[:5])}")
    if found["relabelled"]:
        ends = ("has another label", "have other labels")
        said.append(f"{counted(found['relabelled'], 'samples', *ends)}: the second's count")
    return said


def _said(sentences: str) -> str:
    return plain(sentences, MOST)  # names in them are cut already


def _cell(name: str) -> str:
    return plain(called(name, 200))


def _code(text: str) -> str:
    """A rule as code in the cell of a table, in which a bar would end the cell."""
    if re.search(r"[`|\\]", text):
        return f"<code>{plain(text)}</code>"
    return as_code(text)


def _xml(text: str) -> str:
    """Text without characters that XML cannot hold."""
    return one_line(text)
