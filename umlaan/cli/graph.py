"""``umlaan graph``: the live lab drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from umlaan.cli.chosen import Chosen
from umlaan.cli.fault import Fault
from umlaan.cli.options import DataOption, InventoryOption, chosen
from umlaan.cli.show import hint
from umlaan.model.outputs import StatusOutput
from umlaan.plan.graph import dot
from umlaan.plan.mermaid import mermaid

KINDS = (".svg", ".png", ".mmd", ".dot")


def command(
    ctx: typer.Context,
    target: Annotated[
        Path, typer.Option("-o", "--output", help="File; its end says what: svg, png, mmd, dot.")
    ] = Path("lab.svg"),
    source: Annotated[
        Path | None,
        typer.Option("--from", help="Draw a report of umlaan status --json instead; - is stdin."),
    ] = None,
    inventory: InventoryOption = None,
    data: DataOption = None,
) -> int:
    """Draw the lab as it is now: hosts, bridges, taps, nodes, addresses, proxies.

    Colours are states. Up to four nodes every proxy pair is drawn, beyond that the pairs that are
    not joined; each box counts its own. mmd is Mermaid text and needs no Graphviz.

    Example: [bold]umlaan graph -o lab.png[/]
    """
    if target.suffix not in KINDS:
        raise Fault(f"{target}: its end must be one of {', '.join(KINDS)}", code=64)
    found = read(chosen(ctx, inventory, data), source)
    content = drawn(found, target.suffix)
    try:
        target.write_bytes(content)
    except OSError as error:
        raise Fault(f"{target}: {error.strerror}") from None
    hint(f"{target}: {len(found.nodes)} nodes, {found.verdict}")
    return 0


def read(choice: Chosen, source: Path | None) -> StatusOutput:
    """The report to draw: of the live lab, or a saved one."""
    if source is None:
        from umlaan.cli.session import open_session
        from umlaan.cli.status import PATIENT_S
        from umlaan.cli.status import read as look

        return look(open_session(choice), PATIENT_S)
    import sys

    try:
        text = sys.stdin.read() if str(source) == "-" else source.read_text()
        return StatusOutput.model_validate_json(text)
    except OSError as error:
        raise Fault(f"{source}: {error.strerror}") from None
    except ValueError as error:
        first = str(error).splitlines()[0]
        raise Fault(f"{source}: no report of umlaan status --json: {first}") from None


def drawn(found: StatusOutput, kind: str) -> bytes:
    """The picture's bytes. Fault, with the remedy, where Graphviz is missing or fails."""
    if kind == ".mmd":
        return mermaid(found).encode()
    if kind == ".dot":
        return dot(found).encode()
    import graphviz  # type: ignore[import-untyped]

    picture = graphviz.Source(dot(found), engine="neato")
    options = {"renderer": "cairo"} if kind == ".png" else {}
    try:
        drawing: bytes = picture.pipe(format=kind[1:], neato_no_op=2, quiet=True, **options)
    except graphviz.ExecutableNotFound:
        raise Fault(
            "Graphviz draws svg and png, and is not on this machine",
            "apt-get install --no-install-recommends graphviz; or -o lab.mmd, which needs nothing",
        ) from None
    except graphviz.CalledProcessError as error:
        said = (error.stderr or b"").decode(errors="replace").strip()
        raise Fault(f"Graphviz: {said or error}") from None
    return drawing
