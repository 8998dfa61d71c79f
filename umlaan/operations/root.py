"""The nodes' roots: a base image made once, a copy a node; a user's partition only looked at.

Procedure: "Se monta la particion que va a ser utilizada por el UML como su root".
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Generator
from typing import TYPE_CHECKING

from pyinfra import logger
from pyinfra.api.command import QuoteString

from umlaan.facts.base import agent
from umlaan.facts.root import Roots
from umlaan.model.node import Node
from umlaan.operations.beside import BesideCommand
from umlaan.operations.common import agent_fact, carrier, fail, lab, lab_host, long_command, why
from umlaan.operations.node import NodeCommand, row_of
from umlaan.operations.operation import operation
from umlaan.plan import root as plan

if TYPE_CHECKING:
    from pyinfra.api.command import PyinfraCommand

    Commands = Generator[PyinfraCommand, None, None]


@operation()
def base() -> Commands:
    """The base images that nodes of this lab host still need, by mmdebstrap and mke2fs -d.

    A node whose root exists needs none. It goes on beside the next operations (``beside``), and
    fails, quoting the log, where a package is missing.
    """
    nodes = lab().nodes_on(carrier().name)
    spec = json.dumps(plan.spec(lab_host(), nodes), sort_keys=True)
    reasons = plan.base_reasons(agent_fact(Roots, spec)) if nodes else []
    if not reasons:
        return
    for reason in reasons:
        why(reason)
    command = f"{agent(carrier())} root base {shlex.quote(spec)}"
    step = "base image"
    yield BesideCommand(step, long_command(step, command, "base-image.log"))


@operation()
def installed(node: Node) -> Commands:
    """A node's root: made from the base image if it is umlaan's, else the user's, looked at only.

    + node: the node

    Fails where the user's device is missing, in use, write-protected or no Linux root; never
    formats one. Where its file system has noted errors, e2fsck repairs what is safe.
    """
    spec = json.dumps(plan.spec(lab_host(), (node,)), sort_keys=True)
    found = agent_fact(Roots, spec)
    if found is None:
        why(f"{node.name}: make its root")
        return
    row, life = found["nodes"][node.name], row_of(node)
    if life is not None and life["running"]:
        return
    # What this node's own last run left behind is no stranger: the next stage ends it.
    own = bool(life and life.get("leftovers"))
    refused = plan.refusal(node, row, None if own else (life or {}).get("root_user"))
    if refused:
        yield from fail(refused)
        return
    told = plan.notice(node, row)
    if told:
        logger.warning(told)
    if not own and (unclean := plan.check_reason(node, row)):
        why(unclean)
        yield NodeCommand(agent(carrier()), "root", "check", QuoteString(spec), node.name)
        return
    if row["kind"] != "missing":
        return
    why(f"{node.name}: make its root from the base image")
    yield NodeCommand(agent(carrier()), "root", "make", QuoteString(spec), node.name)
