"""From a whole-brain parcellation to the thirteen regions of MARS, by rule.

The rules know nothing of label numbers: they take masks of structures and return regions, so that the atlas and the
independent heads of the benchmark are labelled by one definition. The scale is that of Gregoire et al. 2009
(Neurology 73:1759); it names the regions but gives no millimetres, so the choices are ours. ``docs/mars_atlas.md``
lists them with their reasons.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.morphology import convex_hull_image

from bids_cmb.types import MARS_REGIONS, BoolArray, FloatArray

CodeArray = npt.NDArray[np.uint8]

#: Region code -> 1..13.
CODE_INDEX = {region[0]: k + 1 for k, region in enumerate(MARS_REGIONS)}

#: White matter this near a lateral ventricle is periventricular, mm.
PERIVENTRICULAR_MM = 10.0
#: Pieces smaller than these are faults of a parcellation: of a ventricle, they make nothing periventricular; of deep grey
#: matter, no internal capsule. mm3 on a grid of 1 mm.
LEAST_VENTRICLE_MM3, LEAST_NUCLEUS_MM3 = 20, 100
#: White matter at least this far from the cortical ribbon is deep: beyond the U-fibres, mm.
SUBCORTICAL_MM = 4.0
#: Half width of the callosum on either side of the midline, mm.
CALLOSUM_HALF_WIDTH_MM = 15.0
#: White matter between putamen and insula: the two distances add up to no more than this, mm.
EXTERNAL_CAPSULE_GAP_MM = 11.0


@dataclass(frozen=True)
class Parcels:
    """Masks of one head on one isotropic RAS+ grid.

    Attributes
    ----------
    brain
        Everything inside the skull's inner surface.
    left
        The left half of the grid (any surface that parts the hemispheres).
    cortex
        Lobe of each cortical voxel as 1..13 (hippocampus and amygdala count as temporal), 0 elsewhere.
    white_matter
        Cerebral white matter, without brainstem and cerebellum.
    striatum, pallidum, thalamus, caudate
        Deep grey matter; ``striatum`` holds putamen and accumbens.
    callosum_core
        The callosum near the midline.
    lateral_ventricle
        Bodies, frontal and occipital horns and atria, with their plexus. Not the temporal horns with theirs: what lies
        around them is temporal lobe.
    brainstem, cerebellum, ventral_diencephalon
        As named.
    voxel_mm
        Edge of a voxel. On a template whose brain is larger than usual, what an edge measures in a usual head.
    """

    brain: BoolArray
    left: BoolArray
    cortex: CodeArray
    white_matter: BoolArray
    caudate: BoolArray
    striatum: BoolArray
    pallidum: BoolArray
    thalamus: BoolArray
    callosum_core: BoolArray
    lateral_ventricle: BoolArray
    brainstem: BoolArray
    cerebellum: BoolArray
    ventral_diencephalon: BoolArray
    voxel_mm: float = 1.0

    def distance_to(self, mask: BoolArray) -> FloatArray:
        """Distance to the nearest voxel of a mask, mm; infinite where the mask is empty."""
        return distance_to(mask) * np.float32(self.voxel_mm)


def distance_to(mask: BoolArray) -> FloatArray:
    """Distance to the nearest voxel of a mask, voxels; infinite where the mask is empty."""
    if not mask.any():
        return np.full(mask.shape, np.inf, np.float32)
    return np.asarray(ndimage.distance_transform_edt(~mask), np.float32)


def grow_labels(labels: CodeArray, into: BoolArray) -> CodeArray:
    """Give every voxel of ``into`` that has no label the label nearest to it."""
    if not labels.any():
        return labels
    nearest = ndimage.distance_transform_edt(labels == 0, return_distances=False, return_indices=True)
    return np.where(into & (labels == 0), labels[tuple(nearest)], labels).astype(np.uint8)


def without_specks(mask: BoolArray, least: int) -> BoolArray:
    """A mask without the pieces of fewer voxels than `least`."""
    pieces, _ = ndimage.label(mask, np.ones((3, 3, 3)))
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    return np.asarray((sizes >= least)[pieces], bool)


def internal_capsule(parcels: Parcels, side: BoolArray) -> BoolArray:
    """White matter between the lentiform nucleus laterally and caudate and thalamus medially, on one side.

    In every axial slice that shows the lentiform nucleus: the white matter inside the convex hull of the deep grey
    matter. That holds both limbs, the genu and the retrolentiform part.

    Parameters
    ----------
    parcels
        Masks of the head.
    side
        Half of the grid.

    Returns
    -------
    ndarray
        bool, shape of the grid.
    """
    lentiform = (parcels.striatum | parcels.pallidum) & side
    # One voxel far off would stretch the hull.
    grey = without_specks(lentiform | ((parcels.caudate | parcels.thalamus) & side), LEAST_NUCLEUS_MM3)
    capsule = np.zeros_like(grey)
    for k in range(grey.shape[2]):
        if np.count_nonzero(lentiform[:, :, k]) < 40:
            continue
        capsule[:, :, k] = convex_hull_image(grey[:, :, k])
    return capsule & parcels.white_matter & side


def external_capsule(parcels: Parcels) -> BoolArray:
    """White matter (with claustrum and extreme capsule, which no microbleed image parts) from putamen to insula."""
    insula = parcels.cortex == CODE_INDEX["I"]
    gap = parcels.distance_to(parcels.striatum) + parcels.distance_to(insula)
    return parcels.white_matter & (gap <= EXTERNAL_CAPSULE_GAP_MM)


def corpus_callosum(parcels: Parcels) -> BoolArray:
    """The callosum out to a fixed width on either side of the midline.

    The outline near the midline is carried sideways and widened a little, as the radiation fans out.
    """
    core = parcels.callosum_core
    if not core.any():
        return core.copy()
    outline = np.asarray(core.any(axis=0), bool)
    sagittal = parcels.distance_to(outline)[None]
    midline = float(np.nonzero(core)[0].mean())
    lateral = np.abs(np.arange(core.shape[0], dtype=np.float32) - midline)[:, None, None] * parcels.voxel_mm
    reach = (lateral <= CALLOSUM_HALF_WIDTH_MM) & (sagittal <= 0.5 + 0.12 * lateral)
    return core | (parcels.white_matter & reach)


def deep_white_matter(parcels: Parcels) -> BoolArray:
    """White matter near a lateral ventricle, or beyond the subcortical fibres."""
    near = (
        parcels.distance_to(without_specks(parcels.lateral_ventricle, LEAST_VENTRICLE_MM3))
        <= PERIVENTRICULAR_MM
    )
    depth = parcels.distance_to(parcels.cortex > 0)
    # Blades of white matter deeper than the limit come and go with the folds: smooth the limit, not the labels.
    deep = ndimage.gaussian_filter(depth, 1.5) >= SUBCORTICAL_MM
    return parcels.white_matter & (near | deep)


def mars_codes(parcels: Parcels) -> CodeArray:
    """Label a head with the regions of MARS, sides apart from the labels.

    Parameters
    ----------
    parcels
        Masks of the head.

    Returns
    -------
    ndarray
        uint8, 1..13 in the order of `bids_cmb.types.MARS_REGIONS` for every voxel of ``parcels.brain``, 0 outside.
    """
    index = CODE_INDEX
    codes = np.zeros(parcels.brain.shape, np.uint8)
    for side in (parcels.left, ~parcels.left):
        lobes = grow_labels(np.where(side, parcels.cortex, 0).astype(np.uint8), parcels.white_matter & side)
        codes = np.where(side, lobes, codes).astype(np.uint8)
    codes[deep_white_matter(parcels)] = index["DPWM"]
    codes[external_capsule(parcels)] = index["Ec"]
    for side in (parcels.left, ~parcels.left):
        codes[internal_capsule(parcels, side)] = index["Ic"]
    codes[corpus_callosum(parcels)] = index["Cc"]
    codes[parcels.cortex > 0] = parcels.cortex[parcels.cortex > 0]
    codes[parcels.caudate | parcels.striatum | parcels.pallidum] = index["Bg"]
    codes[parcels.thalamus] = index["Th"]
    codes[parcels.cerebellum] = index["C"]
    codes[parcels.brainstem] = index["B"]
    # Hypothalamus and subthalamus go with the thalamus, the midbrain's share with the brainstem.
    nearer_stem = distance_to(parcels.brainstem) < distance_to(parcels.thalamus)
    codes[parcels.ventral_diencephalon] = np.where(
        nearer_stem[parcels.ventral_diencephalon], index["B"], index["Th"]
    )
    filled = np.zeros_like(codes)
    for side in (parcels.left, ~parcels.left):
        grown = grow_labels(np.where(side, codes, 0).astype(np.uint8), parcels.brain & side)
        filled = np.where(side & parcels.brain, grown, filled).astype(np.uint8)
    return filled


def smooth_codes(codes: CodeArray, *, sigma_mm: float, mirror: bool) -> CodeArray:
    """Smooth a label map by the vote of blurred regions, inside its own outline.

    Parameters
    ----------
    codes
        uint8 labels, 0 outside.
    sigma_mm
        Standard deviation of the Gaussian, voxels of 1 mm.
    mirror
        Average with the left-right mirror image (the grid must be symmetric about the midsagittal plane).

    Returns
    -------
    ndarray
        uint8, same support.
    """
    best = np.zeros(codes.shape, np.float32)
    winner = np.zeros_like(codes)
    for code in np.unique(codes[codes > 0]):
        share = ndimage.gaussian_filter((codes == code).astype(np.float32), sigma_mm)
        if mirror:
            share = share + share[::-1]
        wins = share > best
        best[wins] = share[wins]
        winner[wins] = code
    return np.where(codes > 0, winner, 0).astype(np.uint8)
