"""Edits at a desk that keeps what they share: the same numbers as one edit by itself."""

from __future__ import annotations

import json
import random
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from acted_run import NAMES, acted
from command import penult
from penult import Run
from penult.edit.edit import Edit
from penult.edit.recipe import Recipe
from penult.errors import InputError
from penult.explain.reasons import Box
from penult.live.decisions import decision_on, with_values
from penult.live.samples import SampleQuery, SampleTable
from penult.live.state import HeadState
from penult.live.switchboard import Switchboard
from penult.network.head import Head

REFIT = Edit("refit", to="labels")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return acted(tmp_path_factory.mktemp("switched"))


@pytest.fixture(scope="module")
def board(run: Run) -> Switchboard:
    return Switchboard(run, None)


def drawn(seed: int) -> tuple[Edit, ...]:
    """A few edits that leave every class a feature; a refit, if any, before caps."""
    rng = random.Random(seed)
    found = [
        Edit(
            rng.choice(["off", "scale", "set"]),
            feature=rng.randrange(3, 12),
            of=rng.choice(NAMES),
            value=rng.choice([0.5, -1.0, 2.0]),
        )
        for _ in range(rng.randrange(4))
    ]
    found = [
        Edit("off", feature=one.feature, of=rng.choice([one.of, None]))
        if one.kind == "off"
        else one
        for one in found
    ]
    found += [REFIT] if rng.random() < 0.3 else []
    found += [Edit("cap", feature=rng.randrange(12), of=rng.choice([NAMES[0], None]))]
    return tuple(found[: rng.randrange(1, len(found) + 1)])


@pytest.mark.parametrize("seed", range(12))
def test_every_number_is_that_of_the_command(
    run: Run, board: Switchboard, seed: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edits = drawn(seed)
    sparse = None if seed % 3 else ("contribution", 3)
    Recipe(edits).save(tmp_path / "recipe.json")
    head = [] if sparse is None else ["-k", "3", "--select", "contribution"]
    recipe = str(tmp_path / "recipe.json")
    assert penult("edit", str(run.folder), "--recipe", recipe, *head, "--json") == 0
    expected = json.loads(capsys.readouterr().out)

    found = board.effect(HeadState(sparse, edits))

    assert json.loads(json.dumps(found.document)) == expected, edits
    before = board.head(HeadState(sparse))
    changed = {(c, j): (was, now) for c, j, was, now in found.changed}
    assert found.n_changed == len(changed)
    after = board.head(HeadState(sparse, edits)).weight
    for c, j in ((c, j) for c in range(3) for j in range(12)):
        pair = float(before.weight[c, j]), float(after[c, j])
        assert changed.get((c, j), pair) == pair, (c, j)
        assert ((c, j) in changed) == (pair[0] != pair[1])


def test_one_state_in_the_place_of_another_is_what_both_give_by_themselves(
    run: Run, board: Switchboard
) -> None:
    off, cap = Edit("off", feature=3, of=NAMES[2]), Edit("cap", feature=1, at=0.2)
    states = [
        HeadState(),
        HeadState(None, (off,)),
        HeadState(None, (off, cap)),
        HeadState(("contribution", 1)),
        HeadState(("contribution", 2)),
        HeadState(("contribution", 3), (cap,)),
    ]
    z, labels = run.evaluation().arrays()
    for before in states:
        for after in states:
            found = board.compare(before, after).document["overall"]
            was, now = (board.head(one)(z.double()).argmax(1) for one in (before, after))
            assert found["before"] == pytest.approx(float((was == labels).double().mean()))
            assert found["after"] == pytest.approx(float((now == labels).double().mean()))
            assert found["lost"] == int(((was == labels) & (now != labels)).sum())
            assert found["won"] == int(((was != labels) & (now == labels)).sum())


def test_a_refit_is_made_once_and_what_follows_goes_on_from_it(run: Run) -> None:
    asked: list[HeadState] = []
    plain = Switchboard(run, None)

    def refit(state: HeadState) -> Any:
        asked.append(state)
        return plain._applied(state)

    board = Switchboard(run, None, refit)
    off = Edit("off", feature=3)
    assert board.is_quick(HeadState(None, (off,)))
    assert not board.is_quick(HeadState(None, (off, REFIT)))
    first = board.effect(HeadState(None, (off, REFIT)))
    then = board.effect(HeadState(None, (off, REFIT, Edit("cap", feature=0, at=0.5))))
    assert asked == [HeadState(None, (off, REFIT))]
    assert board.is_quick(HeadState(None, (off, REFIT, Edit("cap", feature=1, at=0.5))))
    assert [edit["edit"] for edit in then.document["edits"]] == ["off", "refit", "cap"]
    assert first.document["overall"]["n_samples"] == 900


def test_others_are_answered_while_a_refit_is_made(run: Run) -> None:
    begun, over = threading.Event(), threading.Event()
    plain = Switchboard(run, None)

    def refit(state: HeadState) -> Any:
        begun.set()
        assert over.wait(60)
        return plain._applied(state)

    board = Switchboard(run, None, refit)
    slow = threading.Thread(target=board.effect, args=(HeadState(None, (REFIT,)),))
    slow.start()
    assert begun.wait(60)
    quick = threading.Thread(target=board.effect, args=(HeadState(None, (drawn(1)[0],)),))
    quick.start()
    quick.join(60)
    answered = not quick.is_alive()
    over.set()
    slow.join(60)
    quick.join(60)
    assert answered, "an edit waits for somebody else's refit"


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (5, "a state is an object of `head` and `edits`"),
        ({"heads": "dense"}, "a state has no 'heads': expected head, edits"),
        ({"head": {"select": "contribution", "k": 99}}, "there is no head .* in this run"),
        ({"head": {"select": "../x", "k": 1}}, "there is no head .* in this run"),
        ({"head": {"select": "contribution", "k": True}}, "there is no head .* in this run"),
        ({"edits": {}}, "expected a list of at most 2,000 edits"),
        ({"edits": [{"edit": "off"}] * 2001}, "expected a list of at most 2,000 edits"),
        ({"edits": [{"edit": "off", "feature": 99}]}, "there is no feature 99"),
        ({"edits": [{"edit": "off", "feature": 1, "class": "x"}]}, "'x'"),
        ({"edits": [{"edit": "melt", "feature": 1}]}, "no edit is called 'melt'"),
        ({"edits": [{"edit": "cap", "feature": 1, "at": float("nan")}]}, "a finite number"),
    ],
)
def test_what_is_no_state_is_refused(state: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        HeadState.parsed(state, [("contribution", 2)], 12, NAMES)


def test_a_class_left_without_features_is_refused_and_the_board_goes_on(board: Switchboard) -> None:
    with pytest.raises(InputError, match="without a feature"):
        board.effect(HeadState(("contribution", 1), (Edit("drop", value=1.0), *_all_off())))
    assert board.effect(HeadState()).document["overall"]["lost"] == 0


def _all_off() -> tuple[Edit, ...]:
    return tuple(Edit("off", feature=j) for j in range(12))


@pytest.mark.parametrize("seed", range(20))
def test_samples_are_those_of_a_search_by_hand(run: Run, seed: int) -> None:
    rng = random.Random(seed)
    table = SampleTable(run)
    part = table.part(rng.choice(["train", "eval"]))
    features = run.train() if part.part == "train" else run.evaluation()
    z, labels = features.arrays()
    head = run.train().require_head()
    given = head(z).argmax(1).tolist()
    ids = features.ids()
    query = SampleQuery(
        label=rng.choice([None, 0, 2]),
        predicted=rng.choice([None, 1, 2]),
        feature=rng.choice([None, 3, 7]),
        rising=rng.random() < 0.5,
        text=rng.choice(["", "2/<U>", "1"]),
        wrong=rng.random() < 0.3,
    )
    kept = [
        n
        for n in range(len(labels))
        if query.label in (None, int(labels[n]))
        and query.predicted in (None, given[n])
        and (not query.wrong or given[n] != int(labels[n]))
        and query.text.lower() in ids[n].lower()
    ]
    if query.feature is not None:
        j, sign = query.feature, 1 if query.rising else -1
        kept.sort(key=lambda n: sign * float(z[n, j]))
    assert part.chosen(query).tolist() == kept
    for n in kept[:3]:
        about = table.about(table.number(part.part, n), True)
        assert about["id"] == ids[n]
        assert (about["class"], about["predicted"]) == (int(labels[n]), given[n])
        assert about["src"] == f"image/{part.part}/{n}"


def test_samples_of_a_group_are_those_that_have_its_value(run: Run) -> None:
    part = SampleTable(run).part("eval")
    assert part.groups is not None
    ((name, attribute),) = part.groups.attributes.items()
    for v, value in enumerate(attribute.values):
        rows = part.chosen(SampleQuery(group=(name, value)))
        assert rows.tolist() == (attribute.codes == v).nonzero()[:, 0].tolist()
    with pytest.raises(InputError, match="no value 'nobody'"):
        part.chosen(SampleQuery(group=(name, "nobody")))
    with pytest.raises(InputError, match="no attribute 'age'"):
        part.chosen(SampleQuery(group=("age", "9")))


@pytest.mark.parametrize("seed", range(15))
def test_the_parts_of_a_decision_add_up_also_with_caps(board: Switchboard, seed: int) -> None:
    rng = random.Random(seed)
    state = HeadState(rng.choice([None, ("contribution", 3)]), drawn(seed))
    head = board.head(state)
    run = board.desk.run
    z = run.evaluation().arrays()[0][rng.randrange(900)]
    z = with_values(z, {str(rng.randrange(12)): rng.uniform(-1, 2)})
    moments = run.moments()
    label = rng.choice([None, 0, 1, 2])
    found = decision_on(head, z, Box(moments.low, moments.high), label)
    logits = head(z[None].double())[0]
    c, against = found["of"], found["against"]
    assert c == found["predicted"] == int(logits.argmax())
    assert against == (label if label not in (None, c) else int(logits.argsort()[-2]))
    assert found["total"] == pytest.approx(float(logits[c] - logits[against]), abs=1e-5)
    parts = sum(term[3] for term in found["terms"]) + found["rest"] + found["bias"]
    assert parts == pytest.approx(found["total"], abs=1e-9)
    weight = head.weight
    read = ((weight[c] != 0) | (weight[against] != 0)).nonzero()[:, 0].tolist()
    assert sorted(term[0] for term in found["terms"]) == read
    likely = logits.softmax(0)
    for d, logit, probability in found["classes"]:
        assert logit == pytest.approx(float(logits[d]), abs=1e-6)
        assert probability == pytest.approx(float(likely[d]), abs=1e-6)


def test_features_that_a_person_moved_are_listed_however_little_they_add() -> None:
    weight = torch.zeros(2, 90)
    weight[0] = torch.arange(90, 0, -1)
    head = Head("", weight, torch.zeros(2))
    box = Box(torch.zeros(90), torch.ones(90))
    few = decision_on(head, torch.ones(90), box, None)
    assert [term[0] for term in few["terms"]] == list(range(40))
    more = decision_on(head, torch.ones(90), box, None, also=[3, 70, 88])
    assert [term[0] for term in more["terms"]] == [*range(40), 70, 88]
    for found in (few, more):
        parts = sum(term[3] for term in found["terms"]) + found["rest"] + found["bias"]
        assert parts == pytest.approx(found["total"]) == pytest.approx(90 * 91 / 2)


@pytest.mark.parametrize("seed", range(6))
def test_a_reason_holds_whatever_the_other_features_are(board: Switchboard, seed: int) -> None:
    torch.manual_seed(seed)
    head = board.head(HeadState())
    run = board.desk.run
    moments = run.moments()
    low, high = moments.low.double(), moments.high.double()
    z = run.evaluation().arrays()[0][seed * 7].double()
    found = decision_on(head, z.float(), Box(low, high), None)
    reason = found["reason"]
    assert reason["valid"]
    others = low + (high - low) * torch.rand(2000, 12, dtype=torch.float64)
    others[:, reason["features"]] = z[reason["features"]]
    assert bool((head(others).argmax(1) == found["predicted"]).all())


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"12": 1.0}, "there is no feature 12: expected 0 to 11"),
        ({"-1": 1.0}, "there is no feature -1"),
        ({"x": 1.0}, "there is no feature x"),
        ({"1": "a"}, "feature 1: expected a number, found 'a'"),
        ({"1": float("inf")}, "feature 1: expected a number, found inf"),
        ({"1": True}, "feature 1: expected a number, found True"),
    ],
)
def test_values_that_are_none_are_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        with_values(torch.zeros(12), values)
