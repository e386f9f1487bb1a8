"""The finer registration: symmetric diffeomorphic normalisation by ANTs, on top of the affine.

ANTs fits the scan to the template drawn in the scan's own contrast (the tissue brightnesses that the fast
registration found), so that no metric has to cope with a contrast that it does not know (Avants 2008).
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy import ndimage

from bids_cmb.anatomy.affine_fit import Fit, composite, map_points
from bids_cmb.anatomy.ants import load_ants
from bids_cmb.anatomy.deform import Deformation, Deformed, figures, lattice
from bids_cmb.anatomy.sampling import DoubleArray, Sample, apply_affine, interpolate, to_voxels, undo_affine
from bids_cmb.anatomy.template import Template
from bids_cmb.types import Affine, BoolArray, FloatArray, Volume

#: Iterations at each level, from coarse to fine; the finest grid is that of the template (3 mm).
ITERATIONS = (40, 20, 10)
#: Values beyond this many robust standard deviations are cut: vessels and bleeds are no anatomy.
_LIMIT = 4.0


def deform_with_ants(
    volume: Volume, brain_mask: BoolArray, sample: Sample, template: Template, fit: Fit, fast: Deformed
) -> Deformed:
    """Go on from the fast deformation with a diffeomorphic one by ANTs (SyN, cross-correlation).

    Parameters
    ----------
    volume, brain_mask
        The scan.
    sample
        Its points, for the figures.
    template
        The tissue maps.
    fit
        The affine fit that the deformation comes after.
    fast
        The fast deformation, with the brightness of every tissue.

    Returns
    -------
    Deformed
        Displacements in MNI space and figures, comparable with those of the fast registration.
    """
    drawn = composite(template, fast.brightness[0])
    fixed = (drawn - drawn.min()).astype(np.float32) * (template.depth > -3)
    moving = _on_template(volume, brain_mask, template, fit.pose.matrix, fast.deformation)
    moving = np.where(moving != 0, moving - moving.min(), 0).astype(np.float32)
    warp = _inverse_warp(fixed, moving, template.affine)
    field = lattice(template)
    nodes = _grid_points(field.displacement.shape[:3], field.affine)
    before = fast.deformation(nodes)
    moved = before - nodes + interpolate(warp, to_voxels(before, template.affine))
    field = replace(field, displacement=moved.reshape(field.displacement.shape).astype(np.float32))
    mapped = map_points(fit.pose, sample.points)
    return figures(sample, template, mapped, field, float(fit.pose.parameters[12]))


def _on_template(
    volume: Volume, mask: BoolArray, template: Template, world_to_mni: Affine, deformation: Deformation
) -> FloatArray:
    """Brain of the scan in robust standard deviations on the template's grid, as affine and deformation lay it; 0 outside."""
    inside = volume.data[mask]
    middle = float(np.median(inside))
    spread = 1.4826 * float(np.median(np.abs(inside - middle))) or 1.0
    values = np.clip((volume.data - middle) / spread, -_LIMIT, _LIMIT) * mask
    width = [0.4 * template.spacing / edge for edge in volume.zooms]
    weight = ndimage.gaussian_filter(mask.astype(np.float32), width)
    smooth = ndimage.gaussian_filter(values.astype(np.float32), width) / np.maximum(weight, 1e-3)
    shape = template.depth.shape
    before = deformation.undone(_grid_points(shape, template.affine))
    voxels = undo_affine(world_to_mni @ volume.affine, before)
    here = ndimage.map_coordinates(smooth, voxels.T, order=1)
    share = ndimage.map_coordinates(weight, voxels.T, order=1)
    # Zero is kept for "no brain".
    found: FloatArray = np.where(share > 0.5, np.where(here == 0, 1e-3, here), 0).reshape(shape)
    return found.astype(np.float32)


def _grid_points(shape: tuple[int, ...], affine: Affine) -> DoubleArray:
    """Coordinates (n, 3) of every voxel of a grid, mm."""
    index = np.indices(shape).reshape(3, -1).T.astype(np.float64)
    return apply_affine(affine, index)


def _inverse_warp(fixed: FloatArray, moving: FloatArray, affine: Affine) -> FloatArray:
    """Displacement (x, y, z, 3), RAS mm, on the images' grid, that takes points of the moving image to the fixed one."""
    ants = load_ants()
    origin, spacing = affine[:3, 3], float(affine[0, 0])
    # ANTs counts in LPS.
    lps = (-float(origin[0]), -float(origin[1]), float(origin[2]))
    images = [
        ants.from_numpy(image, origin=lps, spacing=(spacing,) * 3, direction=np.diag([-1.0, -1.0, 1.0]))
        for image in (fixed, moving)
    ]
    with tempfile.TemporaryDirectory() as folder:
        found = ants.registration(
            *images,
            type_of_transform="SyNOnly",
            initial_transform="Identity",
            syn_metric="CC",
            syn_sampling=2,
            reg_iterations=ITERATIONS,
            random_seed=1,
            outprefix=str(Path(folder) / "t"),
        )
        path = next(name for name in found["invtransforms"] if "InverseWarp" in name)
        warp = ants.image_read(path).numpy()
    return np.ascontiguousarray(warp * np.array([-1.0, -1.0, 1.0]), np.float32)
