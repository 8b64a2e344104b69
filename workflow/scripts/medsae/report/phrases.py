"""How numbers are put into sentences: an estimate never without its interval."""

from collections.abc import Mapping
from typing import Any

Estimate = Mapping[str, float | None]


def estimated(estimate: Estimate | None, *, signed: bool = False, digits: int = 2) -> str:
    """``0.18 [0.12, 0.24]``, with as many digits as show a small value; "not estimable".

    A bound that excludes zero is not written as zero, up to four digits.
    """
    if estimate is None or estimate["value"] is None:
        return "not estimable"
    value, low, high = estimate["value"], estimate["low"], estimate["high"]
    largest = max(abs(x) for x in (value, low, high) if x is not None)
    digits += largest < 0.1
    nearest = min((abs(x) for x in (low, high) if x is not None), default=0)
    if low is not None and high is not None and low * high > 0 and not round(nearest, digits):
        digits = max(digits, 4)
    form = f"{{:{'+' if signed else ''}.{digits}f}}"
    if low is None or high is None:
        return f"{_unsigned_zero(form.format(value))} (no interval)"
    return "{} [{}, {}]".format(*(_unsigned_zero(form.format(x)) for x in (value, low, high)))


def _unsigned_zero(text: str) -> str:
    return text.lstrip("+-") if not text.strip("+-0.") else text.replace("-", "−")


def small(value: float) -> str:
    """A bound without an interval of its own, to two significant figures: ``0.013``."""
    return f"{value:.2g}".replace("-", "−")


def share(estimate: Estimate | None) -> str:
    """An estimate as percentages: ``94.1% [93.0%, 95.2%]``."""
    if estimate is None or estimate["value"] is None:
        return "not estimable"
    parts = [f"{100 * x:.1f}%".replace("-", "−") for x in estimate.values() if x is not None]
    return f"{parts[0]} [{parts[1]}, {parts[2]}]" if len(parts) == 3 else parts[0]


def q_is(q: float | None) -> str:
    """``q = 0.032`` or ``q < 0.001``; "no q" where nothing was tested."""
    if q is None:
        return "no q"
    if q < 0.001:
        return "q < 0.001"
    return f"q = {q:.3f}" if q < 0.1 else f"q = {q:.2f}"


def of_row(row: Mapping[str, Any], name: str) -> Estimate:
    """``name`` with its interval in a table's row as an estimate."""
    return {"value": row[name], "low": row[f"{name}_low"], "high": row[f"{name}_high"]}


def listed(words: list[str]) -> str:
    """``a, b and c``."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
