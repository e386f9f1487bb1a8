"""Structures that the parcellation lacks, drawn by MNI coordinates or from their neighbours.

Coordinates are millimetres in MNI152 2009a symmetric space, read off nilearn's T1 template (nuclei, pineal, straight
sinus) or, for the air spaces outside its stripped brain, placed by general anatomical knowledge: they are sketches
for soft zones and for simulated field distortion, not segmentations.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bids_cmb.anatomy.rules import distance_to
from bids_cmb.types import Affine, BoolArray, FloatArray, Point

WorldGrid = tuple[FloatArray, FloatArray, FloatArray]


@dataclass(frozen=True)
class Ellipsoid:
    """An ellipsoid in world space, mm; ``tilt`` turns it in the axial plane, degrees, outward going back."""

    centre: Point
    radii: Point
    tilt: float = 0.0

    def mask(self, grid: WorldGrid) -> BoolArray:
        """Voxels inside it or its mirror image in the midsagittal plane."""
        x = np.abs(grid[0]) - self.centre[0]
        y = grid[1] - self.centre[1]
        z = grid[2] - self.centre[2]
        angle = np.deg2rad(self.tilt)
        u = np.cos(angle) * x + np.sin(angle) * y
        v = -np.sin(angle) * x + np.cos(angle) * y
        a, b, c = self.radii
        return np.asarray((u / a) ** 2 + (v / b) ** 2 + (z / c) ** 2 <= 1.0)


RED_NUCLEUS = Ellipsoid((5.0, -20.0, -9.0), (3.0, 3.5, 4.0))
SUBSTANTIA_NIGRA = Ellipsoid((9.5, -15.5, -12.0), (2.3, 6.5, 4.5), tilt=28.0)
DENTATE = Ellipsoid((14.0, -57.0, -34.0), (4.5, 8.5, 6.0), tilt=15.0)
PINEAL = Ellipsoid((0.0, -30.0, 0.0), (3.0, 4.0, 3.5))
SPHENOID_ETHMOID_AIR = Ellipsoid((0.0, 24.0, -40.0), (16.0, 30.0, 15.0))
PETROUS_MASTOID_AIR = Ellipsoid((47.0, -32.0, -46.0), (14.0, 20.0, 13.0))
FRONTAL_SINUS_AIR = Ellipsoid((6.0, 78.0, -8.0), (14.0, 7.0, 14.0))
#: Lateral border of the occipital lobe: the plane y = a - b z through the dorsal end of the parieto-occipital sulcus
#: (about y -77, z 38) and the preoccipital notch (about y -63, z -18).
OCCIPITAL_Y_AT_AC = -67.5
OCCIPITAL_SLOPE = 0.25
#: Border of frontal and parietal cingulate cortex, under the middle of the paracentral lobule.
CINGULATE_Y = -20.0
_STRAIGHT_SINUS = ((0.0, -44.0, 9.0), (0.0, -84.0, -20.0))


def world_grid(shape: tuple[int, ...], affine: Affine) -> WorldGrid:
    """World coordinates of an axis-aligned grid as three arrays that broadcast to its shape."""
    axes = [affine[k, k] * np.arange(shape[k], dtype=np.float32) + affine[k, 3] for k in range(3)]
    x, y, z = np.meshgrid(*axes, indexing="ij", sparse=True)
    return np.float32(x), np.float32(y), np.float32(z)  # type: ignore[return-value]


def near_segment(grid: WorldGrid, ends: tuple[Point, Point], radius: float) -> BoolArray:
    """Voxels within a radius of a straight line, mm."""
    start, stop = np.asarray(ends[0]), np.asarray(ends[1])
    along = stop - start
    length = float(np.linalg.norm(along))
    unit = along / length
    offsets = [grid[k] - start[k] for k in range(3)]
    t = np.clip(sum(o * u for o, u in zip(offsets, unit, strict=True)), 0.0, length)
    squared = sum((o - t * u) ** 2 for o, u in zip(offsets, unit, strict=True))
    return np.asarray(squared <= radius**2)


def dura_and_sinuses(
    grid: WorldGrid, brain: BoolArray, cerebrum: BoolArray, cerebellum: BoolArray, deep: BoolArray
) -> dict[str, BoolArray]:
    """Falx, tentorium and the great venous sinuses, from the gaps between the parts of the brain.

    Parameters
    ----------
    grid
        World coordinates, mm.
    brain
        Inside of the skull.
    cerebrum, cerebellum
        Tissue (grey and white) above and below the tentorium.
    deep
        Thalamus, brainstem, callosum and ventricles: the falx keeps clear of them.

    Returns
    -------
    dict
        Masks by structure name; they may overlap.
    """
    x, y, z = grid
    free = ~cerebrum & ~cerebellum & ~deep
    to_cerebrum, to_cerebellum = distance_to(cerebrum), distance_to(cerebellum)
    outside, depth = distance_to(brain), distance_to(~brain)
    rim = (outside <= 5.0) & (depth <= 3.0)
    falx = (
        (np.abs(x) <= 1.5)
        & free
        & brain
        & (to_cerebrum <= 9.0)
        & (to_cerebellum > 8.0)
        & (distance_to(deep) > 6.0)
    )
    tentorium = free & brain & (to_cerebrum <= 5.0) & (to_cerebellum <= 5.0)
    sagittal = (
        (np.abs(x) <= 5.0) & rim & free & (to_cerebrum <= 12.0) & (z > -14.0) & ~((y > 45.0) & (z < 10.0))
    )
    transverse = (
        (outside <= 5.0) & (depth <= 4.0) & free & (to_cerebrum <= 7.0) & (to_cerebellum <= 7.0) & (y < -45.0)
    )
    return {
        "falx": falx,
        "tentorium": tentorium,
        "superior_sagittal_sinus": sagittal,
        "transverse_sinus": transverse,
        "straight_sinus": near_segment(grid, _STRAIGHT_SINUS, 3.0) & free,
    }
