"""What makes a root nodeN: its identity, and the DVS tree inside; through the root or the guest.

Procedure: "Se instala el directorio dvs en ese filesystem", "Comprobar configuracion de red".
"""

from __future__ import annotations

import io
import json
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from pyinfra.api.command import FileUploadCommand, StringCommand
from pyinfra.api.operation import operation
from pyinfra.context import host as context_host

from umlaan.facts.guest import GuestFiles, LabSecrets, Space, Tree, TreeStamp
from umlaan.model.dvs import Dvs
from umlaan.model.node import Node
from umlaan.operations.common import agent_fact, compared, executing, fail, lab, why
from umlaan.operations.node import row_of, unknown
from umlaan.plan import guest as plan
from umlaan.plan import node as node_plan
from umlaan.plan import tree as tree_plan

if TYPE_CHECKING:
    from pyinfra.api.command import PyinfraCommand
    from pyinfra.api.host import Host
    from pyinfra.api.state import State

    Commands = Generator[PyinfraCommand, None, None]


class FeedCommand(StringCommand):
    """A script in the node that reads a file of the lab host on its standard input."""

    def __init__(self, script: str, path: str) -> None:
        super().__init__(script)
        self.path = path

    def execute(self, state: State, host: Host, connector_arguments: Any) -> Any:
        """Through the root or the guest, whichever way the node is reached."""
        connector: Any = host.connector
        return connector.feed(self.get_raw_value(), self.path)


@operation()
def identity(node: Node) -> Commands:
    """Hostname, hosts, address, fstab, keys and init of a node, as templates say.

    + node: the node of this @uml host

    A user's root gets marked blocks and files of umlaan's own, with a backup of each file first.
    """
    secrets = agent_fact(
        LabSecrets, json.dumps({"dir": f"{node.state_dir}/ssh", "node": node.name})
    )
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
    keys = plan.Secrets(**secrets)
    given = plan.values(lab(), node, "vec0" if transport == "vector" else "eth0", keys)
    found = context_host.get_fact(GuestFiles)
    if found is None:
        yield from fail(f"{node.name}: its files cannot be read")
        return
    if node.root.made is not None:
        wanted = plan.made_files(given, keys)
    else:
        if found.files and plan.SSHD not in found.exists and not node.root.install_sshd:
            yield from fail(
                f"{node.name}: {node.root_path} has no sshd, so umlaan could not enter the guest; "
                "root.install_sshd: True installs openssh-server there"
            )
            return
        if plan.SSHD not in found.exists:
            why(f"{node.name}: install openssh-server in its root")
            yield StringCommand(
                "apt-get update -qq && DEBIAN_FRONTEND=noninteractive "
                "apt-get install -y -qq --no-install-recommends openssh-server"
            )
        wanted = plan.user_files(given, keys, found.exists)
    changes = plan.edits(node, wanted, found)
    if not changes:
        return
    for edit in changes if found.files else changes[:1]:
        why(
            edit.reason if found.files else f"{node.name}: write its identity, {len(changes)} files"
        )
    yield FileUploadCommand(io.BytesIO(plan.as_tar(changes)), plan.PARCEL)
    yield StringCommand(plan.install_script(changes))


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
    found = context_host.get_fact(Tree, dvs.dest)
    reason = tree_plan.reason(node.name, dvs.dest, stamp["manifest"], found or {})
    if reason is None:
        compared().add(node.name)
        return
    why(reason)
    free = context_host.get_fact(Space, dvs.dest) if executing() else None
    if free is not None:
        need = (stamp["bytes"], len(stamp["manifest"]))
        lack = tree_plan.lack_of_space(node.name, dvs.dest, need, free)
        if lack:
            yield from fail(lack)
            return
    yield FeedCommand(tree_plan.unpack_script(dvs.dest), f"{folder}/dvs.tar.gz")
