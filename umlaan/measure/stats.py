"""Median and spread of repeats, and whether two sets of repeats really differ. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

# Below this many repeats on a side, nobody can say what its spread is.
ENOUGH = 3


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which that share (0 to 1) lies, between neighbours by straight line."""
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def iqr(values: Sequence[float]) -> float:
    """Interquartile range: how wide the middle half is, in the values' unit."""
    return percentile(values, 0.75) - percentile(values, 0.25)


def mad(values: Sequence[float]) -> float:
    """Median absolute deviation from the median, not scaled, in the values' unit."""
    middle = median(values)
    return median([abs(value - middle) for value in values])


def middle90(values: Sequence[float]) -> tuple[float, float]:
    """From where to where the middle 90 % of the values lie."""
    return percentile(values, 0.05), percentile(values, 0.95)


def outside_spread(ours: Sequence[float], theirs: Sequence[float]) -> bool | None:
    """True where the middle 90 % of the two do not overlap; None where repeats are too few.

    With five repeats a side, two equal systems look different by this about once in 100 times.
    """
    if min(len(ours), len(theirs)) < ENOUGH:
        return None
    (low, high), (other_low, other_high) = middle90(ours), middle90(theirs)
    return high < other_low or other_high < low
