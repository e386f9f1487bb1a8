"""What the pages show, read from the files of an output folder into plain objects.

Nothing here trusts the text it reads: names and sidecars go to the page as text and are escaped there, and a file
that is missing, broken or odd costs what it would have shown, never the page.
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from bids_cmb.files import is_inside, read_text
from bids_cmb.types import CONTRASTS, MARS_REGIONS, Contrast, Point

CONTRAST_NAMES: dict[Contrast, str] = {"swi": "SWI", "gre": "T2*-GRE", "qsm": "QSM"}
REGION_NAMES = {code: name for code, name, _ in MARS_REGIONS}
TABLE_ENDING = "_seg-CMB_dseg.tsv"
CANDIDATES_ENDING = "_seg-candidates_dseg.tsv"
_LABELS = {
    "microbleeds": "seg-CMB_dseg",
    "candidates": "seg-candidates_dseg",
    "brain": "desc-brain_mask",
    "mars": "seg-MARS_dseg",
}
LabelImage = Literal["microbleeds", "candidates", "brain", "mars"]


@dataclass(frozen=True)
class Finding:
    """One row of a microbleed or candidate table; numbers that the table lacks are nan."""

    index: int
    probability: float
    certainty: str
    region: str
    category: str
    hemisphere: str
    position: Point
    mni: Point
    volume: float
    diameter: float
    contrast: float
    elongation: float
    flags: tuple[str, ...]
    fate: str = "accepted"
    stage1_score: float = math.nan
    stage2_probability: float = math.nan

    @property
    def place(self) -> str:
        """Region and side in words."""
        name = REGION_NAMES.get(self.region, self.region or "region not known")
        side = {"L": "left ", "R": "right "}.get(self.hemisphere, "")
        return (side + name)[:1].upper() + (side + name)[1:]


@dataclass(frozen=True)
class ScanResult:
    """The results of one scan.

    Attributes
    ----------
    stem
        Path of its files up to and with ``space-<suffix>``.
    source
        BIDS URI of the image, or its file name where the sidecar does not say.
    image
        The image itself, or None if it cannot be found.
    contrast, subject, session, entities
        What it is; `entities` are those of the file name without ``sub``, ``ses`` and ``space``.
    findings, rejected
        The microbleeds in table order; candidates that did not pass, highest score first.
    sidecar
        Fields of ``seg-CMB_dseg.json`` (microbleeds) over those of the other sidecars of the scan.
    companions
        Other images named in ``Sources`` (a T1w image of the session).
    """

    stem: Path
    source: str
    image: Path | None
    contrast: Contrast
    subject: str
    session: str | None
    entities: Mapping[str, str]
    suffix: str
    findings: tuple[Finding, ...]
    rejected: tuple[Finding, ...]
    sidecar: Mapping[str, Any] = field(default_factory=dict)
    fates: Mapping[str, str] = field(default_factory=dict)
    companions: tuple[Path, ...] = ()

    @property
    def name(self) -> str:
        """Name of the scan, as its record has it: that of its files without ``space``, with the image's suffix."""
        return self.stem.name.replace(f"_space-{self.suffix}", "") + f"_{self.suffix}"

    @property
    def title(self) -> str:
        """What a reader calls the scan, with the entities that tell it from its neighbours."""
        extra = " ".join(f"{key}-{value}" for key, value in self.entities.items())
        return CONTRAST_NAMES[self.contrast] + (f" {extra}" if extra else "")

    def label_image(self, kind: LabelImage) -> Path | None:
        """Path of one of the scan's label images, or None if it is not there."""
        path = self.stem.with_name(f"{self.stem.name}_{_LABELS[kind]}.nii.gz")
        return path if path.exists() else None

    def count(self, **wanted: str) -> int:
        """Number of microbleeds whose attributes have these values, e.g. ``category="deep"``."""
        return sum(all(getattr(f, key) == value for key, value in wanted.items()) for f in self.findings)


@dataclass(frozen=True)
class Failure:
    """A scan that could not be processed: its name, the sentence, the log and its last lines."""

    title: str
    message: str
    log: str
    tail: str


def read_failures(output_dir: Path, subject: str) -> list[Failure]:
    """Read the records of a subject's failed scans (``logs/scans/*.json``), by name."""
    failures = []
    for name, record in _records(output_dir, subject):
        if record.get("status") == "failed":
            log = str(record.get("log", ""))
            failures.append(Failure(name, str(record.get("message", "")), log, _tail(output_dir, log)))
    return failures


def _records(output_dir: Path, subject: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the records of a subject's scans with their names, by name."""
    for path in sorted((output_dir / "logs" / "scans").glob(f"sub-{subject}_*.json")):
        record = read_json(path)
        if record.get("participant_id") == f"sub-{subject}" and record.get("name", path.stem) == path.stem:
            yield path.stem, record


def _tail(output_dir: Path, log: str, lines: int = 25) -> str:
    """Last lines of a log inside the output folder, or nothing."""
    relative = Path(log)
    if not log or relative.is_absolute() or ".." in relative.parts:
        return ""
    path = output_dir / relative
    if not path.is_file() or not is_inside(path, output_dir):
        return ""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


def _outdated(output_dir: Path, subject: str) -> set[str]:
    """Names of a subject's scans whose files are of an earlier run: they failed since, or others took their place.

    Not their sources: a scan may since come from a file of another kind, or from another dataset.
    """
    return {
        name
        for name, record in _records(output_dir, subject)
        if record.get("status") in ("failed", "superseded")
    }


def read_scans(output_dir: Path, subject: str, bids_dir: Path | None) -> list[ScanResult]:
    """Read all finished scans of a subject, by session, then contrast, then name.

    The sidecar of the microbleeds is written last: without it a scan is not finished.
    """
    folder = output_dir / f"sub-{subject}"
    links = read_json(output_dir / "dataset_description.json").get("DatasetLinks")
    roots: dict[str, Path] = {"": output_dir}
    for name, target in (links if isinstance(links, dict) else {}).items():
        if isinstance(target, str) and not re.match(r"[a-z]+://(?!/)", target):
            roots[str(name)] = output_dir / target.removeprefix("file://")
    if bids_dir is not None:
        roots["raw"] = bids_dir
    tables = sorted(folder.glob(f"**/anat/*{TABLE_ENDING}"))
    scans = [_read_scan(table, subject, roots) for table in tables if table.with_suffix(".json").is_file()]
    outdated = _outdated(output_dir, subject)
    scans = [scan for scan in scans if scan.name not in outdated]
    return sorted(scans, key=lambda s: (s.session or "", CONTRASTS.index(s.contrast), s.stem.name))


def _read_scan(table: Path, subject: str, roots: Mapping[str, Path]) -> ScanResult:
    stem = table.with_name(table.name.removesuffix(TABLE_ENDING))
    entities = dict(part.split("-", 1) for part in stem.name.split("_") if "-" in part)
    suffix = entities.pop("space", "")
    session = entities.pop("ses", None)
    entities.pop("sub", None)
    sidecar: dict[str, Any] = {}
    for ending in (
        "desc-brain_mask",
        "seg-MARS_dseg",
        "label-CMB_probseg",
        "seg-candidates_dseg",
        "seg-CMB_dseg",
    ):
        sidecar.update(read_json(stem.with_name(f"{stem.name}_{ending}.json")))
    named = sidecar.get("Sources")
    sources = [s for s in named if isinstance(s, str)] if isinstance(named, list) else []
    source = next(
        (s for s in sources if s.split("_")[-1].startswith(f"{suffix}.")), sources[0] if sources else ""
    )
    others = [find_source(s, roots) for s in sources if re.search(r"_(T1w|T2w|FLAIR)\.nii", s)]
    candidates = read_findings(stem.with_name(stem.name + CANDIDATES_ENDING))
    rejected = sorted((c for c in candidates if c.fate != "accepted"), key=_score, reverse=True)
    return ScanResult(
        stem=stem,
        source=source or f"{stem.name} (its sidecar names no source)",
        image=find_source(source, roots),
        contrast=_contrast(sidecar, suffix, entities),
        subject=subject,
        session=session,
        entities=entities,
        suffix=suffix,
        findings=tuple(read_findings(table)),
        rejected=tuple(rejected),
        sidecar=sidecar,
        fates=_levels(read_json(stem.with_name(f"{stem.name}_seg-candidates_dseg.json")), "fate"),
        companions=tuple(path for path in others if path is not None),
    )


def _score(finding: Finding) -> float:
    """How near a candidate came: the best of its scores that are known."""
    known = [s for s in (finding.stage2_probability, finding.probability) if not math.isnan(s)]
    return max(known, default=finding.stage1_score if not math.isnan(finding.stage1_score) else 0.0)


def _contrast(sidecar: Mapping[str, Any], suffix: str, entities: Mapping[str, str]) -> Contrast:
    """Take the contrast from the sidecar, else from the names, as the contract reads them."""
    named = str(sidecar.get("Contrast", "")).lower()
    for contrast in CONTRASTS:
        if named == contrast:
            return contrast
    if suffix == "Chimap":
        return "qsm"
    words = " ".join([suffix, entities.get("acq", ""), entities.get("rec", "")]).lower()
    return "swi" if "swi" in words else "gre"


def _levels(sidecar: Mapping[str, Any], column: str) -> dict[str, str]:
    """Read what the levels of a table column mean from the table's sidecar."""
    described = sidecar.get(column)
    levels = described.get("Levels") if isinstance(described, dict) else None
    if not isinstance(levels, dict):
        return {}
    texts = {str(k): v.get("Description", "") if isinstance(v, dict) else v for k, v in levels.items()}
    return {key: text for key, text in texts.items() if isinstance(text, str) and text}


def find_source(uri: str, roots: Mapping[str, Path]) -> Path | None:
    """Find the file that a BIDS URI (``bids:<dataset>:<path>``) names, or None.

    A path that would leave its dataset is not followed.
    """
    match = re.fullmatch(r"bids:([^:]*):(.+)", uri)
    if not match or match[1] not in roots:
        return None
    relative = Path(match[2])
    if relative.is_absolute() or ".." in relative.parts:
        return None
    path = roots[match[1]] / relative
    return path if path.is_file() else None


def read_findings(path: Path) -> list[Finding]:
    """Read a microbleed or candidate table in its own order; a missing table has no rows."""
    return [_finding(row, number) for number, row in enumerate(read_tsv(path), start=1)]


def _finding(row: Mapping[str, str], number: int) -> Finding:
    index = read_number(row.get("index"))
    flags = row.get("flags") or ""
    return Finding(
        index=number if math.isnan(index) else int(index),
        certainty=known(row.get("certainty")),
        region=known(row.get("mars_region")),
        category=known(row.get("mars_category")),
        hemisphere=known(row.get("hemisphere")),
        position=_point(row, "x", "y", "z"),
        mni=_point(row, "x_mni", "y_mni", "z_mni"),
        flags=tuple(part.strip() for part in re.split(r"[;,|]", flags) if known(part.strip())),
        fate=known(row.get("fate")) or "accepted",
        **{
            name: read_number(row.get(name))
            for name in (
                "probability",
                "volume",
                "diameter",
                "contrast",
                "elongation",
                "stage1_score",
                "stage2_probability",
            )
        },
    )


def _point(row: Mapping[str, str], *names: str) -> Point:
    x, y, z = (read_number(row.get(name)) for name in names)
    return (x, y, z)


def known(text: str | None) -> str:
    """Return a cell's text, empty where the table says ``n/a``."""
    return "" if text is None or text == "n/a" else text


def read_number(value: object) -> float:
    """Read a finite number from a cell or a sidecar field, else nan."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return math.nan
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return math.nan
    return number if math.isfinite(number) else math.nan


def read_tsv(path: Path) -> list[dict[str, str]]:
    """Read a table as dictionaries of text; a missing or unreadable one has no rows."""
    try:
        lines = read_text(path).split("\n")
        rows = list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
    except (OSError, UnicodeDecodeError, csv.Error):
        return []
    return [{str(key): value for key, value in row.items() if isinstance(value, str)} for row in rows]


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; a missing or unreadable one is empty."""
    try:
        content = json.loads(read_text(path))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
