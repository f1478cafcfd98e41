from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from torch import Tensor

from penult.cli.edit_pages import change, edit_page
from penult.edit.edit import Edit
from penult.edit.effects import Effect
from penult.edit.logits import LogitTable
from penult.edit.recipe import Edited, Recipe, apply_recipe
from penult.edit.registry import EDITS, apply_edit
from penult.errors import InputError
from penult.heads.bounded_head import BoundedHead, bounded
from penult.network.head import Head
from penult.network.write_head import write_head
from planted import NAMES, brute, drawn, setting_of

FEATURES = drawn()
SETTING = setting_of(FEATURES)
HEAD = FEATURES.require_head()
EVERY = [
    Edit("off", feature=2),
    Edit("off", feature=2, of="dog"),
    Edit("off", feature=2, of="dog", at=0.0),
    Edit("off", feature=3, of=1, at="class"),
    Edit("off", component=1, of="emu"),
    Edit("off", direction=(1.0, 0, 2, 0, 0, -1, 0)),
    Edit("cap", feature=2),
    Edit("cap", feature=2, of="dog"),
    Edit("cap", feature=4, of="fox", at=0.3),
    Edit("cap", component=1, of="emu"),
    Edit("scale", feature=5, of="cat", value=0.5),
    Edit("scale", feature=5, value=2.0),
    Edit("set", feature=0, of="cat", value=-0.2),
    Edit("drop", value=0.5),
    Edit("refit", to="labels"),
    Edit("refit", to="probabilities"),
    Edit("refit", to="least-spurious", pairs=("2:dog", "3")),
]
named = pytest.mark.parametrize("edit", EVERY, ids=lambda edit: edit.described())


def logits(head: Head, z: Tensor) -> Tensor:
    return head(z.double())


@named
def test_what_features_change_of_a_flip_adds_up_to_the_change_of_its_logits(
    edit: Edit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penult.edit.effects.RESPONSIBLE", FEATURES.n_features)
    after = apply_edit(HEAD, edit, SETTING)
    effect = Effect.of(LogitTable(FEATURES, HEAD), after, SETTING.mean)
    flips = effect.document(NAMES, [str(i) for i in range(FEATURES.n_samples)])["flips"]
    samples = [x for kind in flips if kind != "commonest" for x in flips[kind]["samples"]]
    z = FEATURES.arrays()[0].double()
    change = logits(after, z) - logits(HEAD, z)
    for flip in samples:
        became, was = (NAMES.index(flip[side]) for side in ("after", "before"))
        expected = float(change[flip["row"], became] - change[flip["row"], was])
        total = sum(part["change"] for part in flip["features"])
        assert total == pytest.approx(expected, abs=1e-5)
        assert total > 0


def test_a_flip_by_one_weight_is_put_down_to_its_feature_alone() -> None:
    after = apply_edit(HEAD, Edit("set", feature=0, of="cat", value=-0.2), SETTING)
    effect = Effect.of(LogitTable(FEATURES, HEAD), after, SETTING.mean)
    flips = effect.document(NAMES, [str(i) for i in range(FEATURES.n_samples)])["flips"]
    samples = [x for kind in flips if kind != "commonest" for x in flips[kind]["samples"]]
    assert samples
    for flip in samples:
        (part,) = flip["features"]
        step = (-0.2 - float(HEAD.weight[NAMES.index("cat"), 0])) * part["value"]
        assert part["feature"] == 0
        assert part["change"] == pytest.approx(step if flip["after"] == "cat" else -step, abs=1e-5)


@named
def test_effects_are_those_of_computing_all_logits_anew(edit: Edit) -> None:
    after = apply_edit(HEAD, edit, SETTING)
    found = Effect.of(LogitTable(FEATURES, HEAD), after).compared
    labels = FEATURES.labels()
    assert torch.equal(found.before, brute(FEATURES, HEAD))
    assert torch.equal(found.after, brute(FEATURES, after))
    right = (brute(FEATURES, after) == labels).double().mean()
    assert found.overall.after == pytest.approx(float(right), abs=1e-6)


@named
def test_undoing_an_edit_gives_the_head_back_to_the_bit(edit: Edit) -> None:
    start = apply_edit(HEAD, Edit("set", feature=1, of="dog", value=-0.0), SETTING)
    if edit.kind != "refit":
        start = apply_edit(start, Edit("cap", feature=1, of="dog"), SETTING)
    before, after = bounded(start), bounded(Edited(start).apply(edit, SETTING).undo().head)
    for name in ("weight", "bias", "directions", "bounds", "scales"):
        old, new = getattr(before, name), getattr(after, name)
        assert torch.equal(old.view(torch.int32), new.view(torch.int32)), name


@named
def test_an_edit_leaves_the_given_head_alone(edit: Edit) -> None:
    weight, bias = HEAD.weight.clone(), HEAD.bias.clone()
    apply_edit(HEAD, edit, SETTING)
    assert torch.equal(HEAD.weight, weight)
    assert torch.equal(HEAD.bias, bias)


@pytest.mark.parametrize("at", [None, "class", 0.7])
@pytest.mark.parametrize("of", [None, "dog"])
def test_off_is_the_head_of_a_feature_that_stands_still(
    of: str | None, at: str | float | None
) -> None:
    start = apply_edit(HEAD, Edit("cap", feature=2), SETTING)
    start = apply_edit(start, Edit("cap", component=1, of="dog"), SETTING)
    after = apply_edit(start, Edit("off", feature=2, of=of, at=at), SETTING)
    z = FEATURES.arrays()[0]
    expected = logits(start, z)
    for c in range(4) if of is None else [1]:
        still = z.clone()
        means: dict[str | None, Tensor] = {
            None: SETTING.mean[2],
            "class": SETTING.class_means[c, 2],
        }
        still[:, 2] = at if isinstance(at, float) else float(means[at])
        expected[:, c] = logits(start, still)[:, c]
    assert torch.allclose(logits(after, z), expected, atol=1e-5)
    assert bool((after.weight[slice(None) if of is None else [1], 2] == 0).all())


def test_scaling_by_zero_is_off_and_by_one_is_nothing() -> None:
    off = apply_edit(HEAD, Edit("off", feature=2, of="dog"), SETTING)
    zero = apply_edit(HEAD, Edit("scale", feature=2, of="dog", value=0.0), SETTING)
    one = apply_edit(HEAD, Edit("scale", feature=2, of="dog", value=1.0), SETTING)
    assert off.fingerprint() == zero.fingerprint()
    assert one.fingerprint() == HEAD.fingerprint()


def test_a_cap_takes_away_only_what_exceeds_its_bound() -> None:
    after = apply_edit(HEAD, Edit("cap", feature=4, of="fox", at=0.3), SETTING)
    assert isinstance(after, BoundedHead)
    z = FEATURES.arrays()[0]
    capped = z.clone()
    capped[:, 4] = capped[:, 4].clamp_max(0.3)
    expected = logits(HEAD, z)
    expected[:, 3] = logits(HEAD, capped)[:, 3]
    assert torch.allclose(logits(after, z), expected, atol=1e-5)
    low = z[:, 4] <= 0.3
    assert torch.equal(logits(after, z)[low], logits(HEAD, z)[low])


def test_a_direction_that_is_off_gives_every_sample_the_same() -> None:
    u = torch.tensor([1.0, 0, 2, 0, 0, -1, 0])
    after = apply_edit(HEAD, Edit("off", direction=tuple(u.tolist())), SETTING)
    assert torch.allclose(after.weight @ u, torch.zeros(4), atol=1e-5)
    z = SETTING.mean.float()[None]
    assert torch.allclose(after(z), HEAD(z), atol=1e-5)


def test_principal_directions_sum_to_the_class_s_logit() -> None:
    components, variances = SETTING.components(2)
    z = FEATURES.arrays()[0][FEATURES.labels() == 2].double()
    weighted = (z - z.mean(0)) * HEAD.weight[2].double()
    along = weighted @ components.T
    assert torch.allclose(along.square().mean(0), variances, atol=1e-8)
    shares = along * components.sum(1)
    assert torch.allclose(shares.sum(1), weighted.sum(1), atol=1e-8)
    assert bool((components.sum(1) >= 0).all())
    assert variances.tolist() == sorted(variances.tolist(), reverse=True)


@pytest.mark.parametrize("half", [False, True])
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_any_recipe_is_exact_on_any_features(half: bool, seed: int) -> None:
    features = drawn(n=120, seed=seed, half=half)
    head, setting = features.require_head(), setting_of(features)
    g = torch.Generator().manual_seed(seed)
    edits = []
    for _ in range(int(torch.randint(1, 21, (1,), generator=g))):
        edit = EVERY[int(torch.randint(13, (1,), generator=g))]
        if edit.feature is not None:
            edit = replace(edit, feature=int(torch.randint(4, (1,), generator=g)))
        edits.append(edit)
    made = apply_recipe(head, Recipe(tuple(edits)), setting)
    effect = Effect.of(LogitTable(features, head), made.head).compared
    assert torch.equal(effect.after, brute(features, made.head))
    assert made.undo(len(edits)).head.fingerprint() == head.fingerprint()


def test_logits_that_lie_close_are_told_apart_exactly() -> None:
    features = drawn(n=50)
    weight = torch.ones(4, 7) + 1e-7 * torch.arange(28).view(4, 7)
    head = Head("", weight, torch.zeros(4))
    table = LogitTable(features, head)
    assert torch.equal(table.classes, brute(features, head))
    after = apply_edit(head, Edit("scale", feature=1, of="cat", value=1.0000002), SETTING)
    assert torch.equal(table.classify(after), brute(features, after))


def test_an_edit_made_twice_is_made_once() -> None:
    for edit in EVERY[:10]:
        once = apply_edit(HEAD, edit, SETTING)
        if edit.component is None and edit.direction is None:
            assert apply_edit(once, edit, SETTING).fingerprint() == once.fingerprint()
    halved = Edit("scale", feature=5, value=0.5)
    recipe, said = Recipe((halved, EVERY[0], replace(halved, reason="again"))).once()
    assert len(recipe.edits) == 2
    assert said == ["edit 3 (feature 5 times 0.5) is edit 1 again: applied once"]


def test_logits_are_kept_in_a_file_and_found_again(tmp_path: Path) -> None:
    file = tmp_path / "logits.npy"
    made = LogitTable(FEATURES, HEAD, file)
    kept = file.read_bytes()
    found = LogitTable(FEATURES, HEAD, file)
    assert torch.equal(found.logits, made.logits)
    assert file.read_bytes() == kept
    file.write_bytes(b"torn")
    assert torch.equal(LogitTable(FEATURES, HEAD, file).classes, made.classes)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (Edit("of"), "no edit is called 'of': expected one of off, cap, scale, set, drop, refit"),
        (Edit("off"), "needs one of feature, component and direction"),
        (Edit("off", feature=1, component=1, of="cat"), "needs one of feature, component"),
        (Edit("off", feature=7), "no feature 7: the head reads n_features = 7, from 0 to 6"),
        (Edit("off", feature=1, of="dg"), "no class is called 'dg': did you mean dog"),
        (
            Edit("off", feature=1, of="zebra"),
            "no class is called 'zebra': there are cat, dog, emu, fox",
        ),
        (Edit("off", feature=1, at="median"), "at: expected mean, class or a number"),
        (Edit("off", component=1), "needs the class whose it is"),
        (Edit("off", component=9, of="cat"), "class cat has 7 principal directions, there is no"),
        (Edit("off", direction=(1.0,)), "a direction needs n_features = 7 numbers, found 1"),
        (Edit("scale", feature=1), "the edit 'scale' needs a value"),
        (Edit("set", feature=1, value=1.0), "the edit 'set' needs a class"),
        (Edit("drop", feature=1), "the edit 'drop' takes no feature"),
        (Edit("refit", to="truth"), "expected one of probabilities, labels, balanced, least"),
        (Edit("refit", to="balanced"), "needs an attribute"),
        (Edit("refit", to="balanced", attribute="sex"), "analysed samples have no groups"),
        (Edit("refit", to="least-spurious"), "needs pairs of a feature and a class"),
        (Edit("drop", value=1.5), "takes a fraction from 0 to 1, found 1.5"),
    ],
)
def test_edits_that_cannot_be_made_say_why(edit: Edit, message: str) -> None:
    with pytest.raises(InputError, match=message):
        apply_edit(HEAD, edit, SETTING)


def test_an_edit_that_leaves_a_class_without_features_is_refused() -> None:
    weight = HEAD.weight.clone()
    weight[1, [0, 1, 3, 4, 5, 6]] = 0
    single = Head("", weight, HEAD.bias)
    with pytest.raises(InputError, match="feature 2 off would leave dog without a feature"):
        apply_edit(single, Edit("off", feature=2), SETTING)
    assert NAMES[1] == "dog"


def test_heads_with_bounds_are_refitted_by_no_refit() -> None:
    capped = apply_edit(HEAD, Edit("cap", feature=2), SETTING)
    with pytest.raises(InputError, match="put the refit before the caps"):
        apply_edit(capped, Edit("refit", to="labels"), SETTING)


def test_every_kind_of_edit_is_tested() -> None:
    assert {edit.kind for edit in EVERY} == set(EDITS)


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (Edit("scale", feature=1, value=float("nan")), "value: expected a number, found nan"),
        (Edit("cap", feature=1, at=float("inf")), "at: expected a number, found inf"),
        (Edit("set", feature=1, of="cat", value=float("-inf")), "expected a number, found -inf"),
        (Edit("drop", value=2.0), "takes a fraction from 0 to 1, found 2"),
        (Edit("drop", value=-0.5), "takes a fraction from 0 to 1, found -0.5"),
        (Edit("off", direction=(0.0,) * 7), "finite numbers, not all 0"),
        (Edit("off", direction=(float("nan"),) * 7), "finite numbers, not all 0"),
    ],
)
def test_numbers_that_would_spoil_a_head_are_refused(edit: Edit, said: str) -> None:
    features = drawn()
    with pytest.raises(InputError, match=re.escape(said)):
        apply_edit(features.require_head(), edit, setting_of(features))


@pytest.mark.parametrize("edit", EVERY)
def test_a_head_of_some_of_a_layers_classes_stays_one(edit: Edit, tmp_path: Path) -> None:
    some = replace(HEAD, kept=(1, 4, 6, 7), n_outputs=9)
    setting = replace(SETTING, dense=some)
    made = Edited(some).apply(edit, setting)
    assert (made.head.kept, made.head.n_outputs) == ((1, 4, 6, 7), 9)
    back = made.undo().head
    assert (back.kept, back.n_outputs) == ((1, 4, 6, 7), 9)
    assert torch.equal(back.weight, HEAD.weight)
    if isinstance(made.head, BoundedHead):
        made.head.save(tmp_path / "head.safetensors")
        loaded = BoundedHead.load(tmp_path / "head.safetensors")
        assert (loaded.kept, loaded.n_outputs) == ((1, 4, 6, 7), 9)
        z = FEATURES.arrays()[0]
        assert torch.equal(loaded(z), made.head(z))
        assert torch.allclose(loaded.module()(z), made.head(z), atol=1e-4)


@pytest.mark.parametrize("transposed", [False, True])
def test_only_the_kept_classes_of_a_layer_get_other_weights(transposed: bool) -> None:
    whole, bias = torch.randn(9, 7), torch.randn(9)
    model = torch.nn.Module()
    model.fc = torch.nn.Module()
    model.fc.weight = torch.nn.Parameter((whole.T if transposed else whole).clone())
    model.fc.bias = torch.nn.Parameter(bias.clone())
    rows = [1, 4, 6]
    old = Head("fc", whole[rows], bias[rows], kept=tuple(rows), n_outputs=9)
    new = replace(old, weight=old.weight + 1, bias=old.bias - 1)
    write_head(model, old, new)
    found = model.fc.weight.detach()
    whole[rows] += 1
    bias[rows] -= 1
    assert torch.equal(found.T if transposed else found, whole)
    assert torch.equal(model.fc.bias.detach(), bias)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["cap", "scale"]),
            st.sampled_from([None, *NAMES]),
            st.sampled_from([0.25, 0.5, 0.75, 1.5]),
        ),
        min_size=2,
        max_size=6,
    )
)
def test_of_several_caps_the_lowest_holds(steps: list[tuple[str, str | None, float]]) -> None:
    """Against functions of the feature, each edit put inside of those before it."""
    j, z = 2, FEATURES.arrays()[0].double()
    seen = [z[:, j].clone() for _ in NAMES]
    made: Head = HEAD
    # The last edit is the innermost.
    for kind, of, number in steps:
        cap = kind == "cap"
        edit = Edit(kind, j, of, at=number if cap else None, value=None if cap else number)
        made = apply_edit(made, edit, SETTING)
    for kind, of, number in reversed(steps):
        for c, name in enumerate(NAMES):
            if of in (None, name):
                mean = SETTING.mean[j]
                x = seen[c]
                seen[c] = x.clamp(max=number) if kind == "cap" else mean + number * (x - mean)
    plain = z @ HEAD.weight.double().T + HEAD.bias.double()
    moved = torch.stack(seen, 1) - z[:, j, None]
    expected = plain + moved * HEAD.weight[:, j].double()
    assert torch.allclose(logits(made, z), expected, atol=1e-4, rtol=1e-4)


def test_of_two_caps_of_a_direction_the_lowest_holds() -> None:
    caps = [Edit("cap", component=1, of="emu", at=at) for at in ("mean", 0.1, "class")]
    c, z = NAMES.index("emu"), FEATURES.arrays()[0].double()
    apart = [logits(apply_edit(HEAD, cap, SETTING), z)[:, c] for cap in caps]
    lowest = torch.stack(apart).amin(0)
    for order in (caps, caps[::-1]):
        both = apply_recipe(HEAD, Recipe(tuple(order)), SETTING).head
        assert torch.allclose(logits(both, z)[:, c], lowest, atol=1e-5)


@pytest.mark.parametrize(
    "edit",
    [
        Edit("scale", feature=2, value=1e300),
        Edit("off", feature=2, at=1e300),
        Edit("off", feature=2, of="dog", at=-1e40),
        Edit("cap", feature=2, at=1e39),
        Edit("set", feature=2, of="dog", value=1e39),
        Edit("set", feature=2, of="dog", value=-1e300),
        Edit("scale", component=1, of="emu", value=1e200),
    ],
    ids=lambda edit: edit.described(),
)
def test_numbers_beyond_float32_are_refused(edit: Edit) -> None:
    with pytest.raises(InputError, match=r"larger than float32 can hold .* a smaller number"):
        apply_edit(HEAD, edit, SETTING)


def test_edits_that_change_nothing_are_known() -> None:
    steps = [
        Edit("off", feature=2),
        Edit("off", feature=2, at=0.0),
        Edit("scale", feature=2, of="dog", value=3.0),
        Edit("cap", feature=4, at=0.2),
        Edit("cap", feature=4, of="dog", at=0.5),
        Edit("scale", feature=5, value=1.0),
        Edit("set", feature=2, of="dog", value=0.5),
    ]
    edited = apply_recipe(HEAD, Recipe(tuple(steps)), SETTING)
    idle = [edited.is_idle(i) for i in range(len(steps))]
    assert idle == [False, True, True, False, True, True, False]


def test_an_edit_says_in_full_what_it_does() -> None:
    assert Edit("drop", value=0.05).described() == (
        "features used less than 5 % of the most used one off"
    )
    assert Edit("drop").described() == Edit("drop", value=0.01).described()
    balanced = Edit("refit", to="balanced", attribute="domain")
    assert balanced.described() == "weights refitted to samples balanced by domain"


def test_flips_that_are_not_listed_are_counted_and_no_change_has_a_sign() -> None:
    after = apply_edit(HEAD, Edit("off", feature=2), SETTING)
    ids = [str(i) for i in range(FEATURES.n_samples)]
    effect = Effect.of(LogitTable(FEATURES, HEAD), after, SETTING.mean)
    found = effect.document(NAMES, ids)
    about = {"head": "dense", "n_samples": len(ids), "part": "eval", "edits": [], "notes": []}
    console = Console(file=io.StringIO(), width=100)
    console.print(edit_page(about | found))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    n = found["flips"]["right_to_wrong"]["n_samples"]
    assert n > 5
    assert f"… and {n - 5:,} more: --json" in text
    assert change({"interval": [-0.0, 0.0]}) == "+0.00 to +0.00"
