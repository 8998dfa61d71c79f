"""``umlaan logs``: consoles, builds and proxies, wherever their logs stand."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer

from umlaan.cli.fault import Fault
from umlaan.cli.options import DataOption, InventoryOption, chosen, node_names
from umlaan.cli.reach import line
from umlaan.cli.session import Session, open_session
from umlaan.cli.show import hint, output

# Services of a guest write here, one folder each: see templates/guest/service/.
GUEST_LOGS = "/var/log"


def command(
    ctx: typer.Context,
    what: Annotated[
        str | None, typer.Argument(metavar="[NODE|build|proxy|LOG]", autocompletion=node_names)
    ] = None,
    node: Annotated[
        str | None, typer.Argument(metavar="[NODE]", help="With proxy: the guest's own.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as it grows.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", help="How many of its last lines.")] = 50,
    inventory: InventoryOption = None,
    data: DataOption = None,
) -> int:
    """Show a log's end: a node's console, the last build, the proxies; without a name, list them.

    Control characters are shown as \\x1b and the like, wherever it goes; console has them raw.

    Example: [bold]umlaan logs node1 -f[/]
    """
    session = open_session(chosen(ctx, inventory, data))
    for host in session.lab.hosts:
        session.must_own(host)
    tail = f"tail -n {lines}{' -F' if follow else ''} --"
    if what is None:
        return _list(session)
    if what == "proxy" and node is not None:
        one = session.node(node)
        shell = (
            f"set -- {GUEST_LOGS}/dvs-*.log; "
            '[ -e "$1" ] || '
            f"{{ echo '{one.name} has no logs of proxies' >&2; exit 1; }}; exec {tail} \"$@\""
        )
        return session.show(one.host, line(session, one, shell), always=True)
    first = session.lab.hosts[0]
    if what == "proxy":
        return _show(session, first.name, f"{first.log_dir}/dvs-proxy-*.log", tail, "proxies")
    if what == "build":
        newest = f"$(ls -t {_builds(first.log_dir)} 2>/dev/null | head -n 1)"
        return _show(session, first.name, newest, tail, "builds")
    for host in session.lab.hosts:
        if what in _names(session, host.name, host.log_dir):
            path = shlex.quote(f"{host.log_dir}/{what}.log")
            return session.show(host.name, f"exec {tail} {path}", always=True)
    one = session.node(what)
    return _show(session, one.host, shlex.quote(f"{one.dir}/console.log"), tail, one.name)


def _builds(folder: str) -> str:
    names = ("kernel-*.log", "dvs-build.log", "base-image.log", "build-root*.log")
    return " ".join(f"{shlex.quote(folder)}/{name}" for name in names)


def _show(session: Session, host: str, files: str, tail: str, what: str) -> int:
    """tail on files that a shell's pattern names; a clear word where there are none."""
    shell = (
        f'set -- {files}; [ -e "$1" ] || {{ echo "umlaan: no log of {what} yet; '
        f'umlaan logs lists those that there are" >&2; exit 1; }}; exec {tail} "$@"'
    )
    return session.show(host, shell, always=True)


def _names(session: Session, host: str, folder: str) -> dict[str, tuple[str, int]]:
    """{log: (when it was written last, bytes)} of a lab host's log folder."""
    shell = f"cd {shlex.quote(folder)} 2>/dev/null && stat -c '%n %Y %s' -- *.log 2>/dev/null; true"
    done = session.run(host, shell, capture_output=True)
    if done.returncode:
        raise Fault(f"lab host {host} cannot be reached", done.stderr.strip())
    rows = [row.rsplit(" ", 2) for row in done.stdout.splitlines()]
    return {name.removesuffix(".log"): (when, int(size)) for name, when, size in rows}


def _list(session: Session) -> int:
    from datetime import datetime

    from umlaan.cli.show import plain, size, table

    rows = table("log", "of", "written", "size")
    for host in session.lab.hosts:
        found = sorted(_names(session, host.name, host.log_dir).items(), key=lambda r: r[1][0])
        for name, (when, count) in reversed(found):
            written = datetime.fromtimestamp(int(when)).strftime("%Y-%m-%d %H:%M")
            rows.add_row(plain(name), host.label, written, size(count))
    output().print(rows)
    nodes = ", ".join(node.name for node in session.lab.nodes)
    hint(f"consoles: {nodes}. Show one: umlaan logs NAME, follow it: umlaan logs NAME -f")
    return 0
