"""The procedure "UML as a node", declared: the whole story on one screen.

    pyinfra inventory.py deploy.py

Validates the whole inventory first; then each stage changes only what differs, and says why.
A lab host builds, then makes the network; each @uml/nodeN gets root, tap and launch.
"""

from pyinfra.context import host

from tasks import (
    access,
    builds,
    dvs,
    guest,
    host_kernel,
    kernel,
    launch,
    network,
    preflight,
    root,
    toolchain,
    verify,
)
from umlaan.inventory import is_lab_host, is_uml
from umlaan.operations import carried, state_dir
from umlaan.run import begin

begin()

if is_lab_host(host):
    preflight.check()

# A lab host's, and those of a machine that only builds.
if not is_uml(host):
    toolchain.system_packages()
    toolchain.roots()

if is_lab_host(host):
    host_kernel.converge()
    # These need nothing of each other: the first two go on while the kernel is compiled.
    root.base()
    dvs.build()
    kernel.kernels()
    builds.awaited()
    host_kernel.modules()
    access.keys()
    # Before the network: another may have its address now.
    state_dir.strays(name="Nodes that left the inventory")
    network.bridge()
    dvs.up()

# Shared by all hosts: what stands above is done on every lab host before a node begins.
carried.ready(name="Lab hosts are ready")

if is_uml(host):
    root.install()
    network.tap()
    launch.revive()
    guest.identity()
    guest.dvs_tree()
    guest.modules()
    dvs.up()
    launch.anew()

# Shared as well: what a node's stages change of it is done before its machine is looked at.
carried.ready(name="Nodes are ready for their launch")

if is_lab_host(host):
    launch.machine_anew()

if is_uml(host):
    launch.launch()
    guest.dvs_up()
    verify.node()

if is_lab_host(host):
    verify.apart()

host_kernel.verdict()
