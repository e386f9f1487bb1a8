"""Weights with a manifest: read without pickle, checked against their SHA-256."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bids_cmb.detector.probability import Calibration
from bids_cmb.errors import ModelError
from bids_cmb.shipped import models_folder
from bids_cmb.types import CONTRASTS, Contrast

if TYPE_CHECKING:
    from bids_cmb.detector.networks import CandidateNet, Student

DEFAULT_MODEL = "bids-cmb-1"
MANIFEST_FORMAT = 2


@dataclass(frozen=True)
class Model:
    """A detector: two networks and the numbers that go with them.

    Attributes
    ----------
    name, version, sha256
        Of the weights file.
    candidate_net, student
        Stage 1 and stage 2, in evaluation mode, on the CPU.
    candidate_threshold
        Least height of a heat-map peak.
    thresholds
        Operating point per contrast: least calibrated probability of a microbleed.
    definite
        Least probability of a *definite* microbleed, per contrast.
    calibration
        Per contrast.
    card
        The whole manifest.
    """

    name: str
    version: str
    sha256: str
    candidate_net: CandidateNet
    student: Student
    candidate_threshold: float
    thresholds: Mapping[Contrast, float]
    definite: Mapping[Contrast, float]
    calibration: Mapping[Contrast, Calibration]
    card: Mapping[str, Any]

    def at(self, threshold: float) -> Model:
        """Return the same detector with one operating point for every contrast."""
        return replace(self, thresholds=dict.fromkeys(self.thresholds, threshold))


def load_model(name_or_path: str | os.PathLike[str] | None = None) -> Model:
    """Load a detector.

    Parameters
    ----------
    name_or_path
        Name of a shipped model, its manifest (.json), or a folder with one manifest; None for the default.

    Returns
    -------
    Model
        Ready for `bids_cmb.detector.pipeline.detect`.

    Raises
    ------
    ModelError
        If there is no such model, or its files are damaged or of another version.
    """
    manifest_path = find_manifest(name_or_path)
    card = _read_manifest(manifest_path)
    weights_path = manifest_path.parent / Path(str(card["weights"])).name
    state = _read_weights(weights_path, str(card["sha256"]))
    try:
        from bids_cmb.detector.networks import CandidateNet, Student

        candidate_net = CandidateNet(**_widths(card["candidate_net"]))
        student = Student(**_widths(card["student"]))
        candidate_net.load_state_dict(
            {k.removeprefix("candidate_net."): v for k, v in state.items() if k.startswith("candidate_net.")}
        )
        student.load_state_dict(
            {k.removeprefix("student."): v for k, v in state.items() if k.startswith("student.")}
        )
        return Model(
            name=str(card["name"]),
            version=str(card["version"]),
            sha256=str(card["sha256"]),
            candidate_net=candidate_net.eval(),
            student=student.eval(),
            candidate_threshold=float(card["candidate_threshold"]),
            thresholds={c: float(card["thresholds"][c]) for c in CONTRASTS},
            definite={c: float(card["definite"][c]) for c in CONTRASTS},
            calibration={c: _calibration(card["calibration"][c]) for c in CONTRASTS},
            card=card,
        )
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        problem = str(error).splitlines()[0]
        raise ModelError(
            f"{manifest_path} does not describe its weights ({problem}); install the model again or train it anew."
        ) from error


def _calibration(settings: Mapping[str, Any]) -> Calibration:
    prevalence = settings.get("prevalence")
    return Calibration(
        float(settings["scale"]), float(settings["offset"]), None if prevalence is None else float(prevalence)
    )


def _widths(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {"channels": int(settings["channels"]), "widths": tuple(int(w) for w in settings["widths"])}


def find_manifest(name_or_path: str | os.PathLike[str] | None = None) -> Path:
    """Return the manifest of a model that is named as for `load_model`.

    Raises
    ------
    ModelError
        If there is none, or a folder has several.
    """
    if name_or_path is None:  # whatever lies in the current folder
        return models_folder() / f"{DEFAULT_MODEL}.json"
    name = os.fspath(name_or_path)
    path = Path(name)
    if path.is_file():
        return path
    if path.is_dir():
        manifests = sorted(path.glob("*.json"))
        if len(manifests) == 1:
            return manifests[0]
        raise ModelError(
            f"The model folder {path} has {len(manifests)} manifests (.json); it must have exactly one."
        )
    shipped = models_folder() / f"{name}.json"
    if "/" not in name and shipped.is_file():
        return shipped
    known = ", ".join(sorted(p.stem for p in models_folder().glob("bids-cmb-*.json"))) or "none"
    raise ModelError(f"There is no model {name!r}: give a path or one of the shipped models ({known}).")


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"The model manifest {path} cannot be read ({error}); install the model again."
        ) from error
    if not isinstance(card, dict) or card.get("format") != MANIFEST_FORMAT:
        raise ModelError(
            f"{path} is not a detector manifest of format {MANIFEST_FORMAT}; use a model made for this version of bids_cmb."
        )
    missing = [key for key in ("name", "version", "weights", "sha256") if key not in card]
    if missing:
        raise ModelError(f"The model manifest {path} lacks {', '.join(missing)}; install the model again.")
    return card


def _read_weights(path: Path, sha256: str) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(
            f"The weights {path} cannot be read ({error.strerror}); install the model again."
        ) from error
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise ModelError(
            f"The weights {path} are damaged: their SHA-256 is {found[:12]}..., the manifest says {sha256[:12]}...; install the model again."
        )
    try:
        tensors: dict[str, Any] = load(content)
    except SafetensorError as error:
        raise ModelError(f"{path} does not hold weights ({error}); install the model again.") from error
    return tensors


def save_model(folder: Path, card: Mapping[str, Any], candidate_net: CandidateNet, student: Student) -> Path:
    """Write weights and manifest, the manifest last.

    Parameters
    ----------
    folder
        Made if it is not there.
    card
        Everything of the manifest but ``format``, ``weights`` and ``sha256``.
    candidate_net, student
        The networks.

    Returns
    -------
    Path
        The manifest.
    """
    from safetensors.torch import save

    state = {f"candidate_net.{k}": v.cpu().contiguous() for k, v in candidate_net.state_dict().items()}
    state |= {f"student.{k}": v.cpu().contiguous() for k, v in student.state_dict().items()}
    content = save(state)
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / f"{card['name']}.safetensors"
    weights.write_bytes(content)
    full = {
        "format": MANIFEST_FORMAT,
        **card,
        "weights": weights.name,
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    manifest = folder / f"{card['name']}.json"
    manifest.write_text(json.dumps(full, indent=2) + "\n", encoding="utf-8")
    return manifest
