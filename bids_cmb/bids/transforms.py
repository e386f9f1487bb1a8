"""The registration of a scan as a file that ANTs and what reads its transforms can apply."""

from __future__ import annotations

import numpy as np

from bids_cmb.types import Anatomy, FloatArray

#: The space that regions and MNI coordinates are of, by its name in BIDS.
MNI_SPACE = "MNI152NLin2009aSym"
#: Nodes of the field, mm: as far apart as those of the registration itself, around the template's brain.
NODES_MM = 6.0
_LOW, _HIGH = (-96.0, -132.0, -90.0), (96.0, 96.0, 108.0)
#: ITK counts left and back, NIfTI right and front.
_LPS = np.array([-1.0, -1.0, 1.0])


def displacement_field(anatomy: Anatomy) -> bytes:
    """Where in the scan each point of MNI space lies, as an ITK displacement field.

    ``antsApplyTransforms -r TEMPLATE -i SCAN -t FIELD`` brings the scan to the template.

    Parameters
    ----------
    anatomy
        With a registration; without one to be believed, the field is zero.

    Returns
    -------
    bytes
        NIfTI-1, float32 (x, y, z, 1, 3): displacements in LPS, mm, on nodes in MNI space.
    """
    import nibabel as nib

    axes = [np.arange(low, high + 1.0, NODES_MM) for low, high in zip(_LOW, _HIGH, strict=True)]
    nodes = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    moved = nodes if anatomy.registration is None else anatomy.registration.back(nodes)
    field: FloatArray = ((moved - nodes) * _LPS).astype("<f4").reshape(*map(len, axes), 1, 3)
    affine = np.diag([NODES_MM, NODES_MM, NODES_MM, 1.0])
    affine[:3, 3] = _LOW
    image = nib.Nifti1Image(field, affine)
    image.header.set_intent("vector")
    image.header.set_xyzt_units("mm")
    return bytes(image.to_bytes())
