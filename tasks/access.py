"""The lab's own ssh keys, so that node0 can enter its guests."""

from pyinfra.api.deploy import deploy

from umlaan.operations import access


@deploy("Access")
def keys() -> None:
    """A key pair for the lab and a host key for each node."""
    access.keys(name="Access: ssh keys")
