"""``python3 -m umlaan.agent VERB …``: each verb is a module of this package with main(argv)."""

from __future__ import annotations

import importlib
import os
import sys

from umlaan.agent import mark
from umlaan.agent.visible import shown

VERBS = {
    "node-state": "node",
    "node-start": "start",
    "node-stop": "stop",
    "node-wait": "wait",
    "node-sandbox": "sandbox_node",
    "live": "live",
    "snapshot": "snapshot",
    "mconsole": "mconsole",
    "connect": "reach",
    "console": "console",
    "outward": "outward",
    "root-run": "chroot",
    "at-boot": "atboot",
    "run": "run",
    "hash": "index",
    "lock": "lock",
    "mark": "mark",
    "network": "network",
    "probe": "preflight",
    "dvs": "dvs",
    "dvsup": "dvsup",
    "supervise": "supervise",
    "keys": "keys",
    "verify": "verify",
    "spec": "spec",
    "buildroot": "buildroot",
    "kernel-state": "kernel_state",
    "kernel-build": "kernel_build",
    "menuconfig": "menuconfig",
    "remove": "remove",
    "bring": "bring",
    "host-kernel": "hostkernel",
    "boot": "boot",
    "boot-away": "bootaway",
    "module": "module",
    "root": "root",
}


UMASK = 0o022
# Debian's su and some ssh servers leave these out even for root; e2fsck and losetup are in them.
SBIN = ("/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin")


def with_sbin(path: str) -> str:
    """A search path that has the system's own folders, the given ones first."""
    given = [folder for folder in path.split(":") if folder]
    return ":".join([*given, *(folder for folder in SBIN if folder not in given)])


def main(argv: list[str]) -> int:
    """Exit code of the verb; 64 for an unknown one."""
    if not argv or argv[0] not in VERBS:
        print(f"umlaan agent: verbs are {', '.join(sorted(VERBS))}", file=sys.stderr)
        return 64
    # UTF-8 whatever the lab host's locale is; what is quoted of a guest or a log is only shown.
    sys.stdout, sys.stderr = shown(sys.stdout), shown(sys.stderr)
    # It was for this program: a user's own build may import what stands beside its script.
    os.environ.pop("PYTHONSAFEPATH", None)
    os.environ["PATH"] = with_sbin(os.environ.get("PATH", ""))
    # What root makes here is never writable for others, and readable where it is to be.
    os.umask(UMASK)
    if text := mark.refusal(argv, mark.named(os.environ)):
        # The lab's lock is answered on standard output, everything else that fails on the other.
        print(text, file=sys.stdout if argv[0] == "lock" else sys.stderr, flush=True)
        return mark.REFUSED
    module = importlib.import_module(f"umlaan.agent.{VERBS[argv[0]]}")
    return int(module.main(argv[1:]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
