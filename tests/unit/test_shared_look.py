"""Who looks at a side at the same time as others does not look again; nobody gets an old view."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from umlaan.agent.sharedlook import shared


def test_many_who_ask_at_once_are_told_by_a_look_or_two(tmp_path: Path) -> None:
    looked: list[float] = []
    told: list[float] = []
    asked = threading.Barrier(12)

    def look() -> dict[str, float]:
        looked.append(time.monotonic())
        time.sleep(0.3)
        return {"at": looked[-1]}

    def ask() -> None:
        asked.wait()
        now = time.monotonic()
        told.append(shared(str(tmp_path), "node1", "tables", look, 60)["at"] - now)

    threads = [threading.Thread(target=ask) for _ in range(12)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len(told) == 12 and all(age >= 0 for age in told), "a view of before the question"
    assert len(looked) <= 6, len(looked)


def test_who_asks_later_gets_a_look_of_his_own_and_other_questions_other_answers(
    tmp_path: Path,
) -> None:
    answers = iter(range(9))

    def ask(question: str) -> int:
        found: int = shared(str(tmp_path), "node1", question, lambda: {"n": next(answers)}, 60)["n"]
        return found

    assert [ask("tables"), ask("tables"), ask("all")] == [0, 1, 2]
    assert all(path.stat().st_mode & 0o77 == 0 for path in tmp_path.iterdir())


def test_a_full_disk_or_a_holder_that_hangs_only_costs_the_sharing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    view = shared(str(tmp_path / "file" / "looks"), "node1", "tables", lambda: {"n": 1}, 60)
    assert view == {"n": 1}
