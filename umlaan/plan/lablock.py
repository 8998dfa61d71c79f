"""One run at a time on a lab host: how the lab's lock is asked for, and what its answer means."""

from __future__ import annotations

from umlaan.agent import atboot


def words(lab: str, holder: str) -> list[str]:
    """The agent's verb that holds the lab's lock until its standard input ends.

    While the lab host is starting, it waits for what the lab's unit starts.
    """
    return ["lock", "--path", atboot.lock_path(lab), "--lab", lab, "--holder", holder]


def refusal(host: str, answer: str) -> str | None:
    """Why the lock is not held, for its user; None where it is."""
    if answer == "locked":
        return None
    if answer.startswith("state_dir: "):
        return f"{host}: {answer}"
    if answer.startswith("no lock:"):
        return f"{host}: {answer.removeprefix('no lock: ')}; umlaan works as root there"
    return f"another run is at work on {host}: {answer or 'no answer'}"
