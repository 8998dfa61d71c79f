"""The procedure "UML as a node", declared: the whole story on one screen.

    pyinfra inventory.py deploy.py

Validates the whole inventory first; then each stage changes only what differs, and says why.
A lab host builds, then makes the network; each @uml/nodeN gets root, tap and launch.
"""

from pyinfra.context import host

from tasks import access, dvs, guest, kernel, launch, network, preflight, root, toolchain, verify
from umlaan.inventory import is_uml
from umlaan.operations import carried
from umlaan.run import begin

begin()

if not is_uml(host):
    preflight.check()
    toolchain.system_packages()
    kernel.kernels()
    dvs.build()
    root.base()
    access.keys()
    network.bridge()
    dvs.up()

# Shared by all hosts: what stands above is done on every lab host before a node begins.
carried.ready(name="Lab hosts are ready")

if is_uml(host):
    root.install()
    network.tap()
    guest.identity()
    guest.dvs_tree()
    dvs.up()
    launch.launch()
    guest.dvs_up()
    verify.node()
