"""What a command prints to standard output: pages and JSON, whatever its encoding."""

from __future__ import annotations

import codecs
import json
import re
import sys
from collections.abc import Mapping
from typing import Any

PLAIN = {  # characters of the pages, for terminals and files that cannot hold them
    "━": "-", "╸": "-", "×": "x", "…": "...", "−": "-", "–": "-", "·": ".", "±": "+-", "→": "->",
    "≤": "<=", "≥": ">=", "Ψ": "Psi", "μ": "mu", "Σ": "sum", "²": "2", "█": "#", "░": ".", "▏": "|",
    "“": '"', "”": '"', "‘": "'", "’": "'", "\u00a0": " ", "✓": "yes", "✗": "no",
}  # fmt: skip


def print_json(document: Mapping[str, Any]) -> None:
    """Print one JSON document to standard output; escaped where its encoding is not UTF-8."""
    text = json.dumps(document, ensure_ascii=not _is_unicode(sys.stdout), indent=2)
    # Those below 32 are escaped already; these give orders to a terminal, too.
    print(re.sub("[\x7f-\x9f]", lambda found: f"\\u{ord(found[0]):04x}", text))


def allow_any_character() -> None:
    """Let both outputs take every character: one that their encoding lacks is written plainly."""
    codecs.register_error("penult.plain", _plainly)
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None and not _is_unicode(stream):
            reconfigure(errors="penult.plain")


def _is_unicode(stream: Any) -> bool:
    return (getattr(stream, "encoding", None) or "").lower().replace("_", "-").startswith("utf")


def _plainly(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lost = error.object[error.start : error.end]
    return "".join(PLAIN.get(one) or f"\\u{ord(one):04x}" for one in lost), error.end
