"""A real image that simulated scans are compared with, and the acquisition to simulate so that they are like it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bids_cmb.bids.sidecars import load_json_object, tidy_metadata
from bids_cmb.errors import InputError, UsageError
from bids_cmb.training.simulate.protocol import Protocol
from bids_cmb.types import CONTRASTS, Contrast, Volume


@dataclass(frozen=True)
class RealImage:
    """A real image to compare with: contrast, file and, of a 4-D file, which volume (from 0)."""

    contrast: Contrast
    path: Path
    volume: int | None = None

    @classmethod
    def parse(cls, text: str) -> RealImage:
        """Read ``gre=FILE`` or ``gre=FILE@VOLUME``.

        Raises
        ------
        UsageError
            If it is neither.
        """
        contrast, _, place = text.partition("=")
        file, at, number = place.rpartition("@")
        name, volume = (file, number) if at and number.isdigit() else (place, "")
        known = next((c for c in CONTRASTS if c == contrast), None)
        if known is None or not name:
            raise UsageError(f"'{text}' is not CONTRAST=FILE[@VOLUME], CONTRAST being swi, gre or qsm.")
        return cls(known, Path(name), int(volume) if volume else None)


def load_real(real: RealImage) -> tuple[Volume, Mapping[str, Any]]:
    """Read a real image and what its sidecar says, as the main job takes it: seconds and tesla.

    Raises
    ------
    InputError
        If it can't be read or has several volumes and none was named.
    """
    import nibabel as nib

    try:
        image = nib.as_closest_canonical(nib.load(real.path))
        data = np.asarray(image.dataobj, dtype=np.float32)
    except (OSError, nib.filebasedimages.ImageFileError) as error:
        raise InputError(f"{real.path} cannot be read ({error}).") from error
    if data.ndim == 4 and (data.shape[3] == 1 or real.volume is not None):
        number = real.volume or 0
        if number >= data.shape[3]:
            raise InputError(f"{real.path} has {data.shape[3]} volumes, so there is none numbered {number}.")
        data = data[..., number]
    if data.ndim != 3:
        raise InputError(
            f"{real.path} is not three-dimensional; name one of its volumes: FILE@0 is the first."
        )
    sidecar = real.path.with_name(real.path.name.split(".")[0] + ".json")
    facts, _ = tidy_metadata(load_json_object(sidecar)[0] if sidecar.exists() else {})
    return Volume(np.ascontiguousarray(np.nan_to_num(data)), np.asarray(image.affine, np.float64)), facts


def matched_protocol(real: RealImage, volume: Volume, facts: Mapping[str, Any], snr: float) -> Protocol:
    """Describe the acquisition of a real image, so that simulated scans can be made like it.

    What neither the image nor its sidecar says is typical: 3 T, 20 ms.
    """
    stripped = real.contrast == "qsm" or float((volume.data == 0).mean()) > 0.4
    voxel = volume.zooms
    return Protocol(
        real.contrast,
        voxel,
        1.0,
        real.contrast != "gre" or voxel[2] < 1.6,
        facts.get("EchoTime", 0.020),
        facts.get("MagneticFieldStrength", 3.0),
        float(np.clip(snr if real.contrast != "qsm" else 35.0, 8.0, 60.0)),
        stripped,
        (0.0, 0.0, 0.0),
    )
