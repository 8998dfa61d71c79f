"""The command itself: its verbs by name, each loaded when it is asked for; how a fault is told.

Exit codes: 0 done, 1 an error, 2 drifted (status, plan), 64 a command line that makes no sense,
130 Ctrl-C; exec and ssh pass on those of the command.
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from importlib.util import find_spec
from typing import Any

import typer
from typer.core import TyperGroup

from umlaan.cli.chosen import Chosen
from umlaan.cli.fault import Fault
from umlaan.cli.options import DataOption, InventoryOption

USAGE = 64
# In the order of --help. A verb is umlaan/cli/VERB.py with one function `command`.
VERBS = (
    "status",
    "plan",
    "up",
    "down",
    "destroy",
    "exec",
    "ssh",
    "console",
    "logs",
    "mconsole",
    "graph",
    "explain",
    "doctor",
    "snapshot",
    "restore",
    "menuconfig",
    "measure",
    "report",
    "schema",
    "completion",
)


class Verbs(TyperGroup):
    """Loads a verb's module only when it is used: status must not pay for graph."""

    def list_commands(self, ctx: Any) -> list[str]:
        """The verbs that are there."""
        return [verb for verb in VERBS if find_spec(f"umlaan.cli.{verb}")]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The verb as a command; None for an unknown one."""
        if cmd_name not in VERBS or not find_spec(f"umlaan.cli.{cmd_name}"):
            return None
        module = importlib.import_module(f"umlaan.cli.{cmd_name}")
        one = typer.Typer(add_completion=False, rich_markup_mode="rich")
        settings = getattr(module, "SETTINGS", {})
        one.command(name=cmd_name, help=_paragraphs(module.command), **settings)(module.command)
        return typer.main.get_command(one)


def _paragraphs(function: Any) -> str:
    """A docstring as help: each paragraph one line, so that it wraps where the terminal ends."""
    text = inspect.getdoc(function) or ""
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))


app = typer.Typer(
    name="umlaan",
    cls=Verbs,
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def umlaan(ctx: typer.Context, inventory: InventoryOption = None, data: DataOption = None) -> None:
    """UML as a Node: a lab of User Mode Linux nodes, declared in inventory.py and group_data.

    Run it where inventory.py stands. Each verb's --help has an example. First: umlaan doctor,
    umlaan plan, umlaan up, umlaan status.
    """
    ctx.obj = Chosen(inventory, tuple(data or ()))


def run(arguments: list[str] | None = None) -> None:
    """Run one command line and end the process."""
    sys.exit(code_of(arguments))


def code_of(arguments: list[str] | None = None) -> int:
    """Run one command line; its exit code. Every fault is told in a few lines, no traceback."""
    command = typer.main.get_command(app)
    if "_UMLAAN_COMPLETE" in os.environ:
        from typer import completion

        completion.completion_init()  # type: ignore[attr-defined]
    try:
        code = command.main(args=arguments, prog_name="umlaan", standalone_mode=False)
    except Fault as fault:
        _tell(str(fault))
        return fault.code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader has gone (umlaan logs | head): not an error of ours.
        sys.stdout = None
        return 0
    except Exception as error:
        # Typer's and Click's own faults: wrong words on the command line.
        if not hasattr(error, "format_message"):
            raise
        context = getattr(error, "ctx", None)
        if context is not None:
            print(context.get_usage(), file=sys.stderr)
        told = error.format_message()
        path = context.command_path if context is not None else "umlaan"
        _tell(f"{told}\nsee: {path} --help" if told else f"see: {path} --help")
        return USAGE
    return code if isinstance(code, int) else 0


def _tell(text: str) -> None:
    from umlaan.cli.show import errors

    first, *more = text.splitlines() or [""]
    errors().print(f"umlaan: {first}", style="red", markup=False, highlight=False, soft_wrap=True)
    for line in more:
        errors().print(f"  {line}", markup=False, highlight=False, soft_wrap=True)
