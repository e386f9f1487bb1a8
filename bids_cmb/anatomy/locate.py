"""Everything anatomical about one scan: regions, zones of mimics and coordinates on its own grid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial import cKDTree

from bids_cmb.anatomy.registration import Registration, register
from bids_cmb.anatomy.sampling import DoubleArray, apply_matrix, block_affine, interpolate, to_voxels
from bids_cmb.anatomy.structures import ZONES
from bids_cmb.anatomy.template import LabelAtlas, load_mars, load_zones
from bids_cmb.types import Affine, Anatomy, BoolArray, Contrast, FloatArray, LabelArray, Volume, Zone

#: Regions are looked up about this densely, mm: the atlas has no finer detail.
LABEL_MM = 1.0
#: The brain's edge: full strength at the surface of the mask, none this deep, mm; cortical veins reach deeper on QSM.
EDGE_DEPTH_MM: Mapping[Contrast, float] = {"gre": 2.0, "swi": 2.0, "qsm": 3.0}
#: A mask smaller than this is no brain to register, ml.
LEAST_BRAIN_ML = 50.0


@dataclass(frozen=True)
class Lattice:
    """A thinned copy of an image grid: every cell stands for a block of voxels.

    Attributes
    ----------
    factors
        Voxels per cell along each axis.
    shape
        Cells along each axis.
    affine
        Cell index to world, mm.
    """

    factors: tuple[int, int, int]
    shape: tuple[int, int, int]
    affine: Affine

    @classmethod
    def over(cls, volume: Volume, spacing_mm: float) -> Lattice:
        """The lattice of an image with cells no larger than a spacing (but never finer than the voxels)."""
        x, y, z = (max(1, int(spacing_mm / zoom + 1e-6)) for zoom in volume.zooms)
        nx, ny, nz = (-(-n // f) for n, f in zip(volume.data.shape, (x, y, z), strict=True))
        return cls((x, y, z), (nx, ny, nz), block_affine(volume.affine, (x, y, z)))

    def world(self, cells: npt.NDArray[np.intp]) -> DoubleArray:
        """World coordinates (n, 3) of cells (n, 3), mm."""
        return apply_matrix(self.affine[:3, :3], cells.astype(np.float64)) + self.affine[:3, 3]


def edge_zone(brain_mask: BoolArray, zooms: tuple[float, ...], depth_mm: float) -> Zone:
    """How near the surface of the brain mask a voxel lies: 1 at the surface, 0 from `depth_mm` on.

    Where the brain runs out of the field of view there is no surface.
    """
    inner = ndimage.binary_erosion(brain_mask, border_value=1)
    surface = cKDTree(np.argwhere(brain_mask & ~inner) * np.asarray(zooms))

    def strength(voxels: npt.NDArray[np.intp]) -> FloatArray:
        distance, _ = surface.query(voxels * np.asarray(zooms), distance_upper_bound=depth_mm)
        near = np.clip(1.0 - distance / depth_mm, 0, 1)  # beyond the bound the distance is infinite
        return np.where(brain_mask[tuple(voxels.T)], near, 0).astype(np.float32)

    return strength


def look_up_labels(atlas: LabelAtlas, mni: DoubleArray) -> npt.NDArray[np.int32]:
    """Label (n,) at MNI points (n, 3), nearest voxel; 0 off the atlas."""
    voxels = np.rint(to_voxels(mni, atlas.affine)).astype(np.intp)
    inside = np.all((voxels >= 0) & (voxels < np.asarray(atlas.labels.shape)), axis=1)
    out = np.zeros(len(mni), np.int32)
    out[inside] = atlas.labels[tuple(voxels[inside].T)]
    return out


def region_map(volume: Volume, brain_mask: BoolArray, registration: Registration) -> LabelArray:
    """MARS regions on the image grid: every brain voxel has one, the nearest where the atlas ends.

    Parameters
    ----------
    volume
        The scan.
    brain_mask
        Brain voxels.
    registration
        World to MNI.

    Returns
    -------
    ndarray
        int32, values of `bids_cmb.types.mars_label`; 0 outside the mask.
    """
    lattice = Lattice.over(volume, LABEL_MM)
    occupied = brain_mask
    for axis, factor in enumerate(lattice.factors):
        occupied = np.logical_or.reduceat(occupied, np.arange(0, occupied.shape[axis], factor), axis=axis)
    cells = np.argwhere(occupied)
    world = lattice.world(cells)
    labels = np.concatenate(
        [
            look_up_labels(load_mars(), registration(part))
            for part in np.array_split(world, max(1, len(world) // 200000))
        ]
    )
    labels = _nearest_where_missing(labels, cells, world, lattice)
    coarse = np.zeros(lattice.shape, np.int32)
    coarse[tuple(cells.T)] = labels
    full = coarse
    for axis, factor in enumerate(lattice.factors):
        if factor > 1:
            full = np.repeat(full, factor, axis=axis)
    x, y, z = brain_mask.shape
    return np.where(brain_mask, full[:x, :y, :z], 0).astype(np.int32)


def _nearest_where_missing(
    labels: npt.NDArray[np.int32], cells: npt.NDArray[np.intp], world: DoubleArray, lattice: Lattice
) -> npt.NDArray[np.int32]:
    """Fill cells without a label from the nearest cell with one."""
    missing = labels == 0
    if not missing.any() or missing.all():
        return labels
    known = np.zeros(lattice.shape, bool)
    known[tuple(cells[~missing].T)] = True
    surface = known & ~ndimage.binary_erosion(known)
    rim = surface[tuple(cells.T)] & ~missing
    _, nearest = cKDTree(world[rim]).query(world[missing])
    out = labels.copy()
    out[missing] = labels[rim][nearest]
    return out


def find_zones(
    volume: Volume, brain_mask: BoolArray, registration: Registration, contrast: Contrast
) -> dict[str, Zone]:
    """Zones of mimics on the image grid (see `bids_cmb.anatomy.structures.ZONES`), and ``edge``."""

    def strength(voxels: npt.NDArray[np.intp], number: int) -> FloatArray:
        world = apply_matrix(volume.affine[:3, :3], voxels.astype(np.float64)) + volume.affine[:3, 3]
        atlas = load_zones()
        one = np.ascontiguousarray(atlas.zones[..., number : number + 1])
        return interpolate(one, to_voxels(registration(world), atlas.affine))[:, 0]

    zones: dict[str, Zone] = {name: partial(strength, number=k) for k, name in enumerate(ZONES)}
    return zones | {"edge": edge_zone(brain_mask, volume.zooms, EDGE_DEPTH_MM[contrast])}


def locate(
    image: Volume,
    brain_mask: BoolArray,
    contrast: Contrast,
    *,
    t1w: Volume | None = None,
    deformable: bool = True,
    finer: bool = False,
) -> Anatomy:
    """Find the regions of MARS and the zones of mimics in one scan.

    Parameters
    ----------
    image
        The prepared scan.
    brain_mask
        Its brain voxels, same shape.
    contrast
        What kind of scan; the registration itself assumes no contrast.
    t1w
        A T1w image of the same session, to place regions better.
    deformable
        Whether a smooth deformation follows the affine registration.
    finer
        Whether ANTs refines it.

    Returns
    -------
    Anatomy
        Region map, world to MNI, zones, figures and warnings. With hardly any brain in the mask, regions and zones
        are empty and a warning says so.
    """
    volume_ml = float(np.count_nonzero(brain_mask)) * image.voxel_volume / 1000.0
    if volume_ml < LEAST_BRAIN_ML:
        warning = (
            f"The brain mask holds only {volume_ml:.0f} ml of this {contrast} scan: no regions were assigned."
        )
        return Anatomy(
            np.zeros(image.data.shape, np.int32),
            np.eye(4),
            {},
            {"similarity": 0.0, "overlap": 0.0},
            (warning,),
        )
    registration = register(image, brain_mask, t1w=t1w, deformable=deformable, finer=finer)
    return Anatomy(
        mars=region_map(image, brain_mask, registration),
        world_to_mni=registration.world_to_mni,
        zones=find_zones(image, brain_mask, registration, contrast),
        quality=registration.quality,
        warnings=registration.warnings,
    )
