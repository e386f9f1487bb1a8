"""The rules that make MARS regions of a parcellation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bids_cmb.anatomy.freesurfer import parcels_from_aseg
from bids_cmb.anatomy.rules import CODE_INDEX, Parcels, deep_white_matter, internal_capsule, mars_codes

SHAPE = (60, 60, 60)
LEFT = np.broadcast_to(np.arange(SHAPE[0])[:, None, None] < 30, SHAPE)


def head() -> Parcels:
    """A block of white matter with a frontal ribbon on top, all else empty."""
    none = np.zeros(SHAPE, bool)
    brain, white = none.copy(), none.copy()
    brain[5:55, 5:55, 5:55] = True
    white[5:55, 5:55, 5:50] = True
    cortex = np.where(brain & ~white, CODE_INDEX["F"], 0).astype(np.uint8)
    return Parcels(
        brain=brain, left=LEFT, cortex=cortex, white_matter=white, caudate=none, striatum=none, pallidum=none,
        thalamus=none, callosum_core=none, lateral_ventricle=none, brainstem=none, cerebellum=none,
        ventral_diencephalon=none,
    )  # fmt: skip


def test_white_matter_is_deep_from_four_millimetres_below_the_cortex() -> None:
    deep = deep_white_matter(head())[30, 30]
    assert not deep[47:50].any()
    assert deep[10:45].all()


def test_on_a_larger_template_the_millimetres_are_those_of_a_usual_head() -> None:
    # Voxels of half a millimetre: twice as many of them.
    deep = deep_white_matter(replace(head(), voxel_mm=0.5))[30, 30]
    assert not deep[43:50].any()
    assert deep[10:41].all()


def test_specks_of_ventricle_make_no_white_matter_periventricular() -> None:
    # All white matter is next to the cortex here: it is deep for a ventricle's sake alone.
    parcels = head()
    shallow = np.where(parcels.white_matter, CODE_INDEX["F"], 0).astype(np.uint8)
    shallow[:, :, ::3] = 0
    parcels = replace(parcels, cortex=shallow, white_matter=parcels.white_matter & (shallow == 0))
    ventricle = np.zeros(SHAPE, bool)
    ventricle[10:12, 10:12, 10:12] = True
    assert not deep_white_matter(replace(parcels, lateral_ventricle=ventricle)).any()
    ventricle[10:14, 10:14, 10:14] = True
    deep = deep_white_matter(replace(parcels, lateral_ventricle=ventricle))
    assert deep[20, 12, 12]
    assert not deep[30, 12, 12]


def test_a_stray_voxel_of_a_nucleus_does_not_stretch_the_internal_capsule() -> None:
    nucleus, thalamus = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    nucleus[8:14, 20:40, 20:30] = True
    thalamus[20:26, 20:40, 20:30] = True
    parcels = replace(head(), striatum=nucleus, thalamus=thalamus)
    capsule = internal_capsule(parcels, LEFT)
    assert capsule[16, 30, 25]
    thalamus = thalamus.copy()
    thalamus[8, 6, 25] = True
    assert np.array_equal(internal_capsule(replace(parcels, thalamus=thalamus), LEFT), capsule)


def test_what_lies_in_the_temporal_horn_is_no_lateral_ventricle() -> None:
    labels = np.zeros(SHAPE, np.int16)
    labels[20:30, 20:30, 40] = 4  # body
    labels[20:30, 20:30, 38] = 31  # its plexus
    labels[20:30, 20:30, 12] = 5  # temporal horn
    labels[20:30, 20:30, 10] = 31
    ventricle = parcels_from_aseg(labels, labels > 0, LEFT).lateral_ventricle
    assert ventricle[25, 25].nonzero()[0].tolist() == [38, 40]


def test_no_voxel_of_the_brain_is_without_a_region() -> None:
    parcels = head()
    codes = mars_codes(parcels)
    assert np.array_equal(codes > 0, parcels.brain)
