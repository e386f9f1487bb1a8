"""Heads drawn from parcellations: simple pictures of tissue on heads of other shapes, whose regions are known.

Heads come from two anatomies: the package's own atlas, and one subject's independent whole-brain parcellation (GIF),
labelled by the rules of MARS from its own structures. Every head is turned, scaled, sheared, bent by a random elastic
field of some millimetres, given larger or smaller ventricles and another contrast, a bias field, noise, signal loss
above the air spaces, an inexact brain mask, and, one in five, a field of view that cuts it to a slab. This is no physics.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from bids_cmb.anatomy.affine_fit import rotation
from bids_cmb.anatomy.rules import CODE_INDEX, Parcels, mars_codes
from bids_cmb.anatomy.structures import STRUCTURES
from bids_cmb.anatomy.template import load_mars, load_structures
from bids_cmb.types import Affine, Contrast, Volume

ZOOMS: dict[Contrast, tuple[tuple[float, float, float], ...]] = {
    "gre": ((0.9, 0.9, 4.0), (0.8, 0.8, 2.0), (0.9, 0.9, 5.0)),
    "swi": ((0.8, 0.8, 1.5), (0.8, 0.8, 3.0), (0.9, 0.9, 2.0)),
    "qsm": ((0.9, 0.9, 2.0), (1.0, 1.0, 1.0), (0.9, 0.9, 1.5)),
}
#: Brightness (GRE, SWI) or susceptibility (QSM, ppm) of each structure: middles of what is drawn.
TISSUE: dict[str, tuple[float, float, float]] = {
    "sulcal_csf": (1.15, 0.75, 0.0), "cortex": (0.95, 0.92, 0.025), "white_matter": (0.82, 0.95, -0.03),
    "lateral_ventricle": (1.2, 0.72, 0.0), "third_ventricle": (1.2, 0.72, 0.0), "fourth_ventricle": (1.2, 0.72, 0.0),
    "caudate": (0.82, 0.8, 0.06), "putamen": (0.76, 0.75, 0.08), "pallidum": (0.5, 0.5, 0.16),
    "thalamus": (0.82, 0.88, 0.01), "accumbens": (0.85, 0.85, 0.03), "hippocampus": (0.97, 0.92, 0.01),
    "amygdala": (0.97, 0.92, 0.02), "ventral_diencephalon": (0.78, 0.82, 0.02), "brainstem": (0.8, 0.88, -0.01),
    "cerebellar_cortex": (0.95, 0.9, 0.02), "cerebellar_white_matter": (0.8, 0.92, -0.02),
    "corpus_callosum": (0.76, 0.9, -0.05), "internal_capsule": (0.82, 0.92, -0.06), "red_nucleus": (0.55, 0.55, 0.12),
    "substantia_nigra": (0.5, 0.5, 0.15), "dentate": (0.6, 0.6, 0.1), "choroid_plexus": (0.8, 0.7, -0.05),
    "pineal": (0.7, 0.7, -0.2), "falx": (0.95, 0.7, 0.0), "tentorium": (0.95, 0.7, 0.0),
    "superior_sagittal_sinus": (0.6, 0.5, 0.25), "straight_sinus": (0.5, 0.4, 0.3), "transverse_sinus": (0.6, 0.5, 0.25),
}  # fmt: skip
#: Brightness of each structure on a T1w image.
T1W: dict[str, float] = {
    "sulcal_csf": 0.25, "cortex": 0.66, "white_matter": 1.0, "lateral_ventricle": 0.2, "third_ventricle": 0.2,
    "fourth_ventricle": 0.2, "caudate": 0.68, "putamen": 0.73, "pallidum": 0.88, "thalamus": 0.8, "accumbens": 0.68,
    "hippocampus": 0.66, "amygdala": 0.66, "ventral_diencephalon": 0.85, "brainstem": 0.92, "cerebellar_cortex": 0.66,
    "cerebellar_white_matter": 0.98, "corpus_callosum": 1.02, "internal_capsule": 0.97, "red_nucleus": 0.85,
    "substantia_nigra": 0.8, "dentate": 0.85, "choroid_plexus": 0.45, "pineal": 0.5, "falx": 0.35, "tentorium": 0.35,
    "superior_sagittal_sinus": 0.3, "straight_sinus": 0.3, "transverse_sinus": 0.3,
}  # fmt: skip
#: GIF numbers of structures and lobes: pairs are right and left.
GIF_STRUCTURES = {
    "white_matter": (*range(81, 87), *range(89, 95), 64, 65, 66, 67, 96, 97, 43), "corpus_callosum": (87,),
    "third_ventricle": (5, 16, 47), "fourth_ventricle": (12,), "lateral_ventricle": (50, 51, 52, 53),
    "caudate": (37, 38), "putamen": (58, 59), "accumbens": (24, 31), "pallidum": (56, 57), "thalamus": (60, 61),
    "hippocampus": (48, 49), "amygdala": (32, 33), "brainstem": (35, 36), "ventral_diencephalon": (62, 63, 70, 76, 77),
    "cerebellar_cortex": (39, 40, 72, 73, 74), "cerebellar_white_matter": (41, 42), "sulcal_csf": (4,),
}  # fmt: skip
GIF_LOBES = {
    "F": (
        101,
        105,
        113,
        119,
        121,
        125,
        137,
        139,
        141,
        143,
        147,
        151,
        153,
        163,
        165,
        179,
        183,
        187,
        191,
        193,
        205,
    ),
    "P": (107, 149, 167, 169, 175, 177, 195, 199),
    "T": (117, 123, 133, 155, 171, 181, 185, 201, 203, 207),
    "O": (109, 115, 129, 135, 145, 157, 161, 197),
    "I": (103, 173),
}  # the right one; the left is one more


@dataclass(frozen=True)
class Source:
    """An anatomy: structures and MARS labels on one grid."""

    name: str
    structures: npt.NDArray[np.uint8]
    mars: npt.NDArray[np.uint8]
    affine: Affine


@dataclass(frozen=True)
class Head:
    """A drawn scan with its true regions and structures, the corner of the whole grid (mm), and a T1w image."""

    image: Volume
    mask: npt.NDArray[np.bool_]
    mars: npt.NDArray[np.uint8]
    structures: npt.NDArray[np.uint8]
    corner: npt.NDArray[np.float64]
    t1w: Volume | None = None


def template_source() -> Source:
    """The package's own atlas."""
    return Source("template", load_structures().labels, load_mars().labels, load_mars().affine)


def gif_source(path: Path) -> Source:
    """One subject's GIF parcellation, labelled by the rules of MARS."""
    import nibabel as nib

    image = nib.as_closest_canonical(nib.load(path))
    gif = np.asarray(image.dataobj).astype(np.int16)
    gif[gif < 4] = 0  # outside the brain

    def of(*numbers: int) -> npt.NDArray[np.bool_]:
        return np.isin(gif, numbers)

    structures = np.where(gif > 0, STRUCTURES["sulcal_csf"], 0).astype(np.uint8)
    cortex = np.zeros(gif.shape, np.uint8)
    right, left = np.zeros(gif.shape, bool), np.zeros(gif.shape, bool)
    for code, numbers in GIF_LOBES.items():
        cortex[of(*numbers, *(n + 1 for n in numbers))] = CODE_INDEX[code]
        right |= of(*numbers)
        left |= of(*(n + 1 for n in numbers))
    structures[cortex > 0] = STRUCTURES["cortex"]
    for name, numbers in GIF_STRUCTURES.items():
        structures[of(*numbers)] = STRUCTURES[name]
    cortex[of(32, 33, 48, 49)] = CODE_INDEX["T"]
    right |= of(*range(81, 87), 37, 39, 41, 48, 52, 56, 58, 60, 62)
    left |= of(*range(89, 95), 38, 40, 42, 49, 53, 57, 59, 61, 63)
    on_left = ndimage.distance_transform_edt(~left) < ndimage.distance_transform_edt(~right)
    callosum = of(87)
    across = np.abs(np.arange(gif.shape[0]) - np.argwhere(callosum)[:, 0].mean())[:, None, None]
    parcels = Parcels(
        brain=gif > 0, left=on_left, cortex=cortex, white_matter=of(*GIF_STRUCTURES["white_matter"], 87),
        caudate=of(37, 38), striatum=of(58, 59, 24, 31), pallidum=of(56, 57), thalamus=of(60, 61),
        callosum_core=callosum & (across <= 5), lateral_ventricle=of(52, 53), brainstem=of(35, 36),
        cerebellum=of(39, 40, 41, 42, 72, 73, 74), ventral_diencephalon=of(62, 63),
    )  # fmt: skip
    codes = mars_codes(parcels)
    mars = np.where((codes > 0) & ~on_left, codes + 100, codes).astype(np.uint8)
    return Source("GIF subject", structures, mars, np.asarray(image.affine, np.float64))


def smooth_field(
    rng: np.random.Generator, shape: tuple[int, ...], spacing: float, length: float
) -> npt.NDArray:
    """A random field of unit variance whose values stay alike over a length, mm."""
    coarse = [int(np.ceil(n * spacing / (length / 3))) + 4 for n in shape]
    noise = ndimage.gaussian_filter(rng.standard_normal(coarse), 2.0, mode="reflect")
    places = [np.arange(n) * spacing / (length / 3) + 1.5 for n in shape]
    out = noise / noise.std()
    for axis, place in enumerate(places):
        low = np.minimum(place.astype(int), out.shape[axis] - 2)
        share = (place - low).reshape([-1 if k == axis else 1 for k in range(3)])
        out = out.take(low, axis) * (1 - share) + out.take(low + 1, axis) * share
    return out.astype(np.float32)


def make_head(source: Source, contrast: Contrast, rng: np.random.Generator) -> Head:
    """Bend an anatomy into a new head on a 1 mm grid, then draw it on an acquired grid."""
    turn = rotation(rng.uniform(-1, 1, 3) * np.radians([20, 8, 12]))
    size = 0.07 if source.name == "template" else -0.03
    linear = turn @ np.diag(np.exp(rng.normal(size, 0.05, 3)))
    linear = linear @ (np.eye(3) + np.triu(rng.normal(0, 0.03, (3, 3)), 1))
    centre = np.array([np.mean(axis) for axis in np.nonzero(source.mars)])
    half = np.array([88, 106, 92])
    shape = tuple(2 * half)
    grid = np.indices(shape, np.float32).reshape(3, -1) - half[:, None]
    to_voxel = (linear @ grid).astype(np.float32).reshape(3, *shape) + centre[:, None, None, None].astype(
        np.float32
    )
    for axis in range(3):
        to_voxel[axis] += 4.0 * smooth_field(rng, shape, 1.0, 30.0)
    ventricles = np.isin(source.structures, [STRUCTURES["lateral_ventricle"], STRUCTURES["choroid_plexus"]])
    blurred = ndimage.gaussian_filter(ventricles.astype(np.float32), 7.0)
    pull = [np.asarray(g) for g in np.gradient(blurred)]
    strength = rng.uniform(-1, 6) / max(float(np.max(np.abs(g))) for g in pull)
    shifts = [strength * ndimage.map_coordinates(g, to_voxel, order=1) for g in pull]
    to_voxel += np.stack(shifts)
    structures = ndimage.map_coordinates(source.structures, to_voxel, order=0)
    mars = ndimage.map_coordinates(source.mars, to_voxel, order=0)
    if source.affine[0, 0] < 0:
        raise ValueError("sources are RAS+")
    apart = np.random.default_rng(rng.bit_generator.seed_seq.spawn(1)[0])  # type: ignore[attr-defined]
    head = acquire(structures, mars, contrast, rng)
    # The corner of the drawn grid lies where that of the scan's grid does, of a slab too.
    return replace(head, t1w=draw_t1w(structures, head.corner, apart))


def draw_t1w(
    structures: npt.NDArray[np.uint8], corner: npt.NDArray[np.float64], rng: np.random.Generator
) -> Volume:
    """Draw a 1 mm anatomy as a stripped T1w image of its own, after the subject moved by a few millimetres and degrees."""
    table = np.zeros(256, np.float32)
    for name, value in T1W.items():
        table[STRUCTURES[name]] = value * rng.normal(1, 0.03)
    picture = ndimage.gaussian_filter(table[structures], 0.5)
    brain = picture > 0.1
    picture *= np.exp(0.1 * smooth_field(rng, structures.shape, 1.0, 60.0))
    noisy = picture + 0.04 * rng.standard_normal(structures.shape)
    affine = np.eye(4)
    affine[:3, 3] = corner
    moved = np.eye(4)
    moved[:3, :3] = rotation(rng.normal(0, np.radians(3.0), 3))
    moved[:3, 3] = rng.normal(0, 3.0, 3)
    return Volume(np.where(brain, noisy, 0).astype(np.float32), moved @ affine)


def acquire(
    structures: npt.NDArray[np.uint8],
    mars: npt.NDArray[np.uint8],
    contrast: Contrast,
    rng: np.random.Generator,
) -> Head:
    """Draw a 1 mm anatomy as a scan of some contrast on a grid of its own."""
    column = ("gre", "swi", "qsm").index(contrast)
    table = np.zeros(256, np.float32)
    for name, values in TISSUE.items():
        value = values[column]
        table[STRUCTURES[name]] = (
            value * rng.normal(1, 0.06) if contrast != "qsm" else value * rng.normal(1, 0.3)
        )
    if contrast == "swi":
        fluid = rng.uniform(0.65, 1.1)
        table[[1, 4, 5, 6]] = fluid
    picture = ndimage.gaussian_filter(table[structures], 0.5)
    air = np.isin(structures, [STRUCTURES[f"{name}_air"] for name in ("sphenoid_ethmoid", "petrous_mastoid")])
    if contrast != "qsm" and air.any():
        near = ndimage.distance_transform_edt(~air)
        picture = picture * (1 - rng.uniform(0.3, 0.95) * np.exp(-((near / 9.0) ** 2)))
    zooms = ZOOMS[contrast][rng.integers(3)]
    thick = max(1, round(zooms[2]))
    picture = ndimage.uniform_filter1d(picture, thick, axis=2)
    brain = mars > 0
    signed = ndimage.distance_transform_edt(brain) - ndimage.distance_transform_edt(~brain)
    signed += 1.5 * smooth_field(rng, brain.shape, 1.0, 25.0)
    rim = rng.uniform(1, 4) if contrast == "qsm" else rng.uniform(-1, 2)
    counts = tuple(int(n / zoom) for n, zoom in zip(brain.shape, zooms, strict=True))
    place = np.meshgrid(
        *[np.arange(n, dtype=np.float32) * z for n, z in zip(counts, zooms, strict=True)], indexing="ij"
    )
    image = ndimage.map_coordinates(picture, place, order=1)
    mask = ndimage.map_coordinates(signed.astype(np.float32), place, order=1) > rim
    true_mars = ndimage.map_coordinates(mars, place, order=0)
    true_structures = ndimage.map_coordinates(structures, place, order=0)
    noise = rng.standard_normal(counts).astype(np.float32)
    if contrast == "qsm":
        image = image + 0.03 * noise + 0.02 * smooth_field(rng, counts, 1.0, 20.0)
        image = np.where(mask, image, 0)
    else:
        image = image * np.exp(0.15 * smooth_field(rng, counts, 1.0, 60.0)) + 0.05 * noise
    affine = np.diag([*zooms, 1.0])
    affine[:3, 3] = rng.uniform(-20, 20, 3) - np.asarray(brain.shape) / 2
    head = Head(
        Volume(image.astype(np.float32), affine), mask, true_mars, true_structures, affine[:3, 3].copy()
    )
    return cut_to_slab(head, rng) if rng.random() < 0.2 else head


def cut_to_slab(head: Head, rng: np.random.Generator) -> Head:
    """Keep 60 to 90 mm of the height of the head."""
    slices = np.flatnonzero(head.mask.any(axis=(0, 1)))
    keep = min(len(slices), int(rng.uniform(60, 90) / head.image.zooms[2]))
    start = slices[0] + int(rng.uniform(0.2, 0.8) * (len(slices) - keep))
    part = np.s_[:, :, start : start + keep]
    affine = head.image.affine.copy()
    affine[:3, 3] += affine[:3, 2] * start
    image = Volume(np.ascontiguousarray(head.image.data[part]), affine)
    return Head(
        image, head.mask[part].copy(), head.mars[part].copy(), head.structures[part].copy(), head.corner
    )
