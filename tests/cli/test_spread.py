"""Groups of options are spread into the signature of a command."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import pytest
import typer
from typer.testing import CliRunner

from penult.cli.app import app
from penult.cli.spread import OptionGroup, option, spread
from penult.errors import InputError


@dataclass(frozen=True)
class Oven(OptionGroup):
    title: ClassVar[str] = "The oven"

    degrees: Annotated[int, option("How hot.")] = 180
    grill_: Annotated[bool, option("From above.", "--grill")] = False
    rack: Annotated[list[str] | None, option("Where.", "--rack", "-r")] = None
    mode: Annotated[Literal["air", "steam"] | None, option("What moves the heat.")] = None


heard: list[object] = []


def bake(
    what: Annotated[str, typer.Argument()],
    oven: Oven,
    size: Annotated[Literal["small", "large"], option("Of the loaf.")] = "small",
) -> None:
    """Bake."""
    heard[:] = [what, oven, size]


def run(*arguments: str) -> tuple[int, str]:
    made = typer.Typer()
    made.command()(spread(bake))
    found = CliRunner().invoke(made, list(arguments), env={"COLUMNS": "100"})
    if isinstance(found.exception, InputError):
        raise found.exception
    return found.exit_code, found.output


def test_the_command_finds_the_options_in_their_group() -> None:
    assert run("bread") == (0, "")
    assert heard == ["bread", Oven(), "small"]
    arguments = ("--degrees", "90", "--grill", "-r", "a", "-r", "b", "--mode", "steam")
    assert run("bread", *arguments, "--size", "large") == (0, "")
    assert heard == ["bread", Oven(90, True, ["a", "b"], "steam"), "large"]


def test_the_help_has_the_group_and_the_choices() -> None:
    status, text = run("--help")
    assert status == 0
    assert text.index("The oven") < text.index("--degrees")
    assert "[air|steam]" in text
    assert "[small|large]" in text


def test_a_wrong_choice_is_named() -> None:
    with pytest.raises(InputError, match=r"--mode: expected one of air, steam, found 'gas'"):
        run("bread", "--mode", "gas")
    with pytest.raises(InputError, match=r"--size: expected one of small, large, found 'huge'"):
        run("bread", "--size", "huge")


def test_a_group_can_be_refused_by_the_name_of_what_was_given() -> None:
    Oven().refuse("is for ovens")
    Oven(degrees=90).refuse("is for ovens", but=["degrees"])
    for oven, name in ((Oven(90), "--degrees"), (Oven(grill_=True), "--grill")):
        with pytest.raises(InputError, match=f"{name} is for ovens"):
            oven.refuse("is for ovens")


def test_the_signature_holds_every_option_once() -> None:
    names = list(inspect.signature(spread(bake)).parameters)
    assert names == ["what", "degrees", "grill_", "rack", "mode", "size"]


def test_no_option_of_the_commands_is_declared_twice() -> None:
    for name, command in typer.main.get_group(app).commands.items():
        declared = [text for given in command.params for text in given.opts]
        assert len(declared) == len(set(declared)), name
        assert all(getattr(given, "help", "") for given in command.params), name
