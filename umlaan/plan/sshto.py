"""The OpenSSH command line that enters a lab host as pyinfra's ssh connector would."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def ssh_to(name: str, data: Mapping[str, Any], *, terminal: bool = False) -> list[str]:
    """The words up to the command, from the host's own ssh_… data. terminal asks for one there."""
    words = ["ssh"]
    if terminal:
        words.append("-t")
    if file := data.get("ssh_config_file"):
        words += ["-F", str(file)]
    if port := data.get("ssh_port"):
        words += ["-p", str(port)]
    if key := data.get("ssh_key"):
        words += ["-i", str(key)]
    if known := data.get("ssh_known_hosts_file"):
        words += ["-o", f"UserKnownHostsFile={known}"]
    if strict := data.get("ssh_strict_host_key_checking"):
        words += ["-o", f"StrictHostKeyChecking={strict}"]
    if data.get("ssh_forward_agent"):
        words.append("-A")
    # Not "Connection to … closed." after every command.
    words += ["-o", "LogLevel=ERROR"]
    target = str(data.get("ssh_hostname") or name.removeprefix("@ssh/"))
    user = data.get("ssh_user")
    place = f"{user}@{target}" if user else target
    # A name that begins with - is none of its options.
    return [*words, "--", place] if place.startswith("-") else [*words, place]
