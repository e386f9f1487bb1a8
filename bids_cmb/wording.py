"""Words that several rooms put together the same way."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """Write a number with its noun: ``1 scan``, ``2 scans``."""
    return f"{number} {noun}" + ("" if number == 1 else "s")
