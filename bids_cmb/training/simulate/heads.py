"""Heads: whole-head label maps that scans are simulated from.

A head is a uint8 map of `Tissue` labels on a closest-canonical grid of about 1 mm with an affine transform to MNI152
space, fitted to the centres of its deep structures. It comes from any whole-brain parcellation in FreeSurfer or GIF
numbering; what the parcellation lacks (midbrain nuclei, dentate, skull, scalp, air cavities) is added by rule.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from bids_cmb.errors import InputError, UsageError
from bids_cmb.training.simulate.tissues import BRAIN, Tissue
from bids_cmb.types import Affine

LabelMap = npt.NDArray[np.uint8]

#: What reading a file raises that is neither head nor scan, or only a part of one.
UNREADABLE = (
    AttributeError,
    EOFError,
    KeyError,
    OSError,
    TypeError,
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
)

#: FreeSurfer aparc+aseg numbers to tissues; cortical parcels (1000 and up) become cortex.
FREESURFER: dict[Tissue, tuple[int, ...]] = {
    Tissue.CSF: (24,),
    Tissue.CORTEX: (3, 42),
    Tissue.WHITE_MATTER: (2, 41, 77, 78, 79, 80, 85),
    Tissue.VENTRICLE: (4, 5, 14, 15, 31, 43, 44, 63, 72),
    Tissue.THALAMUS: (9, 10, 48, 49),
    Tissue.CAUDATE: (11, 50),
    Tissue.PUTAMEN: (12, 26, 51, 58),
    Tissue.PALLIDUM: (13, 52),
    Tissue.HIPPOCAMPUS: (17, 18, 53, 54),
    Tissue.VENTRAL_DC: (28, 60),
    Tissue.BRAINSTEM: (16,),
    Tissue.CEREBELLUM_CORTEX: (8, 47),
    Tissue.CEREBELLUM_WHITE: (7, 46),
    Tissue.CORPUS_CALLOSUM: (251, 252, 253, 254, 255),
}

#: GIF (v3) numbers to tissues; cortical parcels (96 and up) become cortex.
GIF: dict[Tissue, tuple[int, ...]] = {
    Tissue.CSF: (4,),
    Tissue.WHITE_MATTER: (43, 47, 64, 65, 66, 67, 70, 76, 77, 81, 82, 83, 84, 85, 86, 89, 90, 91, 92, 93, 94),
    Tissue.VENTRICLE: (5, 12, 16, 50, 51, 52, 53),
    Tissue.THALAMUS: (60, 61),
    Tissue.CAUDATE: (37, 38),
    Tissue.PUTAMEN: (24, 31, 58, 59),
    Tissue.PALLIDUM: (56, 57),
    Tissue.HIPPOCAMPUS: (32, 33, 48, 49),
    Tissue.VENTRAL_DC: (62, 63),
    Tissue.BRAINSTEM: (35, 36),
    Tissue.CEREBELLUM_CORTEX: (39, 40, 72, 73, 74),
    Tissue.CEREBELLUM_WHITE: (41, 42),
    Tissue.CORPUS_CALLOSUM: (87,),
    Tissue.BONE: (1,),
    Tissue.MUSCLE: (2,),
    Tissue.FAT: (3,),
}

#: Centres of structures in MNI152 (mm; right side, mirrored for the left) to which a head is aligned.
_ANCHORS: dict[Tissue, tuple[float, float, float]] = {
    Tissue.THALAMUS: (11.5, -18.5, 7.5),
    Tissue.CAUDATE: (13.5, 11.0, 10.5),
    Tissue.PUTAMEN: (25.0, 3.0, 0.5),
    Tissue.PALLIDUM: (20.0, -3.0, -0.5),
    Tissue.HIPPOCAMPUS: (25.0, -17.0, -17.0),
    Tissue.CEREBELLUM_CORTEX: (24.0, -63.0, -36.0),
    Tissue.CORTEX: (37.0, -21.0, 17.0),
}

#: Ellipsoids in MNI152 (centre, semi-axes, mm), mirrored left and right.
_NUCLEI = {
    Tissue.RED_NUCLEUS: ((4.8, -20.5, -9.0), (2.6, 3.0, 3.4)),
    Tissue.SUBSTANTIA_NIGRA: ((9.5, -17.0, -12.0), (2.8, 5.5, 3.0)),
    Tissue.DENTATE: ((15.5, -57.0, -35.0), (5.5, 7.5, 4.0)),
}
_CAVITIES = (
    ((5.0, 14.0, -34.0), (8.0, 11.0, 9.0)),  # sphenoid sinus
    ((8.0, 72.0, -14.0), (12.0, 7.0, 13.0)),  # frontal sinus
    ((5.0, 50.0, -40.0), (9.0, 24.0, 12.0)),  # ethmoid cells and nasal cavity
    ((30.0, 45.0, -58.0), (13.0, 15.0, 14.0)),  # maxillary sinus
    ((50.0, -37.0, -38.0), (9.0, 11.0, 11.0)),  # mastoid cells
    ((33.0, -24.0, -38.0), (9.0, 6.0, 4.0)),  # petrous bone, ear
)

#: Islands of fluid or tissue smaller than this are faults of the parcellation, mm3.
_SPECK = 100.0


@dataclass(frozen=True)
class Head:
    """A head to simulate scans from.

    Attributes
    ----------
    name
        Where the anatomy comes from, as the model card names it.
    labels
        (X, Y, Z) uint8 `Tissue` labels, RAS+.
    affine
        Voxel to world, mm.
    world_to_mni
        World to MNI152, mm.
    """

    name: str
    labels: LabelMap
    affine: Affine
    world_to_mni: Affine


def relabel(
    parcellation: npt.NDArray[np.integer], table: dict[Tissue, tuple[int, ...]], cortex_from: int
) -> LabelMap:
    """Translate a parcellation into tissues; numbers from `cortex_from` on are cortex, unknown ones background."""
    out = np.zeros(parcellation.shape, np.uint8)
    out[parcellation >= cortex_from] = Tissue.CORTEX
    for tissue, numbers in table.items():
        out[np.isin(parcellation, numbers)] = tissue
    return out


def without_specks(labels: LabelMap, zooms: tuple[float, ...]) -> LabelMap:
    """Give small islands of fluid, of tissue and of what lies outside the brain to the label beside them.

    Parcellations break thin sulci and the brain's border into hundreds of them. In a simulated scan each is a round
    dark dot, fluid, bone or air, that looks like a microbleed and is none. True pockets of that size go with them.

    Parameters
    ----------
    labels
        (X, Y, Z) `Tissue` labels.
    zooms
        Voxel edges, mm.

    Returns
    -------
    LabelMap
        A copy without islands below `_SPECK`, voxels touching by their faces.
    """
    fluid = np.isin(labels, (Tissue.CSF, Tissue.VENTRICLE))
    brain = np.isin(labels, BRAIN)
    specks = np.zeros(labels.shape, bool)
    for kind in (fluid, brain & ~fluid, ~brain):
        islands, _ = ndimage.label(kind)
        small = np.bincount(islands.ravel()) * float(np.prod(zooms)) < _SPECK
        small[0] = False
        specks |= small[islands]
    nearest = ndimage.distance_transform_edt(
        specks, sampling=zooms, return_distances=False, return_indices=True
    )
    cleaned: LabelMap = labels[tuple(nearest)]
    return cleaned


#: A head is so much smaller or larger than the template along any direction, and its deep structures lie so far from
#: where an affine puts them on average, mm; label maps beyond are no heads.
_SCALES, _ANCHORS_OFF_MM = (0.6, 1.7), 8.0


def fit_to_mni(labels: LabelMap, affine: Affine) -> Affine:
    """Fit the affine world -> MNI152 that matches the centres of left and right structures (least squares, mm).

    Raises
    ------
    InputError
        If fewer than four of the structures are in the label map, or they do not lie as in a head.
    """
    middle = _world_of(affine, np.isin(labels, BRAIN)).mean(axis=0)
    right_axis = middle[0]
    source, target = [], []
    for tissue, (x, y, z) in _ANCHORS.items():
        points = _world_of(affine, labels == tissue)
        for side in (-1.0, 1.0):
            half = points[np.sign(points[:, 0] - right_axis) == side]
            if len(half) > 30:
                source.append([*half.mean(axis=0), 1.0])
                target.append([side * x, y, z])
    if len(source) < 8:
        raise InputError(
            "The label map has too few of the deep structures that place a head in MNI space; use a whole-brain parcellation."
        )
    solution, *_ = np.linalg.lstsq(np.array(source), np.array(target), rcond=None)
    matrix: Affine = np.eye(4)
    matrix[:3] = solution.T
    scales = np.linalg.svd(matrix[:3, :3], compute_uv=False)
    off = float(np.linalg.norm(np.array(source) @ solution - np.array(target), axis=1).mean())
    if (
        np.linalg.det(matrix[:3, :3]) <= 0
        or scales.min() < _SCALES[0]
        or scales.max() > _SCALES[1]
        or off > _ANCHORS_OFF_MM
    ):
        raise InputError(
            "The deep structures of the label map do not lie as in a head: check --scheme (freesurfer, gif, or t1w for a T1-weighted image)."
        )
    return matrix


def _world_of(affine: Affine, where: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    voxels = np.argwhere(where)[:: max(1, int(where.sum() // 20000))]
    world: npt.NDArray[np.float64] = voxels @ affine[:3, :3].T + affine[:3, 3]
    return world


def _mni_grid(head_affine: Affine, world_to_mni: Affine, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    matrix = world_to_mni @ head_affine
    axes = np.meshgrid(*[np.arange(n, dtype=np.float32) for n in shape], indexing="ij", sparse=True)
    return np.stack([sum(matrix[i, j] * axes[j] for j in range(3)) + matrix[i, 3] for i in range(3)]).astype(
        np.float32
    )


def complete_head(labels: LabelMap, affine: Affine) -> tuple[LabelMap, Affine]:
    """Add midbrain nuclei and dentate, a skull and scalp where there are none, and air cavities.

    Parameters
    ----------
    labels
        Tissues of a parcellation, with or without labels outside the brain.
    affine
        Voxel to world, mm (about 1 mm voxels).

    Returns
    -------
    tuple
        The completed label map and the affine world -> MNI152.
    """
    world_to_mni = fit_to_mni(labels, affine)
    out = labels.copy()
    mni = _mni_grid(affine, world_to_mni, labels.shape)
    mni[0] = np.abs(mni[0])
    hosts = {
        Tissue.RED_NUCLEUS: (Tissue.VENTRAL_DC, Tissue.BRAINSTEM),
        Tissue.SUBSTANTIA_NIGRA: (Tissue.VENTRAL_DC, Tissue.BRAINSTEM),
        Tissue.DENTATE: (Tissue.CEREBELLUM_WHITE, Tissue.CEREBELLUM_CORTEX),
    }
    for tissue, (centre, axes) in _NUCLEI.items():
        inside = _ellipsoid(mni, centre, axes)
        if tissue is Tissue.DENTATE:  # a folded sheet, not a ball
            inside &= ~_ellipsoid(
                mni,
                (centre[0] - 1.5, centre[1] + 1.5, centre[2] - 1.0),
                (axes[0] - 2, axes[1] - 2, axes[2] - 1.5),
            )
        out[inside & np.isin(labels, hosts[tissue])] = tissue
    if not np.isin(labels, (Tissue.BONE, Tissue.MUSCLE, Tissue.FAT)).any():
        out = _add_skull_and_scalp(out, mni)
    out[_enclosed(out > 0) & (out == Tissue.BACKGROUND)] = Tissue.BONE  # parcellations call bone background
    cavities = np.zeros(labels.shape, bool)
    for centre, axes in _CAVITIES:
        cavities |= _ellipsoid(mni, centre, axes)
    soft = np.isin(out, (Tissue.BONE, Tissue.MUSCLE, Tissue.FAT))
    out[cavities & soft] = Tissue.AIR
    return out, world_to_mni


def _enclosed(head: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Fill a head: closed over 8 mm, and without holes in any axial slice."""
    padded = np.pad(head, 10)
    closed = ndimage.binary_closing(padded, iterations=8)[10:-10, 10:-10, 10:-10]
    for k in range(closed.shape[2]):
        closed[:, :, k] = ndimage.binary_fill_holes(closed[:, :, k])
    filled: npt.NDArray[np.bool_] = closed
    return filled


def _ellipsoid(
    grid: npt.NDArray[np.float32], centre: tuple[float, ...], axes: tuple[float, ...]
) -> npt.NDArray[np.bool_]:
    inside: npt.NDArray[np.bool_] = sum(((grid[i] - centre[i]) / axes[i]) ** 2 for i in range(3)) < 1.0
    return inside


def _add_skull_and_scalp(labels: LabelMap, mni: npt.NDArray[np.float32]) -> LabelMap:
    """Wrap a bare brain in CSF, bone, muscle and fat, open below into a neck."""
    brain = np.isin(labels, BRAIN)
    hull = ndimage.binary_closing(np.pad(brain, 20), iterations=12)[20:-20, 20:-20, 20:-20] | brain
    distance = ndimage.distance_transform_edt(~hull)
    out = labels.copy()
    outside = ~brain
    below = mni[2] < -38 - 0.15 * mni[1]
    neck = below & (np.hypot(mni[0] / 62, (mni[1] + 12) / 85) < 1)
    out[outside & (distance < 14)] = Tissue.FAT
    out[outside & (distance < 11)] = Tissue.MUSCLE
    out[outside & (distance < 9)] = Tissue.BONE
    out[outside & (distance < 2.5)] = Tissue.CSF
    out[neck & (out == Tissue.BACKGROUND)] = Tissue.MUSCLE
    return out


def save_head(head: Head, path: Path) -> None:
    """Write a head as a compressed .npz without pickled objects."""
    np.savez_compressed(
        path, name=np.array(head.name), labels=head.labels, affine=head.affine, world_to_mni=head.world_to_mni
    )


def shipped_head_file() -> AbstractContextManager[Path]:
    """File of the head of the MNI template, which comes with the package."""
    return as_file(files("bids_cmb") / "data" / "mni_head.npz")


def check_heads(paths: Sequence[Path]) -> None:
    """Check that the heads that a user named are there, before long work begins.

    Raises
    ------
    UsageError
        If one is not.
    """
    missing = [str(path) for path in paths if not path.is_file()]
    if missing:
        raise UsageError(f"No such head: {', '.join(missing)}; make one with `bids-cmb-train heads`.")


def load_head(path: Path) -> Head:
    """Read a head written by `save_head`, without specks (`without_specks`).

    Raises
    ------
    InputError
        If the file is not such a head.
    """
    try:
        with np.load(path, allow_pickle=False) as store:
            affine = store["affine"]
            labels = without_specks(store["labels"], tuple(np.linalg.norm(affine[:3, :3], axis=0)))
            return Head(str(store["name"]), labels, affine, store["world_to_mni"])
    except UNREADABLE as error:
        raise InputError(
            f"{path} is not a simulator head ({error}); make one with `bids-cmb-train heads`."
        ) from error


def shipped_head() -> Head:
    """Return the head of the MNI template, which comes with the package."""
    with shipped_head_file() as path:
        return load_head(path)
