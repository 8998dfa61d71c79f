"""How a guest is entered from its lab host: one multiplexed ssh through the lab's namespace."""

from __future__ import annotations

import re

from umlaan.model.node import Node

# Needs the world, which neither a stopped root nor a guest without a gateway has.
_FETCHES = re.compile(
    r"\b(apt|apt-get|aptitude)\b.*\b(update|install|\w*upgrade|download|build-dep)\b"
)


def fetches(command: str) -> bool:
    """Whether a command gets packages: for as long as it runs it is lent a way out."""
    return bool(_FETCHES.search(command))


def mirrors(node: Node) -> list[str]:
    """The package mirrors that the data names for a node, beside its lab host's own."""
    made = node.root.made
    return [*node.network.mirrors, *([made.mirror] if made and made.mirror else [])]


def root_run_words(node: Node, command: str, *, read_only: bool = False) -> list[str]:
    """The agent's verb that runs a shell's line in a stopped node's root."""
    words = ["root-run", "--root", node.root_path, "--dir", node.dir]
    if read_only:
        words.append("--read-only")
    elif fetches(command):
        words.append("--network")
        words += [word for url in mirrors(node) for word in ("--mirror", url)]
    return [*words, "--", "sh", "-c", command]


def in_namespace(node: Node) -> list[str]:
    """The words before a command that is to run inside the lab's network."""
    namespace = node.network.namespace
    return ["ip", "netns", "exec", namespace] if namespace else []


def connect_timeout(node: Node) -> int:
    """Seconds until a guest's sshd must greet: 5, more for one that is given long to boot."""
    return max(5, min(180, node.settings.boot_timeout // 18))


def ssh_options(node: Node) -> list[str]:
    """Options for ssh and scp: the lab's key, the known host key, one connection for all."""
    folder = f"{node.state_dir}/ssh"
    options = {
        "IdentitiesOnly": "yes",
        "UserKnownHostsFile": f"{folder}/known_hosts",
        "StrictHostKeyChecking": "yes",
        "BatchMode": "yes",
        "LogLevel": "ERROR",
        "ConnectTimeout": str(connect_timeout(node)),
        # A guest that died must not hold a command for ever.
        "ServerAliveInterval": str(max(5, connect_timeout(node) // 3)),
        "ServerAliveCountMax": "3",
        "ControlMaster": "auto",
        # Short: a unix socket's path has at most 107 bytes.
        "ControlPath": f"{node.dir}/ssh",
        # A new connection costs the guest half a second; stop and destroy end this one.
        "ControlPersist": "600",
    }
    words = ["-F", "none", "-i", f"{folder}/id_ed25519"]
    for key, value in options.items():
        words += ["-o", f"{key}={value}"]
    return words


# An agent whose command was killed notices it within 10 s; otherwise it ends at once.
_LEND = 'ssh-add -q "$0" && "$@"; code=$?; kill "$SSH_AGENT_PID"; exit $code'


def lending_words(node: Node) -> list[str]:
    """Like ssh_words, the lab's key lent to the guest by an agent that ends with the command."""
    return [
        *("ssh-agent", "sh", "-c", _LEND),
        f"{node.state_dir}/ssh/id_ed25519",
        *in_namespace(node),
        # The shared connection was opened without an agent, so this command has one of its own.
        *("ssh", "-A", "-o", "ControlMaster=no", "-o", "ControlPath=none"),
        *ssh_options(node),
        f"root@{node.address}",
    ]


def ssh_words(node: Node) -> list[str]:
    """The whole command up to what is to run in the guest."""
    return [
        *in_namespace(node),
        "ssh",
        *ssh_options(node),
        f"root@{node.address}",
    ]
