"""Where a scan lies in MNI space: robust starts, an affine fit, and a smooth deformation on top.

The default needs no other package, takes a few seconds on one core, and gives the same bytes whatever the number
of threads. `bids_cmb.anatomy.ants_steps` holds the finer deformable choice and the rigid step to a T1w image.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from scipy import ndimage

from bids_cmb.anatomy.affine_fit import PRIOR_MEAN, Fit, Pose, evaluate, refine
from bids_cmb.anatomy.deform import Deformation, deform
from bids_cmb.anatomy.sampling import DoubleArray, Sample, take_sample
from bids_cmb.anatomy.template import Template, load_template
from bids_cmb.types import Affine, BoolArray, FloatArray, Volume

#: Spacing of the samples for the search of a start and for the fit, mm.
COARSE_MM, FINE_MM = 6.0, 3.0
#: Points that the fits look at, at most.
COARSE_POINTS, FINE_POINTS = 3500, 22000
#: A brain less tall than this is a slab whose height in the head is unknown, mm.
SLAB_MM = 105.0
#: A reversed axis is believed when it explains this much more of the intensities.
FLIP_MARGIN = 0.04


@dataclass(frozen=True)
class Registration:
    """World to MNI, with figures of how good it is.

    Attributes
    ----------
    world_to_mni
        4x4 affine, mm.
    deformation
        Smooth displacement after the affine; None leaves it at the affine.
    flip
        Signs of the world axes that the header has right (1) or reversed (-1).
    quality
        Figures by name.
    """

    world_to_mni: Affine
    deformation: Deformation | None
    flip: tuple[int, int, int]
    quality: dict[str, float] = field(default_factory=dict)

    def __call__(self, points: DoubleArray) -> DoubleArray:
        """World points (n, 3) to MNI, mm."""
        from bids_cmb.anatomy.sampling import apply_matrix

        mapped = apply_matrix(self.world_to_mni[:3, :3], points) + self.world_to_mni[:3, 3]
        return mapped if self.deformation is None else self.deformation(mapped)


@lru_cache(maxsize=1)
def coarse_template() -> Template:
    """The template blurred and thinned to the spacing of the search."""
    fine = load_template()
    classes = ndimage.gaussian_filter(fine.classes, (0.9, 0.9, 0.9, 0))[::2, ::2, ::2]
    depth = ndimage.gaussian_filter(fine.depth, 0.9)[::2, ::2, ::2]
    affine = fine.affine.copy()
    affine[:3, :3] *= 2
    return Template(np.ascontiguousarray(classes), np.ascontiguousarray(depth), affine)


def brain_centre(template: Template) -> DoubleArray:
    """Centroid of the template's brain, mm."""
    share = template.classes.sum(axis=-1)
    index = [np.arange(n, dtype=np.float64) for n in share.shape]
    total = float(share.sum(dtype=np.float64))
    other = [(1, 2), (0, 2), (0, 1)]
    middle = [float(np.sum(share.sum(axis=other[k], dtype=np.float64) * index[k])) / total for k in range(3)]
    return np.asarray(middle) * template.spacing + template.affine[:3, 3]


def starts(sample: Sample, template: Template) -> Iterator[Pose]:
    """Poses to search from: header or reversed axes, three pitches, and heights if the scan is a slab.

    Left and right are never exchanged: the brain looks the same either way, so nothing could tell.
    """
    centre = sample.centre
    brain = sample.points[sample.inside > 0.5]
    height = float(np.ptp(brain[:, 2])) if len(brain) else 0.0
    target = brain_centre(template)
    lifts = [0.0]
    if height < SLAB_MM:
        room = max(0.0, 130.0 - 1.07 * height) / 2
        steps = max(1, round(room / 14.0))
        lifts = [room * k / steps for k in range(-steps, steps + 1)]
    for flip in ((1, 1, 1), (1, -1, 1), (1, 1, -1), (1, -1, -1)):
        for pitch in (0.0, -0.35, 0.35):
            for lift in lifts:
                parameters = PRIOR_MEAN.copy()
                parameters[:3] = target + np.array([0, 0, lift])
                parameters[3] = pitch
                yield Pose(parameters, flip, centre)


def search(sample: Sample, template: Template) -> Fit:
    """Best coarse fit over all starts.

    Every start is judged as it stands, the better ones are improved a little and the best of them further.

    Parameters
    ----------
    sample
        The scan, thinned.
    template
        The coarse template.

    Returns
    -------
    Fit
        The best fit; a reversed axis only if it explains clearly more (`FLIP_MARGIN`).
    """
    by_flip: dict[tuple[int, int, int], list[Fit]] = {}
    for pose in starts(sample, template):
        fit, _ = evaluate(sample, template, pose)
        by_flip.setdefault(pose.flip, []).append(fit)
    best: list[Fit] = []
    for fits in by_flip.values():
        fits.sort(key=lambda fit: fit.cost)
        tried = [refine(sample, template, fit.pose, iterations=5) for fit in fits[:3]]
        first = min(tried, key=lambda fit: fit.cost)
        best.append(refine(sample, template, first.pose, iterations=12))
    header = best[0]
    winner = min(best, key=lambda fit: fit.cost)
    return winner if winner.similarity > header.similarity + FLIP_MARGIN else header


def register(
    volume: Volume,
    brain_mask: BoolArray,
    *,
    extra: FloatArray | None = None,
    deformable: bool = True,
) -> Registration:
    """Find where a scan lies in MNI space.

    Parameters
    ----------
    volume
        The scan, any contrast.
    brain_mask
        Its brain voxels.
    extra
        A second image on the same grid to fit along (NaN where it has no value), such as a T1w.
    deformable
        Whether a smooth deformation follows the affine.

    Returns
    -------
    Registration
        The map and its figures.
    """
    template = load_template()
    fine = take_sample(volume, brain_mask, spacing_mm=FINE_MM, extra=extra)
    coarse = take_sample(volume, brain_mask, spacing_mm=COARSE_MM, extra=extra).thinned(COARSE_POINTS)
    found = search(coarse, coarse_template())
    fit = refine(fine.thinned(FINE_POINTS), template, found.pose, iterations=12)
    warp = deform(fine, template, fit) if deformable else None
    quality = {"similarity": fit.similarity, "overlap": fit.overlap, "rim_mm": float(fit.pose.parameters[12])}
    if warp is not None:
        quality |= {"similarity_deformed": warp.similarity, "overlap_deformed": warp.overlap}
    return Registration(fit.pose.matrix, None if warp is None else warp.deformation, fit.pose.flip, quality)
