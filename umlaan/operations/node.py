"""A UML node that runs as declared: started, restarted where it differs, stopped cleanly.

Procedure: "EN OTRA SESION, ARRANCAR UML".
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any

from pyinfra import logger
from pyinfra.api.command import QuoteString
from pyinfra.context import host as context_host
from pyinfra.context import state as context_state

from umlaan.agent.patience import CAP
from umlaan.facts.base import agent
from umlaan.facts.node import node_rows
from umlaan.model.node import Node
from umlaan.operations import pending, waves
from umlaan.operations.common import (
    LabCommand,
    carrier,
    executing,
    fail,
    forget_nodes,
    lab,
    why,
)
from umlaan.operations.operation import operation
from umlaan.plan import node as plan
from umlaan.plan.verdict import NodeState

if TYPE_CHECKING:
    from pyinfra.api.command import StringCommand

    Commands = Generator[StringCommand, None, None]

# What a node gets to answer again after the network's repair.
GRACE_S = 10


class NodeCommand(LabCommand):
    """Changes whether a node runs; like every command on its lab host it has @uml look again."""


class StartCommand(waves.First, NodeCommand):
    """Starts a node when its turn has come."""


class WaitCommand(waves.Last, NodeCommand):
    """Waits for a node that was started."""


def _command(kind: type[NodeCommand], verb: str, order: dict[str, Any]) -> NodeCommand:
    words = QuoteString(plan.as_json(order))
    return kind(agent(carrier()), verb, words, live=True)


def row_of(node: Node) -> dict[str, Any] | None:
    """What the agent says of one node now; None if the lab host did not answer.

    Of the current @uml host itself it is asked once until something changes.
    """
    if context_host.name == f"@uml/{node.name}":
        connector: Any = context_host.connector
        known: dict[str, Any] | None = connector.row()
        return known
    return node_rows(carrier(), lab(), (node,)).get(node.name)


def state_of(node: Node) -> NodeState:
    """One word for what a node is now."""
    return plan.life(node, row_of(node))


def stop_commands(
    node: Node, patience: float | None = None, *, forget: bool = False
) -> Iterator[StringCommand]:
    """For an operation that needs a node down: say why first, then yield from this.

    patience: seconds for a clean end before it is forced; the agent's own default without.
    forget: it stays down when the lab host boots.
    """
    order = {**plan.address_of(node), "deadline": patience}
    yield _command(NodeCommand, "node-stop", order | {"forget": True} if forget else order)


def start_commands(launch: plan.Launch) -> Iterator[StringCommand]:
    """Start a node and wait until its sshd answers."""
    yield _command(StartCommand, "node-start", launch.order())
    yield _command(WaitCommand, "node-wait", launch.order())


@operation()
def running(node: Node) -> Commands:
    """
    Have a node up as declared: command line, kernel, root, DC; leave one alone that is.

    A node that is up otherwise is stopped cleanly and started; one that is up but does not answer
    is given its time to boot, and is started anew after that.

    + node: the node

    **Example:**

    .. code:: python

        node.running(name="Launch node1", node=lab().node("node1"))
    """
    if node.settings.dcid is not None and pending.node_waits(node.host, f"{node.name}: its launch"):
        return
    row = row_of(node)
    try:
        launch = plan.wanted_launch(lab(), node, row)
    except plan.LaunchFault as fault:
        yield from fail(str(fault))
        return
    if unconfined := plan.notice(launch):
        logger.warning(unconfined)
    if row is None:
        if not executing():
            why(f"{node.name}: start")
            yield from start_commands(launch)
        return
    change = plan.change_of(launch, row)
    if change.action == "none" and plan.silent(node, row):
        change = _awaited(launch, row)
    if change.action == "none":
        if plan.unnoted(launch, row):
            why(f"{node.name}: note how it is started when the lab host boots")
            words = QuoteString(plan.as_json(launch.order()))
            yield LabCommand(agent(carrier()), "at-boot", "note", words)
        return
    for reason in change.reasons:
        why(reason)
    if executing() and (missing := _missing(launch, row)):
        yield from fail(missing)
        return
    if change.action == "restart":
        yield from stop_commands(node, GRACE_S if plan.silent(node, row) else None)
    yield from start_commands(launch)


@operation()
def answering(node: Node) -> Commands:
    """
    Stop a node that is up but does not answer, so that its root can be reached again.

    For after the network's repair and before anything looks inside the node. One that boots gets
    the rest of its time; ``running`` starts a stopped one later in the run.

    + node: the node
    """
    row = row_of(node)
    if row is None or not plan.silent(node, row):
        return
    stamp = row["kernel"] or {"sha256": None}
    launch = plan.Launch(node, row["record"]["argv"], stamp["sha256"], None)
    change = _awaited(launch, row)
    if change.action == "restart":
        for reason in change.reasons:
            why(reason)
        yield from stop_commands(node, GRACE_S)


def unknown(node: Node, row: dict[str, Any]) -> bool:
    """True, and said, where a plan cannot know what is inside a node: it is up but silent."""
    if executing() or not plan.silent(node, row):
        return False
    why(f"{node.name}: what is inside is unknown until it answers")
    return True


def _missing(launch: plan.Launch, row: dict[str, Any]) -> str | None:
    """What an earlier stage should have made and has not."""
    node = launch.node
    if row["kernel"] is None:
        return f"{node.name}: no kernel in {node.kernel_dir}; the kernel stage makes it"
    if not row["root_exists"]:
        return f"{node.name}: no root at {node.root_path}"
    return None


def _awaited(launch: plan.Launch, row: dict[str, Any]) -> plan.Change:
    """A node that is up but silent: wait as long as it may still boot; a change if in vain."""
    node = launch.node
    left = node.settings.boot_timeout - row["uptime"]
    reason = (
        f"{node.name}: restart, it is up for {row['uptime']:.0f} s and ssh on {node.address} "
        "does not answer"
    )
    if not executing():
        # The network's repair, or its boot, may still cure it: the run itself looks again.
        return plan.Change() if left > 0 else plan.Change("restart", [reason])
    # One that seems to boot is up for many times its patience at most.
    cap = max(GRACE_S, CAP * node.settings.boot_timeout - row["uptime"])
    order = plan.as_json({**launch.order(), "deadline": max(left, GRACE_S), "cap": cap})
    wait = NodeCommand(agent(carrier()), "node-wait", QuoteString(order))
    answered, _ = carrier().run_shell_command(wait, print_output=True)
    forget_nodes(context_state)
    if answered:
        return plan.Change()
    fresh = row_of(node) or row
    if not fresh["running"]:
        return plan.change_of(launch, fresh)
    return plan.Change("restart", [reason])


@operation()
def stopped(node: Node) -> Commands:
    """
    Have a node down, cleanly if it can be: Ctrl-Alt-Del, then halt, SIGTERM, SIGKILL.

    It stays down when the lab host boots.

    + node: the node
    """
    row = row_of(node)
    noted = row is not None and row.get("noted") is not None
    if row is None or not (row["running"] or row["leftovers"] or row["shared"] or noted):
        return
    if row["running"]:
        why(f"{node.name}: stop, it is up (pid {row['pid']})")
    elif noted and not (row["leftovers"] or row["shared"]):
        why(f"{node.name}: leave it down when the lab host boots")
    elif not row["leftovers"]:
        why(f"{node.name}: end the ssh connection to it, it is down")
    else:
        count = len(row["leftovers"])
        why(f"{node.name}: end {count} processes that its last run left behind")
    yield from stop_commands(node, forget=True)
