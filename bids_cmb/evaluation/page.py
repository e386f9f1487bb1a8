"""One self-contained HTML page of an evaluation: no scripts, no requests, every text from outside escaped."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment
from markupsafe import Markup

from bids_cmb.evaluation import charts
from bids_cmb.evaluation.agreement import COUNT_CLASSES
from bids_cmb.evaluation.bootstrap import Figure
from bids_cmb.evaluation.detection import ONE_TO_ONE, TOUCH, VALDO
from bids_cmb.evaluation.evaluate import Part
from bids_cmb.report.page import format_number, make_environment, read_asset, write_page


@dataclass(frozen=True)
class Failure:
    """One error: ``missed`` or ``false``, its contrast, words on it, and axial pictures (data URI, mm wide, mm high)."""

    kind: str
    contrast: str
    caption: str
    pictures: tuple[tuple[str, float, float], ...]


def environment() -> Environment:
    """Return the template environment of the pages of evaluation and training."""
    made = make_environment("bids_cmb.evaluation")
    made.filters["figure"] = show
    made.globals["styles"] = Markup(read_asset("base.css"))  # noqa: S704 - our own file
    return made


def show(figure: Figure) -> str:
    """Write a figure with its interval: ``0.95 (0.91 to 0.98)``."""
    small = figure.group == "calibration"
    digits = 3 if small else 2 if abs(figure.value) < 100 else 0
    value = format_number(figure.value, digits)
    if not math.isfinite(figure.low):
        return value
    return f"{value} ({format_number(figure.low, digits)} to {format_number(figure.high, digits)})"


def write_evaluation_page(
    parts: Sequence[Part],
    path: Path,
    *,
    title: str,
    facts: Mapping[str, str],
    notes: Sequence[str] = (),
    gallery: Sequence[Failure] = (),
) -> Path:
    """Write the page.

    Parameters
    ----------
    parts
        From `bids_cmb.evaluation.evaluate.evaluate`.
    path
        The file.
    title
        What was evaluated; says *simulated* where the scans are.
    facts
        What goes on top: data, model, command.
    notes
        Sentences that a reader must know, e.g. scans that were left out.
    gallery
        Pictures of errors.
    """
    text = environment().get_template("evaluation.html.jinja").render(
        title=title,
        facts=facts,
        notes=list(notes),
        gallery=list(gallery),
        parts=[_view(part) for part in parts],
        class_names=[name for name, _, _ in COUNT_CLASSES],
        **charts.FRAME,
    ) + "\n"  # fmt: skip
    write_page(path, text)
    return path


def _view(part: Part) -> dict[str, object]:
    by_group: dict[str, list[Figure]] = {}
    for figure in part.figures:
        by_group.setdefault(figure.group, []).append(figure)
    conventions = [(name, by_group.pop(name)) for name in (ONE_TO_ONE, VALDO, TOUCH)]
    per_subject = [f for f in conventions[0][1] if f.unit == "subjects"]
    pooled = [(name, [f for f in figures if f.unit != "subjects"]) for name, figures in conventions]
    known = ("FROC", "count agreement", "case level", "calibration", "outlines")
    groups = {name: by_group.pop(name, []) for name in known}
    return {
        "name": part.name,
        "scans": len(part.matches),
        "subjects": part.subjects,
        "lesions": sum(len(m.counted) for m in part.matches),
        "ignored": sum(len(m.pair.references) - len(m.counted) for m in part.matches),
        "conventions": pooled,
        "headings": [f.name for f in pooled[0][1]],
        "per_subject": per_subject,
        "groups": groups,
        "strata": list(by_group.items()),
        "charts": [charts.froc_chart(part), charts.reliability_chart(part), charts.agreement_chart(part)],
        "bins": [b for b in part.reliability.bins if b.count],
        "classes": part.classes.astype(int).tolist(),
        "causes": part.causes,
    }
