"""Groups of options: dataclasses whose fields become options of every command that takes one."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Iterable, Sequence
from copy import copy
from dataclasses import MISSING, fields
from functools import wraps
from typing import Annotated, Any, ClassVar, Literal, Union, get_args, get_origin, get_type_hints

import typer
from typer.models import OptionInfo

from penult.errors import InputError

WIDEST = 32  # characters, of choices that stand in the help where a type would


class OptionGroup:
    """Options that several commands share: a frozen dataclass with an option in each annotation.

    A command that has a parameter of such a type, and is decorated by `spread`, gets the fields as
    options of its own and finds them in one object.

    Attributes:
        title: heading of the group in `--help`.
    """

    title: ClassVar[str]

    def refuse(self, reason: str, *, but: Iterable[str] = ()) -> None:
        """Stop if an option of the group was given.

        Args:
            reason: the end of the sentence that starts with the option's name.
            but: names of fields that may be given.

        Raises:
            InputError: an option has another value than its default.
        """
        hints = get_type_hints(type(self), include_extras=True)
        for field in fields(self):  # type: ignore[arg-type]
            if getattr(self, field.name) != field.default and field.name not in but:
                raise InputError(f"{_option_name(field.name, hints[field.name])} {reason}")


def option(help: str, *names: str, choices: Sequence[str] = ()) -> Any:
    """An option of a command.

    Args:
        help: a sentence or two.
        names: as `--eval` or `-k`; made of the parameter's name where none is given.
        choices: what it takes, where the library checks it; shown in the help.
    """
    shown = _metavar(choices)
    if len(shown) > WIDEST:  # it would be broken in the middle of a word
        return typer.Option(*names, help=f"{help} One of {', '.join(choices)}.")
    return typer.Option(*names, help=help, metavar=shown if choices else None)


def spread(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose groups of options are spread into its signature, where typer sees them.

    A `Literal` is checked here, so that a wrong value ends in a line like all others.
    """
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, type[OptionGroup]] = {}
    parameters: list[inspect.Parameter] = []
    for given in inspect.signature(command).parameters.values():
        kind = hints[given.name]
        if isinstance(kind, type) and issubclass(kind, OptionGroup):
            groups[given.name] = kind
            parameters += _parameters(kind)
        else:
            named_only = given.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            parameters.append(named_only.replace(annotation=kind))
    choices = {given.name: _choices(given.annotation) for given in parameters}

    @wraps(command)
    def run(**values: Any) -> None:
        for name, known in choices.items():
            if known and values[name] is not None and values[name] not in known:
                shown = _option_name(name, hints_of[name])
                raise InputError(
                    f"{shown}: expected one of {', '.join(known)}, found {values[name]!r}"
                )
        for name, group in groups.items():
            values[name] = group(**{field: values.pop(field) for field in _names(group)})
        command(**values)

    hints_of = {given.name: given.annotation for given in parameters}
    shown = [given.replace(annotation=_as_text(given.annotation)) for given in parameters]
    run.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
    run.__annotations__ = {given.name: given.annotation for given in shown}
    return run


def _names(group: type[OptionGroup]) -> list[str]:
    return [field.name for field in fields(group)]  # type: ignore[arg-type]


def _parameters(group: type[OptionGroup]) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    found = []
    for field in fields(group):  # type: ignore[arg-type]
        kind, info = hints[field.name].__origin__, copy(_info(hints[field.name]))
        info.rich_help_panel = group.title
        default = inspect.Parameter.empty if field.default is MISSING else field.default
        found.append(
            inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=default,
                annotation=Annotated[kind, info],
            )
        )
    return found


def _info(hint: Any) -> Any:
    """What typer is told of a parameter; None where its annotation says nothing."""
    return hint.__metadata__[0] if get_origin(hint) is Annotated else None


def _choices(hint: Any) -> tuple[str, ...]:
    """What a `Literal`, optional or not, may be."""
    kind = hint.__origin__ if get_origin(hint) is Annotated else hint
    parts = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
    return next((get_args(part) for part in parts if get_origin(part) is Literal), ())


def _as_text(hint: Any) -> Any:
    """A `Literal` as typer of any version reads it: text, whose help names the choices."""
    known = _choices(hint)
    if not known:
        return hint
    info = copy(_info(hint))
    info.metavar = _metavar(known)
    optional = type(None) in get_args(hint.__origin__)
    return Annotated[str | None, info] if optional else Annotated[str, info]


def _metavar(choices: Iterable[str]) -> str:
    return f"[{'|'.join(choices)}]"


def _option_name(name: str, hint: Any) -> str:
    """How an option is given: `--class-names`."""
    info = _info(hint)
    declared: tuple[Any, ...] = ()
    if isinstance(info, OptionInfo):
        # Typer keeps the first name of an annotated option where a default would stand.
        declared = (info.default, *(info.param_decls or ()))
    long = [text for text in declared if isinstance(text, str) and text.startswith("-")]
    return long[0] if long else f"--{name.strip('_').replace('_', '-')}"
