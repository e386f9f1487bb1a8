"""Which file is a scan, and of which contrast: rules on names, and the choice among several of one scan."""

from __future__ import annotations

import json
import logging
import re
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bids_cmb.bids.entities import DERIVED_ENTITIES, ENTITY_ORDER, LONG_NAMES, BidsFile, Entities, same_value
from bids_cmb.errors import UsageError
from bids_cmb.types import CONTRASTS, Contrast

_log = logging.getLogger(__name__)

#: The echo time that microbleeds are usually read at: seconds, at three tesla.
BEST_ECHO_TIME, BEST_ECHO_FIELD = 0.020, 3.0

#: Entities that a scan's alternatives may differ in: echoes, parts and reconstructions of one acquisition.
ALTERNATIVES = frozenset({"echo", "part", "rec"}) | DERIVED_ENTITIES

#: How the labels of standard spaces begin: an image resampled into one is no longer what was scanned.
STANDARD_SPACES = ("MNI", "Talairach", "ICBM", "NIHPD", "OASIS", "UNC", "fsaverage", "fsLR")

#: Values of DICOM's ImageType, as converters note them, that rule an image out whatever its name.
UNUSABLE_TYPES = frozenset(
    {"PHASE", "P", "PHASE MAP", "REAL", "R", "IMAGINARY", "I", "MNIP", "MINIP", "MIN IP"}
)
#: Labels of minimum intensity projections (mIP, minIP, mnIP) and of phase images; not parallel imaging ("2mmiPAT2"), halves
#: ("hemipons", "semipar"), the direction of phase encoding, or how many phases were acquired.
_PROJECTION = re.compile(r"(?<!he)(?<!se)(?<!de)m(?:in|n)?ip(?!at)", re.IGNORECASE)
_PHASE = re.compile(
    r"(?<!multi)(?<!single)(?<!dual)phase(?!enc|corr|[ap][ap]|[lr][lr])|(?:^|swi|gre|star|qsm)pha?$",
    re.IGNORECASE,
)

#: How fMRIPrep's filter files say null and any value.
_QUERIES: Mapping[object, object] = {"Query.NONE": None, "Query.ANY": "*"}

Filter = Mapping[str, Any]
Filters = Mapping[str, Filter]


def classify(file: BidsFile) -> tuple[Contrast, int] | None:
    """Return the contrast of a file and the rank of the rule that says so (0 first), or None.

    The rules are the table of input scans in the user's guide.
    """
    return _by_suffix(file) if _usable(file) else None


def _by_suffix(file: BidsFile) -> tuple[Contrast, int] | None:
    """What `classify` returns of a file that is neither a projection nor another part."""
    says_swi = [("swi" in (file.get(key) or "").lower()) for key in ("acq", "rec")]
    found: tuple[Contrast, int] | None = None
    if file.folder == "anat":
        if file.suffix == "swi":
            found = "swi", 0
        elif file.suffix == "T2starw":
            found = ("swi", 1) if says_swi[0] else ("swi", 2) if says_swi[1] else ("gre", 0)
        elif file.suffix == "MEGRE":
            found = "gre", 1
        elif file.suffix == "Chimap":
            found = "qsm", 0
    elif file.folder == "swi":
        found = {"swi": ("swi", 3), "GRE": ("gre", 2)}.get(file.suffix)  # type: ignore[assignment]
    return found


def _usable(file: BidsFile) -> bool:
    """Whether the name says that this is an image to detect on, not another part or a product of one."""
    standard = (file.get("space") or "").startswith(STANDARD_SPACES)
    return (
        file.get("part") in (None, "mag")
        and not standard
        and not _is_projection(file)
        and not _is_phase(file)
    )


def _is_projection(file: BidsFile) -> bool:
    """Whether the name says minimum intensity projection: vessels and microbleeds look alike there."""
    return any(_PROJECTION.search(word) for word in (file.suffix, *_labels(file)))


def _is_phase(file: BidsFile) -> bool:
    """Whether a label says phase image (``part-phase`` is the right way to say it)."""
    return any(_PHASE.search(word) for word in _labels(file))


def _labels(file: BidsFile) -> list[str]:
    """What the name says besides whom it shows and when."""
    return [value for key, value in file.entities if key not in ("sub", "ses", "part", "task", "run")]


def has_unusable_type(metadata: Mapping[str, Any]) -> bool:
    """Whether the sidecar's ``ImageType`` says phase, real or imaginary part, or minimum projection."""
    types = metadata.get("ImageType")
    return isinstance(types, list) and any(str(word).upper() in UNUSABLE_TYPES for word in types)


def read_filters(path: Path) -> dict[str, dict[str, Any]]:
    """Read a ``--bids-filter-file``: pybids entity filters by contrast.

    Raises
    ------
    UsageError
        If the file can't be read, isn't JSON of that shape, or names a contrast or an entity that isn't one.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UsageError(f"The filter file {path} cannot be read ({error.strerror}).") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"The filter file {path} is not valid JSON ({error}).") from error
    shape = f'The filter file {path} must look like {{"swi": {{"acquisition": "highres"}}}}'
    if not isinstance(content, dict) or not all(isinstance(value, dict) for value in content.values()):
        raise UsageError(f"{shape}.")
    unknown = sorted(set(content) - set(CONTRASTS))
    if unknown:
        raise UsageError(f"{shape}; '{unknown[0]}' is not one of {', '.join(CONTRASTS)}.")
    for contrast, wanted in content.items():
        _check_filter(path, contrast, wanted)
    return content


def _check_filter(path: Path, contrast: str, wanted: Filter) -> None:
    known = {*ENTITY_ORDER, *LONG_NAMES, "suffix", "extension", "datatype"}
    for key, value in wanted.items():
        if key not in known:
            raise UsageError(
                f"The filter file {path} filters {contrast} by '{key}', which is not an entity; "
                f"entities are {', '.join(sorted(known))}."
            )
        values = value if isinstance(value, list) else [value]
        if not all(item is None or isinstance(item, (str, int)) for item in values):
            raise UsageError(
                f"The filter file {path} must give '{key}' of {contrast} a text, a number, null or a list."
            )


def passes(file: BidsFile, wanted: Filter) -> bool:
    """Whether a file fits a filter: a value, a list of them, null for absent, ``"*"`` for any value."""
    for key, value in wanted.items():
        short = LONG_NAMES.get(key, key)
        special = {"suffix": file.suffix, "extension": file.extension, "datatype": file.folder}
        own = special.get(short) or file.get(short)
        if not any(_matches(short, own, item) for item in (value if isinstance(value, list) else [value])):
            return False
    return True


def _matches(key: str, own: str | None, item: object) -> bool:
    item = _QUERIES.get(item, item)
    if item is None or own is None:
        return item is None and own is None
    if key == "extension":  # pybids takes it without its dot as well
        return item == "*" or own == f".{str(item).removeprefix('.')}"
    return item == "*" or same_value(key, own, str(item).removeprefix(f"{key}-"))


def select(files: Iterable[BidsFile], filters: Filters) -> list[tuple[BidsFile, Contrast, int]]:
    """Give every usable file its contrast and rank.

    A filter narrows what the rules of its contrast find. One that names ``suffix`` replaces those rules: it
    then says by itself which files have the contrast (still without projections and other parts).
    """
    replacing: list[Contrast] = [c for c in CONTRASTS if "suffix" in filters.get(c, {})]
    chosen: list[tuple[BidsFile, Contrast, int]] = []
    for file in files:
        if _by_suffix(file) and (_is_projection(file) or _is_phase(file)):
            _log.info("%s was left out: its name says that it is a projection or a phase image.", file.path)
        claimed = next((c for c in replacing if _usable(file) and passes(file, filters[c])), None)
        if claimed is not None:
            chosen.append((file, claimed, 0))
            continue
        found = classify(file)
        if found is not None and found[0] not in replacing and passes(file, filters.get(found[0], {})):
            chosen.append((file, *found))
    return chosen


def first_matches(
    ranked: Sequence[tuple[BidsFile, int]], metadata: Callable[[BidsFile], Mapping[str, Any]]
) -> tuple[list[tuple[BidsFile, tuple[str, ...]]], list[BidsFile]]:
    """Keep one file for each acquisition and run of one contrast.

    Parameters
    ----------
    ranked
        Files of one subject and contrast with the rank of their rule.
    metadata
        Gives the sidecar of a file; asked only where echoes have to be told apart.

    Returns
    -------
    list
        The files kept, each with warnings for the user.
    list
        The files passed over because another of the same scan was kept.
    """
    groups: dict[tuple[tuple[str, str], ...], list[tuple[BidsFile, int]]] = {}
    for file, rank in ranked:
        groups.setdefault(scan_key(file.entities), []).append((file, rank))
    kept: list[tuple[BidsFile, tuple[str, ...]]] = []
    passed: list[BidsFile] = []
    for _, members in sorted(groups.items()):
        best = min(_preference(file, rank) for file, rank in members)
        echoes: dict[str | None, BidsFile] = {}
        # Some echoes of a set may be compressed and others not; of one that is both, the compressed file counts.
        for file, rank in sorted(members, key=lambda member: member[0].extension != ".nii.gz"):
            if _preference(file, rank) == best:
                echoes.setdefault(file.get("echo"), file)
        file, warnings = choose_echo(list(echoes.values()), metadata)
        kept.append((file, warnings))
        passed.extend(other for other, _ in members if other != file)
    return kept, passed


def scan_key(entities: Entities) -> Entities:
    """What the names of all images of one acquisition and run have in common."""
    pairs = (
        (key, str(int(value)) if value.isdecimal() and key == "run" else value) for key, value in entities
    )
    return tuple(sorted(pair for pair in pairs if pair[0] not in ALTERNATIVES))


def _preference(file: BidsFile, rank: int) -> tuple[object, ...]:
    """Order the alternatives of one scan; equal for the echoes of one set.

    The earlier rule wins; then a combined image over single echoes, an image without ``part`` over
    ``part-mag``, the plain reconstruction over others, and the scan's own space over another.
    """
    others = tuple(pair for pair in file.entities if pair[0] in ALTERNATIVES - {"echo"})
    return (
        rank,
        file.get("echo") is not None,
        file.get("part") or "",
        file.get("rec") or "",
        file.get("space") or "",
        others,
    )


def choose_echo(
    files: Sequence[BidsFile], metadata: Callable[[BidsFile], Mapping[str, Any]]
) -> tuple[BidsFile, tuple[str, ...]]:
    """Choose the echo that shows microbleeds best: nearest 20 ms at 3 T, scaled by the field strength.

    Blooming grows with echo time times field strength, hence 40 ms at 1.5 T and 8.6 ms at 7 T. Without a
    field strength, 3 T is assumed; without all echo times, the middle echo is taken.

    Returns
    -------
    BidsFile
        The echo to use.
    tuple of str
        A warning if it had to be guessed.
    """
    ordered = sorted(files, key=lambda file: (_number(file.get("echo")), file.relative))
    if len(ordered) == 1:
        return ordered[0], ()
    sidecars = [metadata(file) for file in ordered]
    times = [sidecar.get("EchoTime") for sidecar in sidecars]
    if any(time is None for time in times):
        middle = ordered[len(ordered) // 2]
        return middle, (
            f"Echo {middle.get('echo')} of {len(ordered)}, the middle one, was used because the sidecars "
            "do not give every EchoTime.",
        )
    fields = [sidecar["MagneticFieldStrength"] for sidecar in sidecars if "MagneticFieldStrength" in sidecar]
    target = BEST_ECHO_TIME * BEST_ECHO_FIELD / (statistics.median(fields) if fields else BEST_ECHO_FIELD)
    distances = [(round(abs(float(time or 0) - target), 9), index) for index, time in enumerate(times)]
    return ordered[min(distances)[1]], ()


def _number(value: str | None) -> int:
    return int(value) if value is not None and value.isdecimal() else 0
