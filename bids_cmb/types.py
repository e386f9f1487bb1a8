"""The small frozen types that travel between the rooms of the package.

Conventions that hold everywhere: arrays are indexed ``[x, y, z]`` on a grid whose axes run left to right,
posterior to anterior and inferior to superior as nearly as the voxels allow (closest canonical, RAS+);
affines map voxel indices to RAS+ world coordinates in millimetres; lengths are millimetres.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

Contrast = Literal["gre", "swi", "qsm"]
CONTRASTS: tuple[Contrast, ...] = ("swi", "gre", "qsm")

Category = Literal["lobar", "deep", "infratentorial"]
Hemisphere = Literal["L", "R"]
Certainty = Literal["definite", "possible"]
#: How a brain mask came about: it was given, it is the support of an image that was masked already, or it was found by
#: thresholds and shapes.
MaskMethod = Literal["given", "support", "thresholds"]

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]
LabelArray = npt.NDArray[np.int32]
Affine = npt.NDArray[np.float64]
Point = tuple[float, float, float]

#: The thirteen regions of the Microbleed Anatomical Rating Scale (Gregoire 2009): code, name, category.
MARS_REGIONS: tuple[tuple[str, str, Category], ...] = (
    ("B", "brainstem", "infratentorial"),
    ("C", "cerebellum", "infratentorial"),
    ("Bg", "basal ganglia", "deep"),
    ("Th", "thalamus", "deep"),
    ("Ic", "internal capsule", "deep"),
    ("Ec", "external capsule", "deep"),
    ("Cc", "corpus callosum", "deep"),
    ("DPWM", "deep and periventricular white matter", "deep"),
    ("F", "frontal", "lobar"),
    ("P", "parietal", "lobar"),
    ("T", "temporal", "lobar"),
    ("O", "occipital", "lobar"),
    ("I", "insula", "lobar"),
)
#: Label values in ``seg-MARS_dseg``: region k (1..13) is k on the left and 100 + k on the right; 0 is outside.
MARS_RIGHT_OFFSET = 100

#: Robust z-score from which a scan is unusual within its study (Iglewicz & Hoaglin 1993).
OUTLIER_Z = 3.5


def mars_label(code: str, hemisphere: Hemisphere) -> int:
    """Return the label value of a MARS region on one side.

    Parameters
    ----------
    code
        Region code, e.g. ``"DPWM"``.
    hemisphere
        ``"L"`` or ``"R"``.

    Returns
    -------
    int
        1..13 on the left, 101..113 on the right.

    Raises
    ------
    ValueError
        If there is no such region.
    """
    index = [region[0] for region in MARS_REGIONS].index(code) + 1
    return index if hemisphere == "L" else MARS_RIGHT_OFFSET + index


def mars_region(label: int) -> tuple[str, Category, Hemisphere]:
    """Return (code, category, hemisphere) of a label value of ``seg-MARS_dseg`` (the inverse of `mars_label`)."""
    side: Hemisphere = "R" if label > MARS_RIGHT_OFFSET else "L"
    code, _, category = MARS_REGIONS[label % MARS_RIGHT_OFFSET - 1]
    return code, category, side


@dataclass(frozen=True)
class Volume:
    """A 3-D image on a closest-canonical (RAS+) grid.

    Attributes
    ----------
    data
        Array of shape (x, y, z), float32.
    affine
        4x4 matrix from voxel index to RAS+ world, mm.
    """

    data: FloatArray
    affine: Affine

    @property
    def zooms(self) -> Point:
        """Voxel edge lengths along x, y, z in mm."""
        lengths = np.linalg.norm(self.affine[:3, :3], axis=0)
        return (float(lengths[0]), float(lengths[1]), float(lengths[2]))

    @property
    def voxel_volume(self) -> float:
        """Volume of one voxel in cubic millimetres."""
        return float(abs(np.linalg.det(self.affine[:3, :3])))


@dataclass(frozen=True)
class Scan:
    """One image to detect microbleeds on, as found in a dataset.

    Attributes
    ----------
    path
        The NIfTI file, never resolved through symbolic links.
    contrast
        ``swi``, ``gre`` or ``qsm``: decides the polarity and the operating point.
    suffix
        The suffix in the file name (``T2starw``, ``swi``, ``GRE``, ``MEGRE``, ``Chimap``).
    entities
        The entities of the file name in their order, e.g. ``(("sub", "01"), ("acq", "swi"))``.
    dataset_root
        Root folder of the dataset that holds it.
    dataset_name
        Name in BIDS URIs: ``raw`` or the name of the derivatives dataset.
    metadata
        Sidecar fields with BIDS inheritance; empty if there are none.
    brain_mask, t1w
        A user's own brain mask on the same grid, and the session's T1w image, where they were found.
    warnings
        What had to be guessed when the scan was found: sentences for the table, the sidecar and the report.
    """

    path: Path
    contrast: Contrast
    suffix: str
    entities: tuple[tuple[str, str], ...]
    dataset_root: Path
    dataset_name: str = "raw"
    metadata: Mapping[str, Any] = field(default_factory=dict)
    brain_mask: Path | None = None
    t1w: Path | None = None
    warnings: tuple[str, ...] = ()

    def entity(self, key: str) -> str | None:
        """Value of one entity (``sub``, ``ses``, ``acq`` ...) or None."""
        return dict(self.entities).get(key)

    @property
    def subject(self) -> str:
        """Subject label without ``sub-``."""
        return dict(self.entities)["sub"]

    @property
    def session(self) -> str | None:
        """Session label without ``ses-``, or None."""
        return self.entity("ses")

    @property
    def echo_time(self) -> float | None:
        """Echo time in seconds, or None if the sidecar does not say."""
        return positive_number(self.metadata.get("EchoTime"))

    @property
    def field_strength(self) -> float | None:
        """Field strength in tesla, or None if the sidecar does not say."""
        return positive_number(self.metadata.get("MagneticFieldStrength"))


def positive_number(value: object) -> float | None:
    """Return a sidecar value if it is a number, finite and above zero, else None."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) and number > 0 else None


@dataclass(frozen=True)
class Prepared:
    """A scan made ready for the detector.

    Attributes
    ----------
    image
        Intensities (GRE, SWI: bias-corrected; QSM: susceptibility in ppm, blood positive).
    brain_mask
        Brain voxels, same shape; holes of very dark lesions are filled.
    snr
        Median brain signal over the noise of the image (QSM: 1 / noise in ppm), or nan.
    mask_method
        How the brain mask came about.
    warnings
        Sentences for the table, the sidecar and the report.
    conversion
        Factor and offset that made a QSM's stored values ppm, blood positive: factor x (value - offset).
    """

    image: Volume
    brain_mask: BoolArray
    snr: float
    mask_method: MaskMethod
    warnings: tuple[str, ...] = ()
    conversion: tuple[float, float] = (1.0, 0.0)


@dataclass(frozen=True)
class Candidate:
    """One component of stage 1 and all that is known about it.

    ``index`` is its label in the candidate label map. Coordinates are RAS+ world mm of the image. ``fate`` is
    ``accepted`` or the name of the rule that removed it (``stage2``, or a clean-up rule).
    """

    index: int
    position: Point
    stage1_score: float
    stage2_probability: float
    volume: float
    diameter: float
    contrast: float
    elongation: float
    fate: str = "accepted"
    probability: float = 0.0
    certainty: Certainty = "possible"
    mars_region: str = ""
    mars_category: str = ""
    hemisphere: str = ""
    mni: Point = (math.nan, math.nan, math.nan)
    flags: tuple[str, ...] = ()

    @property
    def accepted(self) -> bool:
        """Whether it counts as a microbleed."""
        return self.fate == "accepted"


@dataclass(frozen=True)
class Detection:
    """Candidates of one scan with their outlines.

    Attributes
    ----------
    candidates
        Every stage-1 component, most probable first.
    labels
        int32 array on the image grid: 0 or the `Candidate.index` that owns the voxel.
    warnings
        Sentences for the user.
    """

    candidates: tuple[Candidate, ...]
    labels: LabelArray
    warnings: tuple[str, ...] = ()

    @property
    def microbleeds(self) -> tuple[Candidate, ...]:
        """The accepted candidates, in order."""
        return tuple(c for c in self.candidates if c.accepted)


#: A zone of mimics: its strength 0..1 (n,) at image voxels (n, 3). A map per zone would take a gigabyte on large scans.
Zone = Callable[[npt.NDArray[np.intp]], FloatArray]


class PointMap(Protocol):
    """Where points of a scan lie in MNI space, and back."""

    def __call__(self, points: npt.NDArray[np.float64], /) -> npt.NDArray[np.float64]:
        """RAS+ world points (n, 3) to MNI, mm."""

    def back(self, points: npt.NDArray[np.float64], /) -> npt.NDArray[np.float64]:
        """MNI points (n, 3) to RAS+ world, mm."""


@dataclass(frozen=True)
class Anatomy:
    """Where things are in one scan.

    Attributes
    ----------
    mars
        int32 array on the image grid: values of `mars_label`, 0 outside the brain.
    world_to_mni
        4x4 affine from the image's RAS+ world to MNI152 RAS+ world, mm: the registration without its deformation.
    zones
        By name (``ventricle``, ``edge``, ``sinus``, ``pallidum``, ``pineal``, ``choroid_plexus``, ``falx``...): how
        strongly, 0..1, a place suggests a mimic.
    quality
        Figures by name (``similarity``, ``overlap``).
    warnings
        Sentences for the table, the sidecar and the report.
    registration
        From the image's world to MNI152, deformation included; None where there is none to be believed.
    """

    mars: LabelArray
    world_to_mni: Affine
    zones: Mapping[str, Zone] = field(default_factory=dict)
    quality: Mapping[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    registration: PointMap | None = None
