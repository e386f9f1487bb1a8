"""Coordinates of the charts of the page: plain numbers that the template draws as inline SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bids_cmb.evaluation.evaluate import Part
from bids_cmb.evaluation.froc import RATES

#: Drawing area of a chart: left, top, width, height; and the whole.
LEFT, TOP, WIDTH, HEIGHT = 44.0, 12.0, 380.0, 240.0
VIEW = (440.0, 296.0)
#: The same for the templates.
FRAME = {"left": LEFT, "top": TOP, "width": WIDTH, "height": HEIGHT, "view": VIEW}
#: The FROC's horizontal axis is logarithmic between these false detections per scan.
_FROC_LOW, _FROC_HIGH = 1 / 16, 16.0


@dataclass(frozen=True)
class Chart:
    """One chart: SVG paths, points and tick labels in drawing units."""

    title: str
    x_label: str
    y_label: str
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    band: str = ""
    line: str = ""
    other: str = ""
    diagonal: str = ""
    levels: tuple[tuple[float, str], ...] = ()
    points: tuple[tuple[float, float, float, str], ...] = ()
    bars: tuple[tuple[float, float, float], ...] = ()


def froc_chart(part: Part) -> Chart:
    """Draw the FROC curve with its band; steps, as it is read."""
    curve = part.froc
    points: list[tuple[float, float]] = [(_FROC_LOW, 0.0)]
    for rate, sensitivity in zip(curve.false_per_scan, curve.sensitivity, strict=True):
        x = min(max(float(rate), _FROC_LOW), _FROC_HIGH)
        points += [(x, points[-1][1]), (x, float(sensitivity))]
    points.append((_FROC_HIGH, points[-1][1]))
    known = [
        (float(r), float(a), float(b))
        for r, a, b in zip(curve.band_rates, curve.band_low, curve.band_high, strict=True)
        if math.isfinite(a) and math.isfinite(b)
    ]
    around = [(r, b) for r, _, b in known] + [(r, a) for r, a, _ in reversed(known)]
    ticks = tuple((_froc_x(r), _fraction(r)) for r in (1 / 16, *RATES, 16.0))
    drawn = curve.lesions > 0
    return Chart(
        "FROC",
        "false detections per scan",
        "sensitivity",
        ticks,
        _shares(),
        band=path([(_froc_x(r), _y(v)) for r, v in around], closed=True) if drawn else "",
        line=path([(_froc_x(r), _y(v)) for r, v in points]) if drawn else "",
    )


def reliability_chart(part: Part) -> Chart:
    """Draw the share that is right against the probability, with Wilson intervals."""
    filled = [b for b in part.reliability.bins if b.count]
    return Chart(
        "Reliability",
        "probability",
        "share that is a microbleed",
        tuple((LEFT + WIDTH * v / 5, f"{v / 5:g}") for v in range(6)),
        _shares(),
        diagonal=path([(LEFT, _y(0)), (LEFT + WIDTH, _y(1))]),
        line=path([(LEFT + WIDTH * b.mean, _y(b.share)) for b in filled]),
        points=tuple(
            (LEFT + WIDTH * b.mean, _y(b.share), 3.5, f"{b.low:.1f} to {b.high:.1f}: {b.count} candidates, {b.share:.2f} right")
            for b in filled
        ),
        bars=tuple((LEFT + WIDTH * b.mean, _y(b.share_low), _y(b.share_high)) for b in filled),
    )  # fmt: skip


def agreement_chart(part: Part) -> Chart:
    """Draw Bland and Altman's plot of the counts; the area of a dot grows with the number of scans on it."""
    places: dict[tuple[float, float], int] = {}
    for reference, found in part.counts.tolist():
        key = (reference + found) / 2, found - reference
        places[key] = places.get(key, 0) + 1
    right = max([x for x, _ in places] + [1.0])
    names = ("lower limit of agreement", "mean difference", "upper limit of agreement")
    lines = [part.figure("count agreement", name).value for name in names]
    top = max([abs(y) for _, y in places] + [abs(v) for v in lines if math.isfinite(v)] + [1.0]) * 1.08

    def y(value: float) -> float:
        return TOP + HEIGHT * (0.5 - 0.5 * value / top)

    step = _step(top)
    return Chart(
        "Counts",
        "mean of reference and detected count",
        "detected minus reference",
        tuple((LEFT + WIDTH * v / right, f"{v:g}") for v in _multiples(0, right)),
        tuple((y(k * step), f"{k * step:g}".replace("-", "\N{MINUS SIGN}")) for k in range(-int(top / step), int(top / step) + 1)),
        levels=tuple((y(v), f"{v:+.1f}".replace("-", "\N{MINUS SIGN}")) for v in lines if math.isfinite(v)),
        points=tuple(
            (LEFT + WIDTH * x / right, y(d), 2.5 + 1.2 * math.sqrt(n), f"mean {x:g}, difference {d:+g}: {n} scans")
            for (x, d), n in sorted(places.items())
        ),
    )  # fmt: skip


def _froc_x(rate: float) -> float:
    return LEFT + WIDTH * math.log(rate / _FROC_LOW) / math.log(_FROC_HIGH / _FROC_LOW)


def _y(share: float) -> float:
    return TOP + HEIGHT * (1.0 - share)


def _shares() -> tuple[tuple[float, str], ...]:
    return tuple((_y(v / 5), f"{v / 5:g}") for v in range(6))


def _fraction(rate: float) -> str:
    return f"{rate:g}" if rate >= 1 else f"1/{round(1 / rate)}"


def path(points: Sequence[tuple[float, float]], *, closed: bool = False) -> str:
    """Write points as an SVG path."""
    if not points:
        return ""
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points) + ("Z" if closed else "")


def _step(span: float) -> float:
    """Return a round distance between ticks, so that there are two to five on `span`."""
    power = 10.0 ** math.floor(math.log10(span))
    return next(power * f for f in (0.2, 0.5, 1.0, 2.0) if span / (power * f) <= 5)


def _multiples(low: float, high: float) -> list[float]:
    step = _step(high - low)
    return [low + step * k for k in range(int((high - low) / step) + 1)]
