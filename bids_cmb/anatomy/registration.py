"""Where a scan lies in MNI space: robust starts, an affine fit, and a smooth deformation on top.

By default it needs no other package, takes a few seconds on one core, and gives the same bytes whatever the number
of threads; ANTs refines it where asked to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial

import numpy as np
from scipy import ndimage

from bids_cmb.anatomy import rigid
from bids_cmb.anatomy.affine_fit import PRIOR_MEAN, Fit, Look, Pose, evaluate, refine
from bids_cmb.anatomy.deform import Deformation, Deformed, deform
from bids_cmb.anatomy.sampling import DoubleArray, Sample, apply_affine, take_sample, undo_affine
from bids_cmb.anatomy.shading import without_shading
from bids_cmb.anatomy.syn import deform_with_ants
from bids_cmb.anatomy.template import Template, load_template
from bids_cmb.types import Affine, BoolArray, FloatArray, Volume

#: Spacing of the samples for the search of a start and for the fit, mm.
COARSE_MM, FINE_MM = 6.0, 3.0
#: Points that the fits look at, at most.
COARSE_POINTS, FINE_POINTS = 3500, 22000
#: A brain less tall than this is a slab whose height in the head is unknown, mm.
SLAB_MM = 105.0
#: Starts of each orientation that are improved a little: the better ones, and more of them where the height is unknown.
TRIED, TRIED_OF_SLAB = 3, 8
#: An edge of the head is scaled no further from the usual than this, logarithm.
MOST_SCALED = 0.25
#: A reversed axis is believed when it costs this much less and explains this much more of the intensities.
FLIP_GAIN = 60.0
FLIP_SIMILARITY = 0.02
#: Bounds below which a fit is not believed; ``docs/mars_atlas.md`` says how they were learnt.
LEAST_SIMILARITY = 0.05
LEAST_OVERLAP = 0.86
#: A deformation that folds space more than this, or moves further, is not believed (smallest Jacobian, mm).
LEAST_JACOBIAN = 0.15
LARGEST_SHIFT_MM = 25.0
#: Value of the figure ``fallback`` where no fit was believed.
_FAILED = 2.0
#: The finer registration is taken unless it explains less than this share below the fast one.
NO_WORSE = 0.01


@dataclass(frozen=True)
class Registration:
    """World to MNI, with figures of how good it is.

    Attributes
    ----------
    world_to_mni
        4x4 affine, mm.
    deformation
        Smooth displacement after the affine; None leaves it at the affine.
    quality
        Figures by name; ``fallback`` is 1 where only the affine is believed, 2 where that is not believed either.
    warnings
        Sentences for the user.
    """

    world_to_mni: Affine
    deformation: Deformation | None = None
    quality: dict[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def failed(self) -> bool:
        """Whether nothing but the position of the head is known."""
        return self.quality.get("fallback") == _FAILED

    def __call__(self, points: DoubleArray) -> DoubleArray:
        """World points (n, 3) to MNI, mm."""
        mapped = apply_affine(self.world_to_mni, points)
        return mapped if self.deformation is None else self.deformation(mapped)

    def back(self, points: DoubleArray) -> DoubleArray:
        """MNI points (n, 3) to world, mm."""
        before = points if self.deformation is None else self.deformation.undone(points)
        return undo_affine(self.world_to_mni, before)


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


def height_of(sample: Sample) -> float:
    """How tall the brain in a sample is, mm."""
    brain = sample.points[sample.inside > 0.5]
    return float(np.ptp(brain[:, 2])) if len(brain) else 0.0


def starts(sample: Sample, template: Template) -> Iterator[Pose]:
    """Poses to search from: header or reversed axes and three pitches; of a slab, heights instead of reversed axes.

    Left and right are never exchanged: the brain looks the same either way, so nothing could tell. Nor are the axes of
    a slab reversed: some other part of the head, upside down, explains it as well as its own too often.
    """
    centre = sample.centre
    height = height_of(sample)
    target = brain_centre(template)
    lifts, flips = [0.0], [(1, 1, 1), (1, -1, 1), (1, 1, -1), (1, -1, -1)]
    if height < SLAB_MM:
        room = max(0.0, 130.0 - 1.07 * height) / 2
        steps = max(1, round(room / 14.0))
        lifts, flips = [room * k / steps for k in range(-steps, steps + 1)], flips[:1]
    for flip in flips:
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
        The best fit; a reversed axis only if it explains clearly more (`FLIP_GAIN`).
    """
    count = TRIED_OF_SLAB if height_of(sample) < SLAB_MM else TRIED
    by_flip: dict[tuple[int, int, int], list[Fit]] = {}
    for pose in starts(sample, template):
        fit, _ = evaluate(sample, template, pose)
        by_flip.setdefault(pose.flip, []).append(fit)
    best: list[Fit] = []
    for fits in by_flip.values():
        fits.sort(key=lambda fit: fit.cost)
        tried = [refine(sample, template, fit.pose, iterations=5) for fit in fits[:count]]
        first = min(tried, key=lambda fit: fit.cost)
        best.append(refine(sample, template, first.pose, iterations=12))
    header = best[0]
    winner = min(best, key=lambda fit: fit.cost)
    cheaper = winner.cost < header.cost - FLIP_GAIN
    return winner if cheaper and winner.similarity > header.similarity + FLIP_SIMILARITY else header


def tissue_shares(sample: Sample, template: Template, registration: Registration) -> FloatArray:
    """Shares of tissue and surround (k + 1, n) at the points of a sample."""
    return Look.at(template, registration(sample.points)).shares


def register(
    volume: Volume,
    brain_mask: BoolArray,
    *,
    t1w: Volume | None = None,
    finer: bool = False,
) -> Registration:
    """Find where a scan lies in MNI space.

    Parameters
    ----------
    volume
        The scan, any contrast.
    brain_mask
        Its brain voxels, same shape; not empty.
    t1w
        A T1w image of the same session, whole head or stripped: it is brought to the scan rigidly and fitted along
        with it.
    finer
        Whether ANTs then fits a finer deformation, taken if it explains the scan no worse.

    Returns
    -------
    Registration
        The map, its figures and what to tell the user.
    """
    template = load_template()
    fine = take_sample(volume, brain_mask, spacing_mm=FINE_MM)
    coarse = take_sample(volume, brain_mask, spacing_mm=COARSE_MM).thinned(COARSE_POINTS)
    found = search(coarse, coarse_template())
    fit = _fitted(fine, template, found.pose)
    warnings: list[str] = []
    with_t1w = False
    if t1w is not None and believable(fit):
        first = _finish(fine, template, fit)
        aligned = rigid.align(t1w, fine.points, tissue_shares(fine, template, first), fine.inside)
        if aligned.similarity >= rigid.LEAST_SIMILARITY:
            extra = rigid.resample(t1w, volume, aligned.matrix)
            both = take_sample(volume, brain_mask, spacing_mm=FINE_MM, extra=extra)
            joint = _fitted(both, template, fit.pose)
            with_t1w = believable(joint)
        if with_t1w:
            fine, fit = both, joint
        else:
            warnings.append(
                "The T1w image could not be brought to the scan and was not used to place regions."
            )
    if believable(fit):
        fine = without_shading(fine, template, fit)
        fit = _fitted(fine, template, fit.pose)
    if not believable(fit):
        return by_moments(fine, template, fit)
    refined = partial(deform_with_ants, volume, brain_mask) if finer else None
    done = _finish(fine, template, fit, refined=refined)
    used = {} if t1w is None else {"t1w_used": float(with_t1w)}
    return replace(done, quality=done.quality | used, warnings=(*warnings, *done.warnings))


def _fitted(sample: Sample, template: Template, pose: Pose) -> Fit:
    """The affine fit at full resolution, from a pose on."""
    return refine(sample.thinned(FINE_POINTS), template, pose, iterations=12)


def believable(fit: Fit) -> bool:
    """Whether an affine fit is within the bounds of good ones."""
    scales = fit.pose.parameters[6:9]
    sane = bool(np.all(np.abs(scales - PRIOR_MEAN[6:9]) < MOST_SCALED))
    return sane and fit.similarity >= LEAST_SIMILARITY and fit.overlap >= LEAST_OVERLAP


def by_moments(sample: Sample, template: Template, failed: Fit) -> Registration:
    """The last resort: the centre of the mask on the centre of the brain, usual size, axes as in the header."""
    parameters = PRIOR_MEAN.copy()
    parameters[:3] = brain_centre(template)
    fit, _ = evaluate(sample, template, Pose(parameters, (1, 1, 1), sample.centre))
    quality = {"similarity": failed.similarity, "overlap": failed.overlap, "fallback": _FAILED}
    warning = (
        "Registration to MNI failed (similarity "
        f"{failed.similarity:.2f}, overlap {failed.overlap:.2f}): regions come from the head's position alone; "
        "check the brain mask and do not rely on them."
    )
    return Registration(fit.pose.matrix, None, quality, (warning,))


def _finish(
    sample: Sample,
    template: Template,
    fit: Fit,
    refined: Callable[[Sample, Template, Fit, Deformed], Deformed] | None = None,
) -> Registration:
    """Affine, deformation where it can be believed, figures and warnings."""
    quality = {
        "similarity": fit.similarity, "overlap": fit.overlap, "mask_rim": float(fit.pose.parameters[12]),
        "fallback": 0.0,
    }  # fmt: skip
    warnings = list(_flip_warnings(fit.pose.flip))
    deformed = deform(sample, template, fit)
    deformation, complaint = _believed(deformed, fit)
    if refined is not None:
        better = refined(sample, template, fit, deformed)
        believed, doubt = _believed(better, fit)
        taken = believed is not None and better.similarity >= deformed.similarity - NO_WORSE
        quality["syn_taken"] = float(taken)
        if taken:
            deformed, deformation, complaint = better, believed, doubt
        else:
            warnings.append("The finer registration was no improvement and was not used.")
    quality |= {"similarity": deformed.similarity, "overlap": deformed.overlap}
    if complaint:
        quality |= {"similarity": fit.similarity, "overlap": fit.overlap, "fallback": 1.0}
        warnings.append(complaint)
    return Registration(fit.pose.matrix, deformation, quality, tuple(warnings))


def _believed(deformed: Deformed, fit: Fit) -> tuple[Deformation | None, str]:
    """The deformation, or None and why not."""
    field_ = deformed.deformation
    shift = float(np.sqrt(np.max(np.sum(field_.displacement.astype(np.float64) ** 2, axis=-1))))
    folded = field_.smallest_jacobian() < LEAST_JACOBIAN
    worse = deformed.similarity < fit.similarity - 0.01
    if shift <= LARGEST_SHIFT_MM and not folded and not worse:
        return field_, ""
    return None, "The deformable registration was not plausible: regions come from the affine registration."


def _flip_warnings(flip: tuple[int, int, int]) -> Iterator[str]:
    """What to say of axes that the header has the wrong way round."""
    names = {1: "anterior and posterior", 2: "top and bottom"}
    for axis, name in names.items():
        if flip[axis] < 0:
            yield (
                f"The header seems to have {name} exchanged: regions follow the image, but left and right "
                "cannot be checked and may be wrong too."
            )
