"""Stages 1 and 2 on one prepared scan: candidates, their probability and their outlines."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from bids_cmb.detector.candidates import MOST_CANDIDATES, find_peaks, heat_map
from bids_cmb.detector.devices import choose_device
from bids_cmb.detector.discriminate import candidate_facts, discriminate, stage2_cubes
from bids_cmb.detector.network_input import network_input
from bids_cmb.detector.outline import outline_candidate
from bids_cmb.detector.probability import probabilities
from bids_cmb.detector.weights import Model
from bids_cmb.types import BoolArray, Candidate, Contrast, Detection, Volume

#: Probabilities are kept to this many decimals, so that they do not depend on the order of floating-point sums.
_DECIMALS = 4
_TOO_MANY = "More than {} candidates were found, of which only the highest were judged: check the image for noise and artefacts."


def detect(
    image: Volume, brain_mask: BoolArray, contrast: Contrast, model: Model, *, device: str = "auto"
) -> Detection:
    """Propose candidates and judge them.

    Parameters
    ----------
    image
        Prepared image (see `bids_cmb.types.Prepared`).
    brain_mask
        Bool, same shape, not empty.
    contrast
        Decides polarity, calibration and operating point.
    model
        The detector.
    device
        ``auto``, ``cpu`` or ``cuda``.

    Returns
    -------
    Detection
        Every candidate, most probable first, with an outline; fate is ``accepted`` or ``stage2``.
    """
    target = choose_device(device)
    channels, grid = network_input(image, brain_mask, contrast, target)
    heat = heat_map(model.candidate_net.to(target), channels)
    peaks, heights = find_peaks(heat, grid.spacing, model.candidate_threshold)
    facts = candidate_facts(contrast, grid, peaks)
    logits = discriminate(model.student.to(target), stage2_cubes(channels, heat, peaks, grid.spacing), facts)
    chances = probabilities(logits.double().cpu().numpy(), model.calibration[contrast])
    places = grid.image_voxels(peaks.float()).double().cpu().numpy()
    warnings = () if len(peaks) < MOST_CANDIDATES else (_TOO_MANY.format(MOST_CANDIDATES),)
    order = np.argsort(-np.round(chances, _DECIMALS), kind="stable")
    scores = heights.cpu().numpy()
    found = _outlined(image, brain_mask, contrast, model, places[order], scores[order], chances[order])
    return replace(found, warnings=warnings)


def _outlined(
    image: Volume,
    brain_mask: BoolArray,
    contrast: Contrast,
    model: Model,
    places: npt.NDArray[np.float64],
    scores: npt.NDArray[np.float32],
    chances: npt.NDArray[np.float64],
) -> Detection:
    labels = np.zeros(image.data.shape, np.int32)
    candidates: list[Candidate] = []
    threshold = model.thresholds[contrast]
    for place, score, probability in zip(places, scores, chances, strict=True):
        outline = outline_candidate(image, brain_mask, place, contrast, places)
        own = outline.voxels[labels[tuple(outline.voxels.T)] == 0]
        if len(own) == 0:
            continue  # a weaker peak inside a candidate that is already outlined
        index = len(candidates) + 1
        labels[tuple(own.T)] = index
        rounded = round(float(probability), _DECIMALS)
        volume = len(own) * image.voxel_volume
        candidates.append(
            Candidate(
                index=index,
                position=outline.position,
                stage1_score=round(float(score), _DECIMALS),
                stage2_probability=rounded,
                probability=rounded,
                volume=volume,
                diameter=(6 * volume / math.pi) ** (1 / 3),
                contrast=outline.contrast,
                elongation=outline.elongation,
                fate="accepted" if rounded >= threshold else "stage2",
            )
        )
    return Detection(tuple(candidates), labels)
