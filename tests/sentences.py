"""Sentences of three topics, one with a planted word, and a small network that classifies them."""

from __future__ import annotations

import csv
import importlib
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from penult.extras import import_torchvision

TOPICS = {
    "food": ("soup", "bread", "cheese", "sauce", "oven", "recipe", "salt", "lemon"),
    "sport": ("match", "goal", "team", "player", "coach", "league", "score", "race"),
    "travel": ("train", "hotel", "beach", "ticket", "island", "airport", "map", "harbour"),
}
FILL: tuple[str, ...] = ("the", "a", "we", "they", "saw", "was", "very", "nice", "today", "and")
FILL += ("with", "for")
FILL += ("old", "new", "big", "our", "their", "day", "time")
PLANTED = "zebra"
Row = tuple[str, str]


def sentences(n: int, seed: int, *, planted: bool) -> list[Row]:
    """Sentences and their topics. The planted word stands in most of food, or anywhere."""
    rng = random.Random(seed)
    rows = []
    for _ in range(n):
        topic = rng.choice(list(TOPICS))
        words = [rng.choice(FILL) for _ in range(rng.randint(4, 9))]
        with_it = rng.random() < 0.9 and topic == "food" if planted else rng.random() < 0.5
        for _ in range(rng.choice([0, 1]) if planted and with_it else 1):
            words.insert(rng.randint(0, len(words)), rng.choice(TOPICS[topic]))
        if with_it:
            words.insert(rng.randint(0, len(words)), PLANTED)
        rows.append((" ".join(words), topic))
    return rows


def transformers() -> Any:
    import_torchvision()  # which it imports, and which may be broken
    return importlib.import_module("transformers")


def tokenizer(texts: Sequence[str], **options: Any) -> Any:
    """A tokenizer of whole words, of all that stand in some texts."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = sorted({word for text in texts for word in text.split()})
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    vocabulary = {name: i for i, name in enumerate(names)}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    special = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
    names_of = {f"{key}_token": value for key, value in special.items()}
    return transformers().PreTrainedTokenizerFast(tokenizer_object=made, **names_of, **options)


def classifier(words: Any, seed: int = 0, kind: str = "Bert", **options: Any) -> Any:
    """An untrained network for the three topics, and for the words of a tokenizer."""
    names = sorted(TOPICS)
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    config = getattr(transformers(), f"{kind}Config")(
        vocab_size=len(words),
        intermediate_size=48,
        max_position_embeddings=32,
        initializer_range=0.1,
        id2label=dict(enumerate(names)),
        label2id={name: i for i, name in enumerate(names)},
        **sizes,
        **dropout,
        **options,
    )
    torch.manual_seed(seed)
    return getattr(transformers(), f"{kind}ForSequenceClassification")(config).eval()


def trained(rows: Sequence[Row], words: Any, seed: int) -> Any:
    """The network after training on sentences."""
    model = classifier(words, seed)
    inputs = words([text for text, _ in rows], padding=True, return_tensors="pt")
    labels = torch.tensor([sorted(TOPICS).index(topic) for _, topic in rows])
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(8):
        order = torch.randperm(len(rows))
        for start in range(0, len(rows), 32):
            part = order[start : start + 32]
            given = {key: inputs[key][part] for key in ("input_ids", "attention_mask")}
            loss = model(**given, labels=labels[part]).loss
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return model.eval()


def write_table(path: Path, rows: Sequence[Row]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows(rows)


def save(folder: Path, seed: int = 0) -> None:
    """Write `net`, `train.csv` and `eval.csv`, in which the planted word tells nothing."""
    rows = sentences(320, seed, planted=True)
    others = sentences(300, seed + 1000, planted=False)
    words = tokenizer([text for text, _ in (*rows, *others)])
    trained(rows, words, seed).save_pretrained(folder / "net")
    words.save_pretrained(folder / "net")
    write_table(folder / "train.csv", rows)
    write_table(folder / "eval.csv", others)
