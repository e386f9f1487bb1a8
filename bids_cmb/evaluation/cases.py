"""What is compared: reference lesions and predictions of one scan, in millimetres.

Outlines are lists of voxels on a grid that the lesions of one scan share; a lesion that is known by its place
alone has none. Positions are RAS+ world coordinates.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from bids_cmb.types import Affine, Point

VoxelArray = npt.NDArray[np.int64]
PointArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Grid:
    """A voxel grid in the world.

    Attributes
    ----------
    shape
        Number of voxels along the three axes.
    affine
        4x4 matrix from voxel index to RAS+ world, mm.
    """

    shape: tuple[int, int, int]
    affine: Affine

    @property
    def voxel_volume(self) -> float:
        """Volume of one voxel, mm³."""
        return float(abs(np.linalg.det(self.affine[:3, :3])))

    @property
    def slice_thickness(self) -> float:
        """Longest edge of a voxel, mm."""
        return float(np.linalg.norm(self.affine[:3, :3], axis=0).max())

    def to_world(self, indices: PointArray) -> PointArray:
        """Map voxel indices, shape (n, 3), to world mm."""
        points: PointArray = indices @ self.affine[:3, :3].T + self.affine[:3, 3]
        return points

    def to_index(self, points: PointArray) -> PointArray:
        """Map world mm, shape (n, 3), to real-valued voxel indices."""
        inverse = np.linalg.inv(self.affine)
        indices: PointArray = points @ inverse[:3, :3].T + inverse[:3, 3]
        return indices

    def voxel_at(self, point: Point) -> int | None:
        """Return the flat index (C order) of the voxel that holds a point, or None outside the grid."""
        index = np.rint(self.to_index(np.array([point], dtype=np.float64))[0]).astype(np.int64)
        if (index < 0).any() or (index >= self.shape).any():
            return None
        return int(np.ravel_multi_index(tuple(index), self.shape))

    def matches(self, other: Grid) -> bool:
        """Whether two grids are the same to a hundredth of a millimetre."""
        return self.shape == other.shape and bool(np.allclose(self.affine, other.affine, atol=0.01))


def sphere_diameter(volume: float) -> float:
    """Return the diameter (mm) of the sphere of a volume (mm³)."""
    return float((6.0 * volume / math.pi) ** (1.0 / 3.0))


@dataclass(frozen=True, eq=False)
class Reference:
    """A lesion that a reader (or a simulation) says is there.

    Attributes
    ----------
    position
        Centre, world mm.
    volume
        mm³; nan if only the place is known.
    voxels
        Sorted flat indices into the scan's grid, or None without an outline.
    visible
        Whether it has to be found. One that is invisible or uncertain is neither missed nor does it make a
        prediction on it false: both are left out of the count.
    attributes
        What else is known, e.g. ``mars_category``.
    """

    position: Point
    volume: float = math.nan
    voxels: VoxelArray | None = None
    visible: bool = True
    attributes: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def ball(cls, position: Point, radius: float, *, visible: bool = True, **attributes: str) -> Reference:
        """Describe a lesion by its centre and radius, mm."""
        return cls(position, 4.0 / 3.0 * math.pi * radius**3, visible=visible, attributes=attributes)

    @property
    def diameter(self) -> float:
        """Diameter of the sphere of equal volume, mm; nan if unknown."""
        return sphere_diameter(self.volume)


@dataclass(frozen=True, eq=False)
class Prediction:
    """A component that a detector found.

    Attributes
    ----------
    position
        Centre, world mm.
    score
        How sure the detector is; larger is surer. Calibration asks for a probability.
    volume
        mm³; nan if unknown.
    voxels
        Sorted flat indices into the scan's grid, or None without an outline.
    accepted
        Whether it counts at the operating point. The others serve the FROC curve.
    attributes
        What else is known, e.g. ``mars_category``.
    """

    position: Point
    score: float
    volume: float = math.nan
    voxels: VoxelArray | None = None
    accepted: bool = True
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class ScanPair:
    """Reference and predictions of one scan.

    Attributes
    ----------
    subject
        Whose scan it is: confidence intervals resample subjects.
    scan
        Its name, unique in an evaluation.
    references, predictions
        Lesions; both may be empty.
    grid
        What the voxels of all outlines refer to; None if nothing has an outline.
    attributes
        Of the scan: ``contrast``, ``slice_thickness`` (mm), ``field_strength`` (T) ...
    """

    subject: str
    scan: str
    references: tuple[Reference, ...]
    predictions: tuple[Prediction, ...]
    grid: Grid | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check that outlines have a grid to lie on, and that numbers are numbers."""
        lesions: tuple[Reference | Prediction, ...] = (*self.references, *self.predictions)
        if self.grid is None and any(lesion.voxels is not None for lesion in lesions):
            raise ValueError(f"{self.scan}: outlines need a grid")
        if not all(math.isfinite(value) for lesion in lesions for value in lesion.position):
            raise ValueError(f"{self.scan}: a position is not finite")
        if not all(math.isfinite(prediction.score) for prediction in self.predictions):
            raise ValueError(f"{self.scan}: a score is not finite")
