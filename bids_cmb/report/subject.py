"""The page of one subject: reads the output folder, draws, and writes ``sub-X.html``."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bids_cmb.report.checks import acquisition, draw_histogram
from bids_cmb.report.data import CONTRAST_NAMES, Failure, Finding, read_failures, read_scans
from bids_cmb.report.figures import (
    CROP_MM,
    PROJECTION_NAMES,
    LoadedScan,
    draw_companion,
    draw_finding,
    load_scan,
)
from bids_cmb.report.methods import describe
from bids_cmb.report.overview import MOSAIC_SLAB_MM, draw_checks, draw_mosaic, draw_projections
from bids_cmb.report.page import format_number, read_asset, render, write_page
from bids_cmb.report.pixels import Window, choose_window, load_canonical, to_millimetres
from bids_cmb.report.scan_view import ScanView, build_view, count_text
from bids_cmb.report.viewer import viewer_data
from bids_cmb.types import Contrast, Point, Volume
from bids_cmb.wording import counted

#: Microbleeds of two scans of a session that are nearer than this are the same (mm).
SAME_PLACE_MM = 4.0
REVIEW_FOLDER = "review/"


def write_subject_page(
    output_dir: Path,
    subject: str,
    *,
    bids_dir: Path | None,
    viewer: bool = False,
) -> Path:
    """Write ``OUTPUT_DIR/sub-<subject>.html`` from the subject's files.

    Parameters
    ----------
    output_dir
        The output folder; nothing but its files and the source images is read.
    subject
        Label, with or without ``sub-``.
    bids_dir
        Root of the raw dataset, where the sidecars' ``Sources`` lead; None: where the output folder's
        ``DatasetLinks`` say. A source that is not there costs the pictures, not the page.
    viewer
        Whether the page carries each scan, to scroll through: some megabytes more.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    OSError
        If the page cannot be written.
    """
    subject = subject.removeprefix("sub-")
    results = read_scans(output_dir, subject, bids_dir)
    failures = read_failures(output_dir, subject)
    views = [build_view(result, number, len(results)) for number, result in enumerate(results, start=1)]
    for session in dict.fromkeys(view.result.session for view in views):
        _draw_session([view for view in views if view.result.session == session], viewer=viewer)
    page = {
        "participant": f"sub-{subject}",
        "summary": _summary(views, failures),
        "scans": views,
        "failures": failures,
        "methods": describe(results),
        "review_folder": REVIEW_FOLDER,
        "data": _page_data(subject, views),
    }
    scripts = [read_asset(name) for name in ("display.js", "subject.js", *(["viewer.js"] if viewer else []))]
    text = render(
        "subject.html.jinja",
        [read_asset("base.css"), read_asset("subject.css")],
        scripts,
        page=page,
        side="radiological",
    )
    path = output_dir / f"sub-{subject}.html"
    write_page(path, text)
    return path


def _draw_session(views: list[ScanView], *, viewer: bool) -> None:
    """Draw all pictures of the scans of one session; each image is in memory only while it is drawn from."""
    for view in views:
        loaded = load_scan(view.result)
        if isinstance(loaded, str):
            view.no_pictures = loaded
            view.warnings.append(loaded)
            view.acquisition = acquisition(view.result, None)
            continue
        _draw_scan(view, loaded)
        if viewer:
            view.viewer = viewer_data(loaded, _places(view))
        for other in views:
            if other is not view:
                name = CONTRAST_NAMES[view.result.contrast]
                _draw_companions(other, loaded.volume, loaded.window, name, view.result.contrast)
    _link_same_places(views)
    for path in dict.fromkeys(path for view in views for path in view.result.companions):
        try:
            volume = load_canonical(path)
        except Exception as error:  # noqa: BLE001 - an extra picture is not worth the page
            views[0].warnings.append(f"{path.name} could not be read ({error}).")
            continue
        window = choose_window(volume.data, None, "gre")
        name = re.sub(r".*_([A-Za-z0-9]+)\.nii(\.gz)?$", r"\1", path.name)
        for view in views:
            _draw_companions(view, volume, window, name, None)


def _draw_scan(view: ScanView, loaded: LoadedScan) -> None:
    volume, result = loaded.volume, view.result
    view.warnings += loaded.problems
    view.acquisition = acquisition(result, loaded)

    def link(finding: Finding) -> str:
        return f"#{view.anchor}-cmb-{finding.index}"

    view.projections = draw_projections(loaded, link)
    view.mosaic = draw_mosaic(loaded, link)
    projection = PROJECTION_NAMES[result.contrast]
    slices = max(1, round(MOSAIC_SLAB_MM / volume.zooms[2]))
    view.mosaic_text = (
        f"{projection.capitalize()} over {slices * volume.zooms[2]:.2g} mm, from bottom to top."
        if slices > 1
        else "Every slice, from bottom to top."
    )
    view.crop_text = (
        f"Crops of {CROP_MM:.0f} mm at the image’s own resolution, all in one window ({loaded.window.text}). "
        "Ticks at the edges point to the place."
    )
    view.checks = draw_checks(loaded)
    view.histogram = draw_histogram(loaded)
    view.image = _image_data(loaded, view)
    source = np.asarray(view.image["source_affine"])
    for card in (*view.cards, *view.near_misses):
        card.pictures = draw_finding(loaded, card.finding, "candidates" if card.near else "microbleeds")
        if not any(math.isnan(value) for value in card.finding.position):
            index = np.linalg.solve(source[:, :3], np.array(card.finding.position) - source[:, 3])
            at = [name for name, _ in card.facts].index("World")
            card.facts.insert(at, ("Voxel", ", ".join(str(round(value)) for value in index)))


def _draw_companions(
    view: ScanView, volume: Volume, window: Window, name: str, contrast: Contrast | None
) -> None:
    for card in (*view.cards, *view.near_misses):
        picture = draw_companion(volume, window, name, card.finding.position, contrast)
        if picture is not None:
            card.companions.append(picture)
            if contrast == "qsm" and picture.reading is not None:
                card.notes.append(_susceptibility_note(picture.reading))


def _susceptibility_note(value: float) -> str:
    text = format_number(abs(value), 2)
    if value >= 0.05:
        return f"QSM here +{text} ppm: paramagnetic, as blood products are."
    if value <= -0.05:
        return f"QSM here \N{MINUS SIGN}{text} ppm: diamagnetic, as calcium is."
    return "QSM shows no marked susceptibility here."


def _link_same_places(views: list[ScanView]) -> None:
    """Note on each card where another scan of the session has a microbleed at the same place."""
    for view in views:
        for other in (o for o in views if o is not view):
            for card in (*view.cards, *view.near_misses):
                distances = [(_distance(card.finding.position, f.position), f) for f in other.result.findings]
                near = min((d for d in distances if d[0] <= SAME_PLACE_MM), default=None, key=lambda d: d[0])
                if near is not None:
                    card.notes.append(
                        f"Also found on {CONTRAST_NAMES[other.result.contrast]} as number {near[1].index}."
                    )


def _distance(one: Point, other: Point) -> float:
    distance = math.dist(one, other)
    return math.inf if math.isnan(distance) else distance


def _image_data(loaded: LoadedScan, view: ScanView) -> dict[str, Any]:
    """Return what the page's script needs to turn a click on the overview into a place, and back."""
    import nibabel as nib

    volume = loaded.volume
    slabs = []
    if view.mosaic:
        from bids_cmb.report.overview import slab_centres

        slabs = slab_centres(loaded)
    source: Any = nib.load(view.result.image or Path())
    source_affine = source.affine[:3] * to_millimetres(source.affine, view.result.sidecar.get("VoxelSize"))
    return {
        "affine": np.round(volume.affine[:3], 6).tolist(),
        "to_voxel": np.round(np.linalg.inv(volume.affine)[:3], 6).tolist(),
        "source_affine": np.round(source_affine, 6).tolist(),
        "shape": list(volume.data.shape),
        "zooms": [round(zoom, 6) for zoom in volume.zooms],
        "frame": [round(value, 4) for value in view.mosaic[0].frame] if view.mosaic else [],
        "slabs": slabs,
    }


def _summary(views: Sequence[ScanView], failures: Sequence[Failure]) -> str:
    if not views:
        return (
            "No scan of this participant could be processed."
            if failures
            else "No results for this participant."
        )
    sessions = len({view.result.session for view in views})
    scans = counted(len(views), "scan")
    across = f" in {sessions} sessions" if sessions > 1 else ""
    parts = [f"{view.short}: {count_text(len(view.result.findings))}" for view in views]
    return f"{scans}{across}. " + ("; ".join(parts) + "." if len(views) <= 4 else "")


def _places(view: ScanView) -> list[tuple[int, list[float | None]]]:
    """Index and world position (mm) of every microbleed; None where it is not known."""
    return [
        (card.finding.index, [None if math.isnan(v) else v for v in card.finding.position])
        for card in view.cards
    ]


def _page_data(subject: str, views: Sequence[ScanView]) -> dict[str, Any]:
    """Return what the page's script works on: the rows that a review is made of."""
    scans = [
        {
            "key": view.key,
            "name": view.short,
            "session": f"ses-{view.result.session}" if view.result.session else "n/a",
            "source": view.result.source,
            "image": view.image,
            "findings": [
                {"id": card.key, "index": index, "position": place}
                for card, (index, place) in zip(view.cards, _places(view), strict=True)
            ],
        }
        for view in views
    ]
    key = hashlib.sha256("|".join(view.key for view in views).encode("ascii")).hexdigest()[:12]
    return {
        "participant": f"sub-{subject}",
        "file": f"sub-{subject}_review.tsv",
        "key": f"sub-{subject}:{key}",
        "scans": scans,
    }
