"""How commands share options, and what becomes of their errors."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import shlex
import sys
from typing import TYPE_CHECKING, Any, get_type_hints

import typer
from rich.console import Console
from typer.core import TyperGroup

from explorer.cli.failure import print_error
from explorer.errors import ExplorerError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["PROGRAM", "Commands", "shell_command", "spread"]

PROGRAM = "precision-explorer"
WRONG_INPUT = 2  # as typer's own for a wrong option
INTERRUPTED = 130  # 128 + SIGINT, what shells expect


class Commands(TyperGroup):
    """The commands: every error of the package ends in one clear paragraph and exit code 2."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Note the words of the command line, for the report's "command that reproduces it"."""
        ctx.obj = shlex.join([PROGRAM, *args])
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except ExplorerError as error:
            print_error(error, Console(stderr=True))
            raise typer.Exit(WRONG_INPUT) from None
        except KeyboardInterrupt:
            sys.stderr.write("Interrupted: what was being written is as it was before.\n")
            raise typer.Exit(INTERRUPTED) from None


def shell_command(ctx: typer.Context) -> str:
    """Return the shell command that was given, quoted so that it can be pasted."""
    return str(ctx.find_root().obj)


def spread(command: Callable[..., None]) -> Callable[..., None]:
    """Return the command with every parameter that is a dataclass replaced by the fields of that dataclass.

    Commands that share options thus share one description of them.
    """
    signature = inspect.signature(command, eval_str=True)
    groups: dict[str, Any] = {
        name: parameter.annotation
        for name, parameter in signature.parameters.items()
        if dataclasses.is_dataclass(parameter.annotation)
    }
    parameters: list[inspect.Parameter] = []
    for parameter in signature.parameters.values():
        kind = groups.get(parameter.name)
        if kind is None:
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
            continue
        hints = get_type_hints(kind, include_extras=True)
        parameters += [
            inspect.Parameter(
                item.name, inspect.Parameter.KEYWORD_ONLY, default=item.default, annotation=hints[item.name]
            )
            for item in dataclasses.fields(kind)
        ]

    @functools.wraps(command)
    def run(**given: Any) -> None:
        for name, kind in groups.items():
            given[name] = kind(**{item.name: given.pop(item.name) for item in dataclasses.fields(kind)})
        command(**given)

    del run.__wrapped__  # else its signature is looked at instead of the one set here
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run
