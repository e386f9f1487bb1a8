"""The tissues of a simulated head and their magnetic properties.

Values are the ranges of the literature on susceptibility mapping and relaxometry at 3 T (Deistung 2013, Haacke
2015, Marques 2021), widened where protocols and ages differ; one value per tissue is drawn for each head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor


class Tissue(IntEnum):
    """Label values of a simulator head (uint8 label map)."""

    BACKGROUND = 0
    CSF = 1
    CORTEX = 2
    WHITE_MATTER = 3
    VENTRICLE = 4
    THALAMUS = 5
    CAUDATE = 6
    PUTAMEN = 7
    PALLIDUM = 8
    HIPPOCAMPUS = 9
    VENTRAL_DC = 10
    BRAINSTEM = 11
    CEREBELLUM_CORTEX = 12
    CEREBELLUM_WHITE = 13
    CORPUS_CALLOSUM = 14
    RED_NUCLEUS = 15
    SUBSTANTIA_NIGRA = 16
    DENTATE = 17
    BONE = 20
    MUSCLE = 21
    FAT = 22
    AIR = 23


#: Everything inside the brain mask: parenchyma, ventricles and the CSF of the sulci.
BRAIN = tuple(t for t in Tissue if 1 <= t < Tissue.BONE)
PARENCHYMA = tuple(t for t in BRAIN if t not in (Tissue.CSF, Tissue.VENTRICLE))


@dataclass(frozen=True)
class Properties:
    """Ranges (low, high) of susceptibility (ppm against water), R2* at 3 T (1/s) and effective proton signal."""

    chi: tuple[float, float]
    r2star: tuple[float, float]
    signal: tuple[float, float]


_GREY = (0.72, 1.0)
_WHITE = (0.6, 0.92)

PROPERTIES: dict[Tissue, Properties] = {
    Tissue.BACKGROUND: Properties((9.0, 9.0), (0.0, 0.0), (0.0, 0.0)),
    Tissue.CSF: Properties((-0.01, 0.01), (1.0, 6.0), (0.35, 1.5)),
    Tissue.CORTEX: Properties((0.02, 0.05), (14.0, 20.0), _GREY),
    Tissue.WHITE_MATTER: Properties((-0.05, 0.0), (17.0, 24.0), _WHITE),
    Tissue.VENTRICLE: Properties((-0.01, 0.01), (1.0, 5.0), (0.35, 1.5)),
    Tissue.THALAMUS: Properties((0.0, 0.05), (19.0, 24.0), (0.7, 0.95)),
    Tissue.CAUDATE: Properties((0.05, 0.16), (20.0, 27.0), _GREY),
    Tissue.PUTAMEN: Properties((0.06, 0.22), (21.0, 36.0), _GREY),
    Tissue.PALLIDUM: Properties((0.14, 0.32), (30.0, 58.0), (0.65, 0.9)),
    Tissue.HIPPOCAMPUS: Properties((0.0, 0.04), (13.0, 19.0), _GREY),
    Tissue.VENTRAL_DC: Properties((-0.02, 0.05), (19.0, 26.0), _WHITE),
    Tissue.BRAINSTEM: Properties((-0.04, 0.02), (16.0, 24.0), _WHITE),
    Tissue.CEREBELLUM_CORTEX: Properties((0.0, 0.05), (14.0, 22.0), _GREY),
    Tissue.CEREBELLUM_WHITE: Properties((-0.04, 0.01), (18.0, 25.0), _WHITE),
    Tissue.CORPUS_CALLOSUM: Properties((-0.06, 0.0), (18.0, 26.0), _WHITE),
    Tissue.RED_NUCLEUS: Properties((0.08, 0.18), (28.0, 45.0), (0.65, 0.9)),
    Tissue.SUBSTANTIA_NIGRA: Properties((0.10, 0.24), (28.0, 50.0), (0.65, 0.9)),
    Tissue.DENTATE: Properties((0.06, 0.17), (24.0, 38.0), (0.65, 0.9)),
    Tissue.BONE: Properties((-2.5, -1.0), (60.0, 150.0), (0.02, 0.25)),
    Tissue.MUSCLE: Properties((-0.1, 0.1), (25.0, 40.0), (0.4, 0.9)),
    Tissue.FAT: Properties((0.3, 0.9), (20.0, 50.0), (0.3, 1.6)),
    Tissue.AIR: Properties((9.0, 9.0), (0.0, 0.0), (0.0, 0.0)),
}


def one_of(labels: Tensor, kinds: Sequence[Tissue]) -> Tensor:
    """Bool tensor: where a label map holds one of some tissues."""
    out = torch.zeros_like(labels, dtype=torch.bool)
    for kind in kinds:  # half the time that `torch.isin` takes for labels of 8 bits
        out |= labels == int(kind)
    return out
