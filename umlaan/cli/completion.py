"""``umlaan completion``: verbs, options and node names at the press of Tab."""

from __future__ import annotations

from typing import Annotated, Literal

import typer
from typer import completion

HOW = {
    "bash": "# umlaan completion bash > /etc/bash_completion.d/umlaan",
    "zsh": '# umlaan completion zsh > "${fpath[1]}/_umlaan"',
    "fish": "# umlaan completion fish > ~/.config/fish/completions/umlaan.fish",
}


def command(shell: Annotated[Literal["bash", "zsh", "fish"], typer.Argument()]) -> int:
    """Print the shell's completion script.

    Example: [bold]umlaan completion bash > /etc/bash_completion.d/umlaan[/]
    """
    script = completion.get_completion_script(  # type: ignore[attr-defined]
        prog_name="umlaan", complete_var="_UMLAAN_COMPLETE", shell=shell
    )
    # zsh reads its first line for the command's name, so the way to install it stands last.
    print(f"{script}\n\n{HOW[shell]}")
    return 0
