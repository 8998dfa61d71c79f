"""The user that a lab's UMLs run as: made where it is missing, away with the lab, no one else's."""

from __future__ import annotations

from collections.abc import Iterator

from umlaan.plan.network import Change
from umlaan.plan.network_state import Found, Tap, Wanted

_MAKE = ("useradd", "--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent")
_SHELL = ("--shell", "/usr/sbin/nologin")


def changes(wanted: Wanted, found: Found) -> Iterator[Change]:
    """Make it, where a node of this lab host runs as it."""
    name = wanted.user
    if name in found.accounts or all(tap.user != name for tap in wanted.taps):
        return
    yield Change(
        f"user {name}: make, the lab's UMLs run as it",
        ((*_MAKE, *_SHELL, "--comment", wanted.user_mark, name),),
    )


def refusals(wanted: Wanted, found: Found) -> Iterator[str]:
    """Another's user under the lab's name is not taken over."""
    account = found.accounts.get(wanted.user)
    if account is None or all(tap.user != wanted.user for tap in wanted.taps):
        return
    if account.comment != wanted.user_mark or account.uid == 0:
        yield (
            f"user {wanted.user} is there already and was not made by umlaan for this lab (its "
            f"comment is not {wanted.user_mark!r}); rename or remove it, or set node.user"
        )


def tap_refusals(wanted: Wanted, tap: Tap, found: Found) -> Iterator[str]:
    """A user that the data names must be there: umlaan makes only the lab's own."""
    if tap.user in (wanted.user, "root"):
        return
    account = found.accounts.get(tap.user)
    if account is None:
        yield (
            f"node.user: there is no user {tap.user} for {tap.node} on the lab host; make it, or "
            "leave node.user out: then the lab has one of its own"
        )
    elif account.uid == 0:
        yield f"node.user: {tap.user} of {tap.node} is root by another name; say root"


def away(wanted: Wanted, found: Found) -> Iterator[Change]:
    """Remove the lab's own, and only that."""
    account = found.accounts.get(wanted.user)
    if account is not None and account.comment == wanted.user_mark:
        name = wanted.user
        # Where userdel leaves a user's own group, it goes as well.
        group = f"! getent group {name} >/dev/null || groupdel {name}"
        yield Change(f"user {name}: remove", (("userdel", name), ("sh", "-c", group)))
