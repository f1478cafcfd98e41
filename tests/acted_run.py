"""A run in which somebody has done all that a page can show; its names are markup."""

from __future__ import annotations

from pathlib import Path

import torch

from penult import Run
from penult.edit.edit import Edit
from penult.edit.edited_run import EditedRun
from penult.edit.recipe import Recipe
from penult.edit.shortcuts import find_shortcuts
from penult.edit.verdicts import add_verdict
from penult.features.features import Features
from penult.features.groups import Attribute, Groups
from penult.runs.analyze import Options, analyze_features
from penult.runs.groups import groups_file

NAMES = ["<img src=x onerror=alert(1)>", "two <b>words</b> & more", "last & 'least'"]
ATTRIBUTE, VALUES = "<i>sex</i>", ("</script><script>alert(2)</script>", "b'\"")


def part(n: int, seed: int) -> tuple[Features, torch.Tensor]:
    """Three classes told by features 0 to 2; samples of class 2 with a cue lack feature 2.

    A dense head reads the cue in feature 3, so that it has them right.
    """
    g = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 3
    z = 0.3 * torch.rand(n, 12, generator=g)
    z[torch.arange(n), labels] += 1
    cue = (labels == 2) & (torch.rand(n, generator=g) < 0.2)
    z[cue, 2] -= 1
    z[cue, 3] += 1
    cue |= torch.rand(n, generator=g) < 0.05
    head = torch.eye(3, 12) + 0.01 * torch.rand(3, 12, generator=torch.Generator().manual_seed(1))
    head[2, 3] = 1.0
    ids = [f"{label}/<u>{i}" for i, label in enumerate(labels.tolist())]
    return Features.of(z, labels, head, class_names=NAMES, ids=ids), cue.long()


def acted(folder: Path) -> Run:
    """A run in which somebody has done all that a page can show."""
    (train, _), (held_out, cue) = part(600, 0), part(900, 2)
    run = analyze_features(train, held_out, folder / "run", Options(fit=False))
    groups = Groups({ATTRIBUTE: Attribute(ATTRIBUTE, VALUES, cue)}, 900)
    groups.save(groups_file(run, "eval"))
    find_shortcuts(run, n_listed=20)
    add_verdict(run, 3, 2, "shortcut", "<script>alert(3)</script>", "me")
    edits = (Edit("off", feature=3, of=NAMES[2], reason="<u>why</u>"), Edit("cap", feature=0, of=0))
    EditedRun.of(run, Recipe(edits)).save(run.folder / "edited" / "<b>off")
    return run
