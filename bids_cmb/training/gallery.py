"""Pictures of what went wrong on simulated scans: the clearest bleeds missed, the most probable false detections."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from bids_cmb.evaluation.matching import match_scan
from bids_cmb.evaluation.page import Failure
from bids_cmb.report.pixels import choose_window, cut, orient, png_uri, to_grey, to_voxel
from bids_cmb.training.held_out import HeldOutResult
from bids_cmb.training.simulate.corpus import load_scan
from bids_cmb.training.simulate.scan import SimulatedScan
from bids_cmb.types import CONTRASTS, Point, Volume

#: Pictures of each contrast and kind, and edge of a picture, mm.
_MOST, _EDGE_MM = 8, 30.0
#: Edge of a picture on the sheet and height of the words above a row, pixels.
_TILE, _HEADING = 96, 16


def failure_gallery(judged: Iterable[tuple[Path, HeldOutResult]]) -> list[Failure]:
    """Choose and draw the worst errors of every contrast.

    Parameters
    ----------
    judged
        Simulated scans and what `bids_cmb.training.held_out.judge_scans` found on them.

    Returns
    -------
    list of Failure
        At most eight missed (deepest first) and eight false ones (most probable first) of each contrast.
    """
    found: dict[tuple[str, str], list[tuple[float, Path, Point, str]]] = {}
    for path, result in judged:
        match, pair = match_scan(result.pair), result.pair
        scan = load_scan(path) if match.missed else None
        for i in match.missed:
            lesion = scan.lesions[i]  # type: ignore[union-attr] # loaded where there is one
            words = f"{lesion.diameter:.1f} mm, depth {lesion.depth:.2f}, {lesion.deposit.place}"
            found.setdefault((result.contrast, "missed"), []).append(
                (lesion.depth, path, lesion.position, words)
            )
        for i in match.false:
            candidate = pair.predictions[i]
            words = f"probability {candidate.score:.2f}, at {candidate.attributes['cause']}"
            found.setdefault((result.contrast, "false"), []).append(
                (candidate.score, path, candidate.position, words)
            )
    failures = []
    for contrast in CONTRASTS:
        for kind in ("missed", "false"):
            worst = sorted(found.get((contrast, kind), []), key=lambda error: -error[0])[:_MOST]
            failures += [
                Failure(kind, contrast, f"{path.stem}: {words}", _pictures(load_scan(path), position))
                for _, path, position, words in worst
            ]
    return failures


def failure_sheet(failures: Sequence[Failure]) -> Image.Image | None:
    """Put the middle picture of every failure on one sheet, a row for each contrast and kind; None without any."""
    rows: dict[str, list[Failure]] = {}
    for failure in failures:
        rows.setdefault(f"{failure.contrast}, {failure.kind} (simulated scans)", []).append(failure)
    if not rows:
        return None
    sheet = Image.new("L", (_MOST * _TILE, len(rows) * (_TILE + _HEADING)), 255)
    words = ImageDraw.Draw(sheet)
    for number, (name, row) in enumerate(rows.items()):
        top = number * (_TILE + _HEADING)
        words.text((2, top + 2), name, fill=0)
        for column, failure in enumerate(row):
            uri, width, height = failure.pictures[1]
            picture = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
            size = (round(_TILE * width / _EDGE_MM), round(_TILE * height / _EDGE_MM))
            tile = Image.new("L", (_TILE, _TILE), 255)  # a picture of whole voxels may be a little larger
            tile.paste(picture.resize(size))
            sheet.paste(tile, (column * _TILE, top + _HEADING))
    return sheet


def _pictures(scan: SimulatedScan, position: Point) -> tuple[tuple[str, float, float], ...]:
    """The slice of a position and those below and above it, in the radiological convention."""
    volume = Volume(scan.image, scan.affine)
    voxel = to_voxel(volume, position)
    x, y, z = (float(v) for v in np.linalg.norm(scan.affine[:3, :3], axis=0))
    window = choose_window(scan.image, scan.brain_mask, scan.protocol.contrast)
    pictures = []
    for step in (-1, 0, 1):
        piece, (_, _, width, height) = cut(
            scan.image, (x, y, z), "axial", voxel, _EDGE_MM, round(voxel[2]) + step
        )
        pictures.append((png_uri(to_grey(orient(piece), window)), width, height))
    return tuple(pictures)
