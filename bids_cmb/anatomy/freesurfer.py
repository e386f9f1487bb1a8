"""FreeSurfer's aparc+aseg numbers (Desikan et al. 2006, Fischl et al. 2002) in the terms of this package."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from bids_cmb.anatomy.rules import CODE_INDEX, CodeArray, Parcels, distance_to
from bids_cmb.types import BoolArray

DkArray = npt.NDArray[np.int16]

#: Gyri of the Desikan-Killiany atlas by lobe; 1000 is added on the left and 2000 on the right. The cingulate is split
#: as usual: its anterior half frontal, its posterior half and isthmus parietal.
LOBE_GYRI: Final[dict[str, tuple[int, ...]]] = {
    "F": (2, 3, 12, 14, 17, 18, 19, 20, 24, 26, 27, 28, 32),
    "P": (8, 10, 22, 23, 25, 29, 31),
    "T": (1, 6, 7, 9, 15, 16, 30, 33, 34),
    "O": (5, 11, 13, 21),
    "I": (35,),
}
_CAUDATE, _PUTAMEN, _PALLIDUM, _ACCUMBENS = (11, 50), (12, 51), (13, 52), (26, 58)
_HIPPOCAMPUS, _AMYGDALA = (17, 53), (18, 54)
_WHITE = (2, 41, 77, 30, 62)
_CALLOSUM = (251, 252, 253, 254, 255)

#: Structure of `bids_cmb.anatomy.structures` -> aparc+aseg numbers.
ASEG_STRUCTURES: Final[dict[str, tuple[int, ...]]] = {
    "white_matter": _WHITE,
    "lateral_ventricle": (4, 5, 43, 44),
    "third_ventricle": (14,),
    "fourth_ventricle": (15,),
    "caudate": _CAUDATE,
    "putamen": _PUTAMEN,
    "pallidum": _PALLIDUM,
    "thalamus": (10, 49),
    "accumbens": _ACCUMBENS,
    "hippocampus": _HIPPOCAMPUS,
    "amygdala": _AMYGDALA,
    "ventral_diencephalon": (28, 60),
    "brainstem": (16,),
    "cerebellar_cortex": (8, 47),
    "cerebellar_white_matter": (7, 46),
    "corpus_callosum": _CALLOSUM,
    "choroid_plexus": (31, 63),
}


def cortical_lobes(labels: DkArray) -> CodeArray:
    """Lobe (1..13) of every cortical voxel; hippocampus and amygdala are temporal."""
    lobes = np.zeros(labels.shape, np.uint8)
    for code, gyri in LOBE_GYRI.items():
        numbers = [offset + gyrus for offset in (1000, 2000) for gyrus in gyri]
        lobes[np.isin(labels, numbers)] = CODE_INDEX[code]
    lobes[np.isin(labels, _HIPPOCAMPUS + _AMYGDALA)] = CODE_INDEX["T"]
    return lobes


def _lateral_ventricle(labels: DkArray) -> BoolArray:
    """The lateral ventricles with their plexus, but without the temporal horns and what lies in those."""
    body, horn, plexus = (np.isin(labels, numbers) for numbers in ((4, 43), (5, 44), (31, 63)))
    return np.asarray(body | (plexus & (distance_to(body) < distance_to(horn))), bool)


def parcels_from_aseg(labels: DkArray, brain: BoolArray, left: BoolArray) -> Parcels:
    """Sort an aparc+aseg label map into the masks that the rules of MARS need.

    Parameters
    ----------
    labels
        int16 aparc+aseg numbers on a 1 mm isotropic RAS+ grid.
    brain
        Everything inside the skull's inner surface.
    left
        Left half of the grid.

    Returns
    -------
    Parcels
        Masks on the same grid.
    """

    def of(*numbers: int) -> BoolArray:
        return np.isin(labels, numbers)

    return Parcels(
        brain=brain,
        left=left,
        cortex=cortical_lobes(labels),
        white_matter=of(*_WHITE),
        caudate=of(*_CAUDATE),
        striatum=of(*_PUTAMEN, *_ACCUMBENS),
        pallidum=of(*_PALLIDUM),
        thalamus=of(10, 49),
        callosum_core=of(*_CALLOSUM),
        lateral_ventricle=_lateral_ventricle(labels),
        brainstem=of(16),
        cerebellum=of(7, 8, 46, 47),
        ventral_diencephalon=of(28, 60),
    )
