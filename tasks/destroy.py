"""Removes what umlaan made, and only that: pyinfra inventory.py tasks/destroy.py

Guests are stopped cleanly first. The user's partitions, sources and the built caches stay.
"""

from pyinfra.context import host

from tasks import dvs, host_kernel, launch, network
from umlaan.inventory import is_lab_host, is_uml
from umlaan.operations import carried, standing, state_dir
from umlaan.run import begin

begin(asked="absent")

if is_uml(host):
    launch.stop()

# Shared by all hosts: every node is down before its lab host takes anything away.
carried.ready(name="Nodes are down")

if is_lab_host(host):
    state_dir.strays(name="Nodes that left the inventory")
    dvs.down()
    network.away()
    host_kernel.away()
    state_dir.removed(name="State folder")
    standing.noted(name="What is left")
