"""Networks that classify texts: features, words that explain, and all commands on such a run."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from command import penult
from penult import Run
from penult.data.forms import DataOptions
from penult.data.open import batches, open_data
from penult.data.tokens import TokenTransform
from penult.errors import InputError
from penult.explain.explanation import Explanation
from penult.explain.page import explanation_page
from penult.explain.words import WordAttribution
from penult.live.samples import SampleQuery
from penult.live.session import Listener, RunSession
from penult.live.state import HeadState
from penult.runs.reopen import Places, reopen_texts
from sentences import PLANTED, classifier, save, sentences, tokenizer, write_table

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a trained network, its sentences, and their run; tests only read it."""
    folder = tmp_path_factory.mktemp("texts")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        save(folder)
        command = ("analyze", "hf:net", "train.csv", "--eval", "eval.csv", "--batch-size", "7")
        assert penult(*command, "--out", "run") == 0
    return folder


@pytest.fixture
def run(place: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(place)
    return Run.open(place / "run")


def test_features_are_those_of_each_text_alone(run: Run) -> None:
    model, transform = reopen_texts(run)
    data = open_data("eval.csv", options=DataOptions(texts=True))
    head = run.train().require_head()
    seen: list[torch.Tensor] = []
    layer: Any = model.classifier
    handle = layer.register_forward_hook(lambda _, x, y: seen.append(x[0]))
    with torch.no_grad():
        for i in range(40):
            model(**transform.tokenizer(data.load(i), return_tensors="pt"))
    handle.remove()
    z = run.evaluation().arrays()[0][:40]
    assert (z - torch.cat(seen)).abs().max() < 1e-4
    assert head.name == "classifier"
    assert run.evaluation().n_samples == 300


def test_batches_from_any_one_on_are_the_same(run: Run) -> None:
    _, transform = reopen_texts(run)
    data = open_data("eval.csv", options=DataOptions(texts=True))
    whole = list(batches(data, transform, batch_size=32))
    rest = list(batches(data, transform, batch_size=32, start_batch=6))
    for one, other in zip(whole[6:], rest, strict=True):
        assert one.ids == other.ids
        assert isinstance(one.inputs, dict)
        assert isinstance(other.inputs, dict)
        for name, values in one.inputs.items():
            assert torch.equal(values, other.inputs[name])
            assert values.shape[0] == len(one.ids)


def test_what_words_add_sums_up_to_what_blanking_them_takes(run: Run) -> None:
    model, transform = reopen_texts(run)
    head = run.train().require_head()
    weights = (head.weight[0] - head.weight[1]).double()
    attribute = WordAttribution(model, head, transform)
    gaps = []
    for text, _ in sentences(12, 5, planted=False):
        found = attribute(text, [0, 3], weights, CPU)
        assert [text[w.start : w.end] for w in found.words] == text.split()
        assert "".join(part for part, _ in found.parts()) == text
        ids = transform.tokenizer(text, return_tensors="pt")["input_ids"]
        blank = ids.clone()
        blank[:, 1:-1] = transform.blank
        with torch.no_grad():
            logits = [model(input_ids=x).logits[0].double() for x in (ids, blank)]
        difference = [float(x[0] - x[1]) for x in logits]
        wanted = difference[0] - difference[1]
        gaps.append(abs(float(found.decision.sum()) - wanted) / max(abs(wanted), 1.0))
    assert float(np.median(gaps)) < 0.1


def test_a_suspect_reads_the_planted_word(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert penult("shortcuts", "run", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    rows = next(v for v in document.values() if isinstance(v, list) and v and "feature" in v[0])
    first = next(row for row in rows if row["feature"] is not None)
    model, transform = reopen_texts(run)
    head = run.train().require_head()
    attribute = WordAttribution(model, head, transform)
    texts = [text for text, _ in sentences(300, 1000, planted=False) if PLANTED in text.split()]
    marked = 0
    for text in texts[:9]:
        found = attribute(text, [first["feature"]], head.weight[0].double(), CPU)
        marked += found.top(found.features[0], 1)[0][0] == PLANTED
    assert marked >= 5, f"{marked} of 9"


def test_explain_marks_words_everywhere(
    run: Run, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    capsys.readouterr()
    assert penult("explain", "run", "eval:3", "--dense", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    text = document["text"]
    assert [text[w["start"] : w["end"]] for w in document["words"]] == text.split()
    assert len(document["features"][0]["words"]) == len(text.split())
    picture = tmp_path / "picture.svg"
    assert penult("explain", "run", "eval:3", "--dense", "--out", str(picture)) == 0
    shown = capsys.readouterr().out
    assert "What each word adds to" in shown
    assert "words that add" in shown  # the end of a heading may stand on the next line
    drawn = picture.read_text(encoding="utf-8")
    assert all(f">{word}<" in drawn for word in text.split())


def test_a_new_text_is_explained_and_a_long_one_cut(run: Run) -> None:
    found = Explanation.of(run, f"we saw <b> {PLANTED} today", dense=True, exact=False)
    assert found.label is None
    assert found.words is not None
    html = found._repr_html_()
    assert "&lt;" in html
    assert "<b> " not in html
    long = Explanation.of(run, "the zebra " * 40, dense=True, exact=False)
    assert long.words is not None
    assert len(long.words.words) == 30  # of 32 tokens two are special
    assert long.words.end < len(long.text or "")
    explanation_page(long)
    with pytest.raises(InputError, match="is no file, and no text of the run"):
        Explanation.of(run, "nothing", dense=True)


@pytest.mark.parametrize(
    "command",
    [
        ("show", "run"),
        ("measure", "run", "--json"),
        ("edit", "run", "--off", "0:food", "--json"),
        ("report", "run", "--images", "2", "--out", "page.html"),
    ],
)
def test_commands_take_a_run_of_texts(
    run: Run, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert penult(*command) == 0
    if command[0] == "report":
        page = Path("page.html").read_text(encoding="utf-8")
        assert "The samples are texts" in page


def test_training_the_whole_network_on_texts_is_refused(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert penult("tune", "run", "-k", "1") == 2
    assert "give --head-only" in capsys.readouterr().err


REFUSED: list[tuple[list[str], str]] = [
    (["hf:net", "columns.csv"], r"which column holds the texts\? It has a, label"),
    (["hf:net", "images.csv"], "path names images, and the network takes texts"),
    (["hf:net", "folder"], "folder holds images, and the network takes texts"),
    (["hf:net", "digits"], "digits holds images, and the network takes texts"),
    (["hf:net", "train.csv", "--text-column", "body"], "has no column 'body'; it has text, label"),
    (["hf:net", "train.csv", "--size", "32"], "--size is for images, and hf:net takes texts"),
    (["hf:net", "train.csv", "--image-column", "text"], "--image-column is for images"),
    (["hf:bare", "train.csv"], "hf:bare has no tokenizer"),
    (
        ["net.py:images", "train.csv", "--mean", "0", "--std", "1"],
        "text holds texts, and the network takes images",
    ),
    (["net.py:pair", "train.csv"], "is a dict: expected one of transformers"),
    (["net.py:other", "train.csv"], "gives tokens up to number"),
]


@pytest.mark.parametrize(("command", "said"), REFUSED)
def test_one_line_says_what_does_not_fit(
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: list[str],
    said: str,
) -> None:
    monkeypatch.chdir(place)
    (place / "columns.csv").write_text("a,label\n1,food\n2,sport\n")
    (place / "images.csv").write_text("path,label\na.png,food\nb.png,sport\n")
    (place / "folder" / "a").mkdir(parents=True, exist_ok=True)
    (place / "net.py").write_text(
        "import sys\n"
        f"sys.path.insert(0, {str(Path(__file__).parents[1])!r})\n"
        "from torch import nn\n"
        "from sentences import classifier, tokenizer\n"
        "def images(): return nn.Sequential(nn.Flatten(), nn.Linear(12, 3))\n"
        "def pair(): return classifier(tokenizer(['a b'])), {'a': 1}\n"
        "def other(): return classifier(tokenizer(['a b'])), tokenizer(['a b c d'])\n"
    )
    if not (place / "bare").exists():
        classifier(tokenizer(["a b"])).save_pretrained(place / "bare")
    capsys.readouterr()
    assert penult("analyze", *command, "--out", "refused") == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.search(said, error), error


def test_the_live_page_gives_texts_in_place_of_pictures(run: Run) -> None:
    session = RunSession(run.folder, Places(), "cpu")
    try:
        data = open_data("eval.csv", options=DataOptions(texts=True))
        found = session.samples("eval", SampleQuery(limit=12))
        texts = [found["images"][number]["text"] for number, _ in found["rows"]]
        assert texts == [data.load(i) for i in range(12)]
        assert all(image["src"] is None for image in found["images"].values())
        with pytest.raises(InputError, match="the run was not made from images"):
            session.upload(b"", "x", HeadState(), Listener())
        with pytest.raises(InputError, match="no network and images of which maps"):
            session.maps(0, [0], Listener())
    finally:
        session.close()


class Bag(torch.nn.Module):
    """The mean over all tokens, padding included."""

    def __init__(self, n_words: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = torch.nn.Embedding(n_words, 6)
        self.head = torch.nn.Linear(6, 3)

    def forward(self, input_ids: torch.Tensor) -> Any:
        return self.head(self.table(input_ids).mean(1))


@pytest.mark.filterwarnings("default")
def test_a_network_that_reads_padding_gets_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = sentences(30, 1, planted=False)
    rows[4] = ("", "food")
    write_table(tmp_path / "texts.csv", rows)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bag.py").write_text(
        f"import sys\nsys.path[:0] = [{str(Path(__file__).parent)!r}, "
        f"{str(Path(__file__).parents[1])!r}]\n"
        "from test_words import Bag\n"
        "from sentences import sentences, tokenizer\n"
        "def bag():\n"
        "    words = tokenizer([t for t, _ in sentences(30, 1, planted=False)])\n"
        "    words.model_max_length = 8\n"
        "    model = Bag(len(words))\n"
        "    model.penult_tokenizer = words\n"
        "    return model\n"
    )
    assert penult("analyze", "bag.py:bag", "texts.csv", "--out", "run", "--no-fit") == 0
    told = capsys.readouterr()
    assert "--batch-size is 1" in told.err
    assert "1 samples of train left out" in told.out
    assert "were cut to 8 tokens" in told.out
    assert "is empty: it holds no text" in told.out
    run = Run.open("run")
    words = tokenizer([text for text, _ in sentences(30, 1, planted=False)])
    z = run.train().arrays()[0]
    ids = words(rows[0][0], truncation=True, max_length=8, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        assert torch.allclose(z[0], Bag(len(words)).table(ids).mean(1)[0], atol=1e-5)


def test_texts_come_in_every_form(place: Path, tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    pa = pytest.importorskip("pyarrow")
    datasets = pytest.importorskip("datasets")
    rows = [
        {"id": f"s{i}", "text": t, "label": c}
        for i, (t, c) in enumerate(sentences(20, 2, planted=False))
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    datasets.Dataset.from_list(rows).save_to_disk(tmp_path / "saved")
    options = DataOptions(texts=True)
    listed: Any = [(row["text"], row["label"]) for row in rows]
    columns: Any = {key: [row[key] for row in rows] for key in ("text", "label")}
    for spec in (tmp_path / "a.jsonl", tmp_path / "a.parquet", tmp_path / "saved", columns):
        data = open_data(spec, options=options)
        assert [data.load(i) for i in range(20)] == [row["text"] for row in rows]
        names = data.class_names
        assert names is not None
        assert [names[data.sample(i)[1]] for i in range(20)] == [row["label"] for row in rows]
    assert open_data(tmp_path / "a.jsonl", options=options).id(3) == "s3"
    assert [open_data(listed, labelled=False, options=options).load(i) for i in (0, 1)] == [
        row["text"] for row in rows[:2]
    ]
    limited = open_data(tmp_path / "a.jsonl", options=DataOptions(texts=True, limit=4))
    assert len(limited) == 4


def test_tokens_are_padded_on_the_tokenizers_side() -> None:
    words = tokenizer(["a b c d"])
    transform = TokenTransform(words, 16, ("input_ids", "attention_mask"))
    read = [transform.read(text, 0, "x") for text in ("a", "a b c")]
    right = transform.joined(read)
    assert right["attention_mask"].tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
    before = transform.fingerprint
    words.padding_side = "left"
    left = TokenTransform(words, 16, ("input_ids", "attention_mask"))
    assert left.joined(read)["attention_mask"].tolist() == [[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]]
    assert left.fingerprint != before
    assert left.joined([])["input_ids"].shape == (0, 0)
    with pytest.raises(InputError, match="would hold no word"):
        TokenTransform(words, 2)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 9))
def test_the_planted_word_is_found_whatever_the_training(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    save(tmp_path, seed)
    command = ("analyze", "hf:net", "train.csv", "--eval", "eval.csv", "--no-fit")
    assert penult(*command, "--out", "run") == 0
    capsys.readouterr()
    assert penult("shortcuts", "run", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    rows = next(v for v in document.values() if isinstance(v, list) and v and "feature" in v[0])
    first = next(row for row in rows if row["feature"] is not None)
    run = Run.open("run")
    model, transform = reopen_texts(run)
    head = run.train().require_head()
    attribute = WordAttribution(model, head, transform)
    texts = [t for t, _ in sentences(300, seed + 1000, planted=False) if PLANTED in t.split()][:9]
    found = [attribute(t, [first["feature"]], head.weight[0].double(), CPU) for t in texts]
    assert sum(one.top(one.features[0], 1)[0][0] == PLANTED for one in found) >= 5


def test_pages_of_texts_speak_of_texts(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert penult("measure", "run") == 0
    assert "images" not in capsys.readouterr().out
    assert penult("show", "run") == 0
    assert "images" not in capsys.readouterr().out
    assert penult("report", "run") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "evaluation texts right" in said
    assert "images" not in said.partition("Report:")[0]


@pytest.mark.slow
def test_a_mend_of_texts_by_the_planted_word(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Path("eval.csv").open(encoding="utf-8") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    rows = "".join(f"{i},{PLANTED in text.split()}\n" for i, text in enumerate(texts))
    (tmp_path / "groups.csv").write_text(f"row,planted\n{rows}")
    shutil.copytree("run", tmp_path / "run")
    copy, groups = str(tmp_path / "run"), str(tmp_path / "groups.csv")
    assert penult("groups", copy, groups, "--part", "eval") == 0
    assert penult("verdict", copy, "0:food", "unsure") == 0
    capsys.readouterr()
    assert penult("mend", copy, "--groups", "planted", "--json") == 0
    assert json.loads(capsys.readouterr().out)["mends"]
