"""What makes a root nodeN: its identity, and the DVS tree inside; through the root or the guest.

Procedure: "Se instala el directorio dvs en ese filesystem", "Comprobar configuracion de red".
"""

from __future__ import annotations

import io
import json
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from pyinfra import logger
from pyinfra.api.command import FileUploadCommand, StringCommand
from pyinfra.context import host as context_host

from umlaan.agent.kmodules import PACKED
from umlaan.connector import WORK_S
from umlaan.facts.base import ask
from umlaan.facts.guest import LabSecrets, Space, TreeStamp, look_into
from umlaan.model.dvs import Dvs
from umlaan.model.node import Node
from umlaan.operations.common import agent_fact, compared, executing, fail, lab, why
from umlaan.operations.node import row_of, unknown
from umlaan.operations.operation import operation
from umlaan.plan import guest as plan
from umlaan.plan import guestmodules, userroot
from umlaan.plan import node as node_plan
from umlaan.plan import tree as tree_plan
from umlaan.plan.dvssides import sides
from umlaan.plan.look import SSHD, Look

if TYPE_CHECKING:
    from pyinfra.api.command import PyinfraCommand
    from pyinfra.api.host import Host
    from pyinfra.api.state import State

    Commands = Generator[PyinfraCommand, None, None]

_INSTALL_SSHD = (
    "apt-get update -qq && DEBIAN_FRONTEND=noninteractive "
    "apt-get install -y -qq --no-install-recommends openssh-server"
)


class FeedCommand(StringCommand):
    """A script in the node that reads a file of the lab host on its standard input."""

    def __init__(self, script: str, path: str) -> None:
        super().__init__(script)
        self.path = path

    def execute(self, state: State, host: Host, connector_arguments: Any) -> Any:
        """Through the root or the guest, whichever way the node is reached."""
        connector: Any = host.connector
        return connector.feed(self.get_raw_value(), self.path, WORK_S)


def _look(node: Node) -> Look | None:
    """One look for all operations of the node; at a plan, what is not there yet is empty."""
    dvs = lab().settings(f"@uml/{node.name}").dvs
    return look_into(context_host, dvs.dest if dvs else None)


SMALL = 64  # inodes for a few files, whatever they are


def _lack(node: Node, place: str, need: tuple[int, int], what: str) -> str | None:
    """Message where (bytes, inodes) do not fit at a place of the node's root; None while planning.

    A root that does not say is not refused.
    """
    free = ask(context_host, Space, place) if executing() else None
    if free is None:
        return None
    return tree_plan.lack_of_space(node.name, node.root_path, what, need, free)


@operation()
def identity(node: Node) -> Commands:
    """Hostname, hosts, address, fstab, keys and init of a node, as templates say.

    + node: the node of this @uml host

    A user's root gets marked blocks and files of umlaan's own, with a backup of each file first.
    """
    spec = json.dumps({"dir": f"{node.state_dir}/ssh", "node": node.name})
    secrets = agent_fact(LabSecrets, spec)
    row = row_of(node)
    if secrets is None or row is None:
        if executing():
            yield from fail(f"{node.name}: the lab's ssh keys are not there")
        else:
            why(f"{node.name}: write its identity")
            yield StringCommand("true")
        return
    if unknown(node, row):
        return
    try:
        transport = node_plan.transport_of(node, row["kernel"])
    except node_plan.LaunchFault as fault:
        yield from fail(str(fault))
        return
    found = _look(node)
    if found is None and executing():
        yield from fail(f"{node.name}: its files cannot be read")
        return
    found, side = found or Look(), None
    keys = plan.Secrets(**secrets)
    given = plan.values(lab(), node, node_plan.interface_of(transport), keys)
    if node.root.made is not None:
        # One that runs has them from the DVS's own stage, which starts anew what it changes.
        side = None if row["running"] else sides(lab()).get(node.number)
        wanted = [*plan.made_files(given, keys), *plan.service_files(side)]
    else:
        if refused := userroot.refusal(node, found) if found.files else None:
            yield from fail(refused)
            return
        if SSHD not in found.exists:
            yield from _sshd(node)
            # What the package brought decides what is written.
            found = (_look(node) if executing() else None) or found
        wanted = userroot.files(given, keys, found)
    changes = plan.edits(node, wanted, found)
    if not changes:
        return
    if found.files:
        for edit in changes:
            why(edit.reason)
    else:
        why(f"{node.name}: write its identity, {len(changes)} files")
    for note in userroot.notes(node, found) if node.root.made is None else ():
        logger.warning(f"{context_host.print_prefix}{note}")
    if lack := _lack(node, "/", (plan.size_of(changes), SMALL), "its identity"):
        yield from fail(lack)
        return
    yield FileUploadCommand(io.BytesIO(plan.as_tar(changes)), plan.PARCEL)
    yield StringCommand(plan.install_script(changes, side), _timeout=WORK_S)


def _sshd(node: Node) -> Commands:
    why(f"{node.name}: install openssh-server in its root")
    if lack := _lack(node, "/", (userroot.SSHD_BYTES, SMALL), "openssh-server"):
        yield from fail(lack)
        return
    yield StringCommand(_INSTALL_SSHD, _timeout=WORK_S)


@operation()
def dvs_tree(node: Node, dvs: Dvs) -> Commands:
    """The guest's variant unpacked at dvs.dest, only if a file of its manifest differs there.

    + node: the node of this @uml host
    + dvs: the tree

    Procedure: "cd /mnt/usr/src; tar xvzf /usr/src/dvs.tar.gz", "ATENCION con el tamaño".
    """
    folder = f"{node.state_dir}/dvs"
    stamp = agent_fact(TreeStamp, f"{folder}/ipc.stamp.json")
    if stamp is None:
        if executing():
            yield from fail(f"{node.name}: the DVS's guest variant is not built")
        else:
            why(f"{node.name} {dvs.dest}: unpack dvs.tar.gz, the tree is missing")
            yield StringCommand("true")
        return
    if not executing() and (row := row_of(node)) and unknown(node, row):
        return
    found = _look(node)
    if found is None and executing():
        yield from fail(f"{node.name}: {dvs.dest} cannot be read")
        return
    found = found or Look()
    manifest = stamp["manifest"]
    reason = tree_plan.reason(node.name, dvs.dest, manifest, found.tree, found.leftovers)
    if reason is None:
        compared().add(node.name)
        return
    why(reason)
    if not tree_plan.differing(manifest, found.tree):
        yield StringCommand(tree_plan.clean_script(dvs.dest), _timeout=WORK_S)
        return
    need = tree_plan.unpacked(stamp["bytes"], len(manifest))
    if lack := _lack(node, dvs.dest, need, dvs.dest):
        yield from fail(lack)
        return
    yield FeedCommand(tree_plan.unpack_script(dvs.dest), f"{folder}/dvs.tar.gz")


@operation()
def modules(node: Node) -> Commands:
    """The modules of the node's kernel in /lib/modules of its root, where it has any.

    + node: the node of this @uml host

    Those of a kernel that the node no longer has go, if umlaan put them there; a foreign folder of
    the release is kept beside.
    """
    row = row_of(node)
    # Without its kernel nobody knows; a node that is to be launched without one is told so there.
    if row is None or row["kernel"] is None or unknown(node, row):
        return
    kernel = row["kernel"]
    found = _look(node)
    if found is None and executing():
        yield from fail(f"{node.name}: {guestmodules.TOP} cannot be read")
        return
    change = guestmodules.change(node.name, kernel, (found or Look()).modules)
    for reason in change.reasons:
        why(reason)
    if change.install is None:
        if change.reasons:
            yield StringCommand(guestmodules.clean_script(change), _timeout=WORK_S)
        return
    packed = kernel["packed"]
    need = tree_plan.unpacked(packed["bytes"], packed["entries"])
    if lack := _lack(node, guestmodules.TOP, need, guestmodules.TOP):
        yield from fail(f"{lack}; kernel.modules: False leaves them out")
        return
    yield FeedCommand(guestmodules.install_script(change), f"{node.kernel_dir}/{PACKED}")
