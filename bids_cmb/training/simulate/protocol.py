"""Acquisition protocols: what scanners and studies vary, drawn at random over the ranges met in practice."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bids_cmb.training.simulate.random_source import RandomSource
from bids_cmb.types import Contrast


@dataclass(frozen=True)
class Protocol:
    """One acquisition.

    Attributes
    ----------
    contrast
        ``gre``, ``swi`` or ``qsm``.
    voxel
        Acquired voxel along x, y and slice direction, mm.
    interpolation
        Zero-filling factor in plane.
    three_d
        3-D encoding (slices by k-space) or 2-D (slices by a slice profile).
    echo_time
        Seconds.
    field_strength
        Tesla.
    snr
        Signal of white matter over the standard deviation of the noise in one channel.
    stripped
        Whether the product is skull-stripped.
    tilt
        Rotations of the slices against the head about x, y, z, degrees.
    """

    contrast: Contrast
    voxel: tuple[float, float, float]
    interpolation: float
    three_d: bool
    echo_time: float
    field_strength: float
    snr: float
    stripped: bool
    tilt: tuple[float, float, float]


def draw_protocol(rng: RandomSource, contrast: Contrast, *, widen: float = 1.0) -> Protocol:
    """Draw a protocol of one contrast from the ranges of published studies (1.5-3 T, 0.45-1.1 mm in plane).

    Parameters
    ----------
    rng
        Source of chance.
    contrast
        ``gre``, ``swi`` or ``qsm``.
    widen
        Factor on the ranges of voxel size, echo time and noise (1.2: one fifth wider), for tests of generality.
    """
    strength = 3.0 if rng.chance(0.7) else 1.5
    tilt = (rng.normal(0, 8 * widen), rng.normal(0, 3 * widen), rng.normal(0, 3 * widen))
    stripped = rng.chance(0.5)
    low, high = 1 / widen, widen
    if contrast == "gre":
        three_d = rng.chance(0.3)
        in_plane = rng.uniform(0.45 * low, 1.05 * high)
        slice_mm = rng.uniform(0.8 * low, 2.5 * high) if three_d else rng.uniform(1.8 * low, 6.0 * high)
        echo = (
            rng.uniform(0.014 * low, 0.032 * high) if strength > 2 else rng.uniform(0.018 * low, 0.045 * high)
        )
        return Protocol(
            contrast,
            (in_plane, in_plane, slice_mm),
            _interpolation(rng),
            three_d,
            echo,
            strength,
            rng.uniform(12 * low, 50 * high),
            stripped,
            tilt,
        )
    if contrast == "swi":
        in_plane = rng.uniform(0.45 * low, 1.0 * high)
        echo = (
            rng.uniform(0.016 * low, 0.027 * high) if strength > 2 else rng.uniform(0.028 * low, 0.045 * high)
        )
        return Protocol(
            contrast,
            (in_plane, in_plane * rng.uniform(1.0, 1.2), rng.uniform(0.9 * low, 3.0 * high)),
            _interpolation(rng),
            True,
            echo,
            strength,
            rng.uniform(8 * low, 30 * high),
            stripped,
            tilt,
        )
    in_plane = rng.uniform(0.6 * low, 1.05 * high)
    return Protocol(
        contrast,
        (in_plane, in_plane, rng.uniform(0.8 * low, 2.2 * high)),
        1.0,
        True,
        rng.uniform(0.014 * low, 0.026 * high),
        strength,
        rng.uniform(15 * low, 60 * high),
        True,
        tilt,
    )


def _interpolation(rng: RandomSource) -> float:
    return (1.0, 1.25, 2.0)[rng.choice((0.6, 0.2, 0.2))]


def slice_rotation(tilt: tuple[float, float, float]) -> npt.NDArray[np.float64]:
    """Rotation (3, 3) from the axes of tilted slices to the world's, in which the head is upright and B0 is z.

    Parameters
    ----------
    tilt
        Rotations about x, y, z, degrees.
    """
    rotation = np.eye(3)
    for axis, degrees in enumerate(tilt):
        a = math.radians(degrees)
        i, j = [(1, 2), (2, 0), (0, 1)][axis]
        turn = np.eye(3)
        turn[i, i] = turn[j, j] = math.cos(a)
        turn[i, j], turn[j, i] = -math.sin(a), math.sin(a)
        rotation = rotation @ turn
    return rotation


def main_field(tilt: tuple[float, float, float]) -> npt.NDArray[np.float64]:
    """Direction (3,) of B0, which is the world's z, along the axes of slices tilted by so many degrees."""
    return slice_rotation(tilt).T @ np.array([0.0, 0.0, 1.0])
