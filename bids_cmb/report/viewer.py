"""The scan itself inside the page, to scroll through (`--report-viewer`): windowed to 8 bits, cut to the head, compressed."""

from __future__ import annotations

import base64
import gzip
import json
from typing import Any

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from bids_cmb.report.figures import LoadedScan

#: What is kept around the brain, mm.
MARGIN_MM = 8.0


def viewer_data(loaded: LoadedScan, numbers: list[tuple[int, list[float | None]]]) -> dict[str, Any]:
    """Pack a scan for the page's viewer.

    Parameters
    ----------
    loaded
        The scan on its canonical (RAS+) grid.
    numbers
        Index and world position (mm) of each microbleed, to go to.

    Returns
    -------
    dict
        Shape, zooms and affine (3x4) of the cut-out, and the image and label voxels in C order as base64 of gzip.
    """
    volume = loaded.volume
    brain = loaded.brain if loaded.brain is not None and loaded.brain.any() else None
    box = _box(brain, volume.data.shape, volume.zooms)
    span = (loaded.window.high - loaded.window.low) or 1.0
    shown = np.clip((volume.data[box] - loaded.window.low) / span, 0, 1)
    shown = np.nan_to_num(shown)
    labels = loaded.labels.get("microbleeds")
    found = np.zeros(shown.shape, bool) if labels is None else labels[box] > 0
    affine = volume.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ [part.start for part in box]
    return {
        "shape": list(shown.shape),
        "zooms": [round(zoom, 6) for zoom in volume.zooms],
        "affine": np.round(affine[:3], 6).tolist(),
        "to_voxel": np.round(np.linalg.inv(affine)[:3], 6).tolist(),
        "numbers": numbers,
        "image": _packed(np.round(255 * shown).astype(np.uint8)),
        "labels": _packed(found.astype(np.uint8)),
    }


def as_script_text(data: dict[str, Any]) -> Markup:
    """Return data as JSON that cannot end the element that it stands in."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)  # noqa: S704 - no markup can be left in it


def _box(
    brain: npt.NDArray[np.bool_] | None, shape: tuple[int, ...], zooms: tuple[float, ...]
) -> tuple[slice, slice, slice]:
    if brain is None:
        x, y, z = (slice(0, n) for n in shape)
        return x, y, z
    parts = []
    for axis, (n, zoom) in enumerate(zip(shape, zooms, strict=True)):
        inside = np.flatnonzero(brain.any(axis=tuple(k for k in range(3) if k != axis)))
        margin = int(np.ceil(MARGIN_MM / zoom))
        parts.append(slice(max(0, int(inside[0]) - margin), min(n, int(inside[-1]) + margin + 1)))
    return parts[0], parts[1], parts[2]


def _packed(data: npt.NDArray[np.uint8]) -> str:
    # No time stamp: the same files give the same page.
    return base64.b64encode(gzip.compress(np.ascontiguousarray(data).tobytes(), 6, mtime=0)).decode("ascii")
