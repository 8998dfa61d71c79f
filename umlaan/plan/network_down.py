"""The lab's network away again: only what carries the lab's mark, and nothing that is in use."""

from __future__ import annotations

from umlaan.plan.network import Change, ip_words
from umlaan.plan.network_files import files_down, names_away
from umlaan.plan.network_state import Found, User, Wanted

# What the kernel itself puts into each new namespace, where it has these drivers.
_FALLBACK_KINDS = ("sit", "ipip", "gre", "gretap", "erspan", "ip6tnl", "ip6gre", "vti", "vti6")


def own_links(wanted: Wanted, found: Found) -> list[str]:
    """Links with the lab's mark, and what a killed run left half made; taps before bridges."""
    half = wanted.half_made_prefix
    links = [
        link
        for link in found.links.values()
        if link.name != "lo" and (link.alias == wanted.mark or link.name.startswith(half))
    ]
    return [
        link.name for link in sorted(links, key=lambda link: (link.kind == "bridge", link.name))
    ]


def in_use(wanted: Wanted, found: Found) -> list[str]:
    """Why the network cannot go yet: taps of ours that someone holds open."""
    lines = []
    for name in own_links(wanted, found):
        users = tuple(user for user in found.users if name in user.taps)
        if users:
            lines.append(f"tap {name} is held by {_who(users)}: stop it first")
    return lines


def _who(users: tuple[User, ...]) -> str:
    return ", ".join(str(user) for user in users[:3]) + (", …" if len(users) > 3 else "")


def namespaces_that_stay(wanted: Wanted, found: Found) -> list[str]:
    """Which namespaces of ours are left where they are, and why."""
    lines = [
        f"network namespace {name}, which the lab had before, stays: in use by {_who(users)}"
        for name, users in found.elsewhere.items()
        if users
    ]
    stays = _namespace_stays(wanted, found)
    return [*lines, stays] if stays else lines


def _namespace_stays(wanted: Wanted, found: Found) -> str | None:
    if not _own_namespace(wanted, found):
        return None
    own = own_links(wanted, found)
    others = [
        link.name
        for link in found.links.values()
        if link.name not in (*own, "lo") and link.kind not in _FALLBACK_KINDS
    ]
    if found.users:
        return f"network namespace {wanted.namespace} stays: in use by {_who(found.users)}"
    if others:
        names = ", ".join(others)
        return f"network namespace {wanted.namespace} stays: {names} in it is not umlaan's"
    return None


def _own_namespace(wanted: Wanted, found: Found) -> bool:
    lo = found.links.get("lo")
    return found.namespace == "here" and lo is not None and lo.alias == wanted.mark


def down_changes(wanted: Wanted, found: Found) -> list[Change]:
    """All that is this lab's, away; nothing where nothing is."""
    changes: list[Change] = []
    name = wanted.namespace
    if name and found.namespace == "broken":
        reason = f"network namespace {name}: remove, its name leads nowhere"
        changes.append(Change(reason, (("ip", "netns", "delete", name),)))
    elif name and _own_namespace(wanted, found) and _namespace_stays(wanted, found) is None:
        own = ", ".join(own_links(wanted, found))
        reason = f"network namespace {name}: remove" + (f", with {own}" if own else "")
        changes.append(Change(reason, (("ip", "netns", "delete", name),)))
    else:
        for link in own_links(wanted, found):
            command = ip_words(wanted, "link", "del", link)
            changes.append(Change(f"link {link}: remove", (command,)))
    changes += [
        Change(
            f"network namespace {name}: remove, the lab had it before",
            (("ip", "netns", "delete", name), *names_away(name)),
        )
        for name, users in found.elsewhere.items()
        if not users
    ]
    return [*changes, *files_down(wanted, found)]
