"""A wait ends for want of progress: with a clock of the test's own, so that no time passes."""

from __future__ import annotations

import os

from umlaan.agent.patience import CAP, LOOKS, Wait, cpu_seconds, summary


class FakeClock:
    """Time that passes only when somebody sleeps or a look takes long."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def until_it_gives_up(wait: Wait, clock: FakeClock, seen, look_s: float = 0.5) -> float:
    """Look again and again; how long it waited. seen: from seconds waited to what a look sees."""
    begun = clock.now
    while True:
        clock.now += look_s
        if not wait.goes_on(seen(clock.now - begun)):
            return clock.now - begun
        wait.pause()


def test_a_list_that_shrinks_is_waited_for_however_long_it_takes() -> None:
    clock = FakeClock()
    wait = Wait(25.0, clock=clock)
    left = set(range(12))
    while left:
        # One proxy is bound every 20 s: never 25 s without progress, 240 s in all.
        clock.now += 20.0
        left.pop()
        assert wait.goes_on(frozenset(left)), f"gave up with {len(left)} left"
    assert wait.seconds() == 240.0


def test_a_list_that_stands_is_given_up_after_the_patience() -> None:
    clock = FakeClock()
    wait = Wait(25.0, clock=clock)
    waited = until_it_gives_up(wait, clock, lambda s: "twelve" if s < 20 else "two")
    assert 45 <= waited < 50
    assert "the last 2" in wait.vain() and "without progress" in wait.vain()


def test_what_comes_and_goes_is_no_progress_the_second_time() -> None:
    clock = FakeClock()
    wait = Wait(10.0, clock=clock)
    waited = until_it_gives_up(wait, clock, lambda s: int(s) % 2)
    assert waited < 15


def test_who_pretends_progress_for_ever_is_given_up_at_the_cap() -> None:
    clock = FakeClock()
    wait = Wait(10.0, clock=clock)
    waited = until_it_gives_up(wait, clock, lambda s: s)
    assert CAP * 10 <= waited < CAP * 10 + 5
    assert "moved until the end" in wait.vain()


def test_a_wait_looks_a_few_times_before_it_gives_up_where_a_look_takes_long() -> None:
    clock = FakeClock()
    wait = Wait(10.0, clock=clock)
    looked = 0
    while True:
        # The machine is so busy that one look takes longer than the patience.
        clock.now += 11.0
        looked += 1
        if not wait.goes_on("nothing"):
            break
    assert looked == LOOKS + 1


def test_who_has_no_patience_looks_once() -> None:
    assert Wait(0.0, clock=FakeClock()).goes_on("held") is False


def test_a_look_that_takes_long_is_not_made_again_at_once() -> None:
    clock = FakeClock()
    wait = Wait(10.0, clock=clock)
    clock.now += 2.0
    before = clock.now
    wait.pause()
    assert clock.now - before >= 2.0


def test_a_line_for_the_user_comes_every_few_seconds() -> None:
    clock = FakeClock()
    wait = Wait(10.0, clock=clock)
    assert not wait.due()
    clock.now += 3.0
    assert wait.due() and not wait.due()


def test_a_summary_has_the_first_few_and_a_count() -> None:
    lines = [f"pair {n}" for n in range(16)]
    assert summary(lines) == ["pair 0", "pair 1", "pair 2", "and 13 more"]
    # "and 1 more" would take the place of the one.
    assert summary(lines[:4]) == lines[:4]
    assert summary([]) == []


def test_processor_time_of_a_process_moves_and_that_of_nobody_does_not() -> None:
    before = cpu_seconds(os.getpid())
    while cpu_seconds(os.getpid()) == before:
        pass
    assert cpu_seconds(2**22 + 1) == 0.0
