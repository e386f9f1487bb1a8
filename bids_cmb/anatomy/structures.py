"""The structures of ``mni_structures.nii.gz``: one name and one label value each.

The map says what lies where in MNI152 2009a symmetric space (the 1 mm grid of nilearn's template). It serves three
ends: the soft zones of mimics (``mni_zones.nii.gz``), the tissue classes that the registration fits
(``mni_classes.nii.gz``) and the anatomy of simulated heads; `bids_cmb.anatomy.build_atlas` makes all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

#: Label value by structure. Left and right share a value; the side is the sign of MNI x.
STRUCTURES: Final[dict[str, int]] = {
    "sulcal_csf": 1,
    "cortex": 2,
    "white_matter": 3,
    "lateral_ventricle": 4,
    "third_ventricle": 5,
    "fourth_ventricle": 6,
    "caudate": 7,
    "putamen": 8,
    "pallidum": 9,
    "thalamus": 10,
    "accumbens": 11,
    "hippocampus": 12,
    "amygdala": 13,
    "ventral_diencephalon": 14,
    "brainstem": 15,
    "cerebellar_cortex": 16,
    "cerebellar_white_matter": 17,
    "corpus_callosum": 18,
    "internal_capsule": 19,
    "red_nucleus": 20,
    "substantia_nigra": 21,
    "dentate": 22,
    "choroid_plexus": 23,
    "pineal": 24,
    "falx": 25,
    "tentorium": 26,
    "superior_sagittal_sinus": 27,
    "straight_sinus": 28,
    "transverse_sinus": 29,
    # Air outside the brain that warps the field: places by coordinates, shapes only sketched.
    "sphenoid_ethmoid_air": 40,
    "petrous_mastoid_air": 41,
    "frontal_sinus_air": 42,
}

#: Tissue classes that the registration fits: every structure inside the brain belongs to one.
TISSUE_CLASSES: Final[dict[str, tuple[str, ...]]] = {
    "sulcal_csf": (
        "sulcal_csf",
        "falx",
        "tentorium",
        "superior_sagittal_sinus",
        "straight_sinus",
        "transverse_sinus",
        "pineal",
    ),
    "ventricle": ("lateral_ventricle", "third_ventricle", "fourth_ventricle", "choroid_plexus"),
    "cortex": ("cortex", "hippocampus", "amygdala"),
    "white_matter": ("white_matter", "corpus_callosum"),
    "internal_capsule": ("internal_capsule",),
    "striatum": ("caudate", "putamen", "accumbens"),
    "pallidum": ("pallidum",),
    "thalamus": ("thalamus",),
    "brainstem": ("brainstem", "ventral_diencephalon"),
    "iron_nuclei": ("red_nucleus", "substantia_nigra", "dentate"),
    "cerebellar_cortex": ("cerebellar_cortex",),
    "cerebellar_white_matter": ("cerebellar_white_matter",),
}


@dataclass(frozen=True)
class ZoneRule:
    """A zone of mimics in MNI space: full strength within ``margin_mm`` of its structures, none ``fade_mm`` beyond."""

    structures: tuple[str, ...]
    margin_mm: float
    fade_mm: float


#: Zones that come from the atlas, in the order of ``mni_zones.nii.gz``; ``edge`` comes from the brain mask.
ZONES: Final[dict[str, ZoneRule]] = {
    "ventricle": ZoneRule(("lateral_ventricle", "third_ventricle", "fourth_ventricle"), 0.0, 3.0),
    "sinus": ZoneRule(("superior_sagittal_sinus", "straight_sinus", "transverse_sinus"), 2.0, 4.0),
    "pallidum": ZoneRule(("pallidum",), 1.0, 3.0),
    "pineal": ZoneRule(("pineal",), 4.0, 8.0),
    "choroid_plexus": ZoneRule(("choroid_plexus",), 1.0, 4.0),
    "falx": ZoneRule(("falx",), 1.0, 3.0),
    "dropout": ZoneRule(("sphenoid_ethmoid_air", "petrous_mastoid_air", "frontal_sinus_air"), 6.0, 14.0),
}
