"""Notebook: an explanation as the HTML that a notebook shows."""

from __future__ import annotations

from html import escape

from penult.explain.decision import SHOWN, Decision
from penult.explain.overlay import data_uri, enlarged
from penult.explain.shading import shaded
from penult.explain.wording import (
    remarks,
    sufficient,
    summary,
    words_of,
    words_that_decide,
)


def notebook_html(found: Decision) -> str:
    """The image, a row for each of the first features with its heat map, and what they add up to.

    Names are text, whatever they hold.
    """
    picture = ""
    if found.picture is not None:
        picture = f'<img alt="" src="{data_uri(enlarged(found.picture))}" height="96">'
    if found.text is not None:
        picture = _text(found)
    label = "" if found.label is None else f" (labelled {escape(found.class_names[found.label])})"
    said = "".join(f"<p>{escape(remark)}</p>" for remark in remarks(found))
    return (
        f"<div><p><b>{escape(found.image)}</b>{label}: {escape(summary(found))} "
        f"({escape(found.head_name)})</p>{said}{picture}<table><thead><tr><th></th>"
        "<th>feature</th><th>value</th><th>weight</th><th>contribution</th></tr></thead>"
        f"<tbody>{''.join(_rows(found))}</tbody></table>"
        f"<p>{escape(sufficient(found))}</p><p>{escape(found.note)}</p></div>"
    )


def _text(found: Decision) -> str:
    """The text, its words shaded by what they add."""
    if found.words is None:
        return f"<p>{escape(found.text or '')}</p>"
    shown = []
    for part, strength in found.words.parts():
        shade = shaded(strength)
        style = "" if shade is None else ' style="background: rgb({}, {}, {}); color: black"'
        shown.append(f"<span{style.format(*(shade or ()))}>{escape(part)}</span>")
    of = escape(found.class_names[found.terms.of])
    return (
        f"<p>{''.join(shown)}</p><p>{escape(words_that_decide(found))} Orange speaks for {of}, "
        "blue against.</p>"
    )


def _rows(found: Decision) -> list[str]:
    rows = []
    overlays = found.overlays()
    worded = found.words is not None
    for i, term in enumerate(found.terms.terms[:SHOWN]):
        drawn = ""
        if i < len(overlays):
            uri = data_uri(overlays[i])
            drawn = f'<img alt="heat map of feature {term.feature}" src="{uri}" height="64">'
        if worded:
            drawn = escape(words_of(found, i))
        rows.append(
            f"<tr><td>{drawn}</td><td>{term.feature}</td><td>{term.value:.3f}</td>"
            f"<td>{term.weight:+.3f}</td><td>{term.contribution:+.3f}</td></tr>"
        )
    if rest := found.terms.terms[SHOWN:]:
        adds = f"{found.terms.rest(SHOWN):+.3f}"
        rows.append(
            f"<tr><td></td><td>{len(rest)} others</td><td></td><td></td><td>{adds}</td></tr>"
        )
    bias = f"{found.terms.bias:+.3f}"
    rows.append(f"<tr><td></td><td>bias</td><td></td><td></td><td>{bias}</td></tr>")
    return rows
