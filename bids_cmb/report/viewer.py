"""The scan itself inside the page, to scroll through (`--report-viewer`): windowed to 8 bits, cut to the head, compressed."""

from __future__ import annotations

import base64
import gzip
import math
from typing import Any

import numpy as np
import numpy.typing as npt

from bids_cmb.report.figures import LoadedScan, brain_box

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
    x, y, z = (math.ceil(MARGIN_MM / zoom) for zoom in volume.zooms)
    box = brain_box(loaded.brain, volume.data.shape, margin=(x, y, z))
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


def _packed(data: npt.NDArray[np.uint8]) -> str:
    # No time stamp: the same files give the same page.
    return base64.b64encode(gzip.compress(np.ascontiguousarray(data).tobytes(), 6, mtime=0)).decode("ascii")
