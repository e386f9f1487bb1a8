"""Everything anatomical about one scan: regions, zones of mimics and coordinates on its own grid."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from bids_cmb.anatomy.registration import Registration, register
from bids_cmb.anatomy.sampling import (
    DoubleArray,
    apply_affine,
    block_affine,
    bounding_box,
    interpolate,
    to_voxels,
)
from bids_cmb.anatomy.structures import ZONES
from bids_cmb.anatomy.symmetry import symmetry
from bids_cmb.anatomy.template import load_endless_mars, load_zones
from bids_cmb.types import Affine, Anatomy, BoolArray, Contrast, FloatArray, LabelArray, Volume, Zone

#: Regions are looked up about this densely, mm: the atlas has no finer detail.
LABEL_MM = 1.0
#: The registration is worked out about this densely, mm, and linear between: its lattice is no denser.
NODE_MM = 3.0
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

    def world(self, cells: DoubleArray) -> DoubleArray:
        """World coordinates (n, 3) of cells (n, 3), mm."""
        return apply_affine(self.affine, cells)


def edge_zone(brain_mask: BoolArray, zooms: tuple[float, ...], depth_mm: float) -> Zone:
    """How near the surface of the brain mask a voxel's centre lies: 1 at the surface, 0 from `depth_mm` on.

    The surface is made of the faces between voxels inside and outside, so that a voxel of a thick slice counts as deep
    as it is. Where the brain runs out of the field of view there is no surface.
    """
    box = bounding_box(brain_mask, (1, 1, 1))
    near = brain_mask[box]
    corner = [side.start for side in box]
    faces = []
    for axis in range(3):
        between = np.argwhere(np.diff(near, axis=axis)).astype(np.float64)
        between[:, axis] += 0.5
        faces.append(between + corner)
    surface = cKDTree(np.concatenate(faces) * np.asarray(zooms), balanced_tree=False)

    def strength(voxels: npt.NDArray[np.intp]) -> FloatArray:
        distance, _ = surface.query(voxels * np.asarray(zooms), distance_upper_bound=depth_mm)
        strong = np.clip(1.0 - distance / depth_mm, 0, 1)  # beyond the bound the distance is infinite
        return np.where(brain_mask[tuple(voxels.T)], strong, 0).astype(np.float32)

    return strength


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
    x, y, z = brain_mask.shape
    fx, fy, fz = lattice.factors
    ix, iy, iz = bounding_box(brain_mask)
    box = (
        slice(ix.start // fx, -(-ix.stop // fx)),
        slice(iy.start // fy, -(-iy.stop // fy)),
        slice(iz.start // fz, -(-iz.stop // fz)),
    )
    out = np.zeros(brain_mask.shape, np.int32)
    rows = (
        slice(box[1].start * fy, min(y, box[1].stop * fy)),
        slice(box[2].start * fz, min(z, box[2].stop * fz)),
    )
    for number, labels in zip(
        range(box[0].start, box[0].stop), _label_planes(lattice, box, registration), strict=True
    ):
        full = labels.repeat(fy, axis=0).repeat(fz, axis=1) if fy > 1 or fz > 1 else labels
        for plane in range(number * fx, min(x, (number + 1) * fx)):
            inside = brain_mask[plane][rows]
            out[plane][rows] = full[: inside.shape[0], : inside.shape[1]] * inside
    return out


def _label_planes(
    lattice: Lattice, box: tuple[slice, slice, slice], registration: Registration
) -> Iterator[npt.NDArray[np.uint8]]:
    """Regions of the cells in a box, plane by plane along the first axis.

    The registration is worked out for nodes some millimetres apart and is linear between them.
    """
    atlas = load_endless_mars()
    edges = np.linalg.norm(lattice.affine[:3, :3], axis=0)
    places = []
    for side, edge in zip(box, edges, strict=True):
        count = max(2, 1 + int(np.ceil((side.stop - side.start - 1) * edge / NODE_MM)))
        places.append(np.linspace(side.start, max(side.start + 1, side.stop - 1), count))
    nodes = np.stack(np.meshgrid(*places, indexing="ij"), axis=-1).reshape(-1, 3)
    voxels = to_voxels(registration(lattice.world(nodes)), atlas.affine).astype(np.float32)
    known = np.moveaxis(voxels.reshape(*map(len, places), 3), -1, 0)
    for axis in (3, 2):
        side, place = box[axis - 1], places[axis - 1]
        known = _between(known, place, np.arange(side.start, side.stop), axis)
    top = np.asarray(atlas.labels.shape) - 1
    labels = np.ascontiguousarray(atlas.labels)
    flat = labels.ravel()
    strides = np.asarray(labels.strides)
    for number in range(box[0].start, box[0].stop):
        here = np.rint(_between(known, places[0], np.array([number]), 1)[:, 0]).astype(np.intp)
        i, j, k = (np.clip(axis, 0, high) for axis, high in zip(here, top, strict=True))
        yield flat[i * strides[0] + j * strides[1] + k * strides[2]]


def _between(values: FloatArray, at: DoubleArray, wanted: npt.NDArray[np.intp], axis: int) -> FloatArray:
    """Values known at evenly spaced places along an axis, linear between them."""
    place = np.clip((wanted - at[0]) / (at[1] - at[0]), 0, len(at) - 1)
    low = np.minimum(place.astype(np.intp), len(at) - 2)
    share = (place - low).astype(np.float32).reshape([-1 if k == axis else 1 for k in range(values.ndim)])
    below = values.take(low, axis)
    return np.asarray(below + (values.take(low + 1, axis) - below) * share, np.float32)


def find_zones(
    volume: Volume, brain_mask: BoolArray, registration: Registration, contrast: Contrast
) -> dict[str, Zone]:
    """Zones of mimics on the image grid (see `bids_cmb.anatomy.structures.ZONES`), and ``edge``.

    ``pallidum`` counts where the other side's stands out as well: mineral is symmetrical, a microbleed is not. Where the
    registration failed, ``edge`` alone: it needs none, and no place is known for the others.
    """
    edge = {"edge": edge_zone(brain_mask, volume.zooms, EDGE_DEPTH_MM[contrast])}
    if registration.failed:
        return edge

    def strength(voxels: npt.NDArray[np.intp], number: int) -> FloatArray:
        world = apply_affine(volume.affine, voxels.astype(np.float64))
        atlas = load_zones()
        one = np.ascontiguousarray(atlas.zones[..., number : number + 1])
        return interpolate(one, to_voxels(registration(world), atlas.affine))[:, 0]

    def pallidum(voxels: npt.NDArray[np.intp]) -> FloatArray:
        strong = strength(voxels, list(ZONES).index("pallidum"))
        there = np.flatnonzero(strong)
        world = apply_affine(volume.affine, voxels[there].astype(np.float64))
        strong[there] *= symmetry(volume, world, registration, contrast)
        return strong

    zones: dict[str, Zone] = {name: partial(strength, number=k) for k, name in enumerate(ZONES)}
    return zones | {"pallidum": pallidum} | edge


def locate(
    image: Volume,
    brain_mask: BoolArray,
    contrast: Contrast,
    *,
    t1w: Volume | None = None,
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
    finer
        Whether ANTs refines it.

    Returns
    -------
    Anatomy
        Region map, world to MNI, zones, figures and warnings. With hardly any brain in the mask there are no regions
        and no zone but ``edge``, and a warning says so.
    """
    volume_ml = float(np.count_nonzero(brain_mask)) * image.voxel_volume / 1000.0
    if volume_ml < LEAST_BRAIN_ML:
        warning = (
            f"The brain mask holds only {volume_ml:.0f} ml of this {contrast} scan: no regions were assigned."
        )
        return Anatomy(
            np.zeros(image.data.shape, np.int32),
            np.full((4, 4), np.nan),
            {"edge": edge_zone(brain_mask, image.zooms, EDGE_DEPTH_MM[contrast])} if volume_ml else {},
            {"similarity": 0.0, "overlap": 0.0},
            (warning,),
        )
    registration = register(image, brain_mask, t1w=t1w, finer=finer)
    return Anatomy(
        mars=region_map(image, brain_mask, registration),
        world_to_mni=registration.world_to_mni,
        zones=find_zones(image, brain_mask, registration, contrast),
        quality=registration.quality,
        warnings=registration.warnings,
        registration=None if registration.failed else registration,
    )
