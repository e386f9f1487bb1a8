"""BIDS file names: taking them apart and putting them together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bids_cmb.errors import UsageError

#: The order of entities in a file name (BIDS 1.11), short names.
# fmt: off
ENTITY_ORDER: tuple[str, ...] = (
    "sub", "tpl", "ses", "cohort", "sample", "task", "tracksys", "acq", "nuc", "voi", "ce", "trc", "stain",
    "rec", "dir", "run", "mod", "echo", "flip", "inv", "mt", "part", "proc", "hemi", "space", "split",
    "recording", "chunk", "atlas", "seg", "scale", "res", "den", "label", "desc",
)
# fmt: on

#: Entities that say what a derived file is rather than what was scanned: they don't go into output names.
DERIVED_ENTITIES = frozenset({"space", "atlas", "seg", "scale", "res", "den", "label", "desc"})

#: Entities whose values are numbers, so that ``run-1`` and ``run-01`` are the same run.
INDEX_ENTITIES = frozenset({"run", "echo", "flip", "inv", "split", "chunk"})

#: Names that pybids gives to entities, for ``--bids-filter-file``.
LONG_NAMES: Mapping[str, str] = {
    "subject": "sub",
    "session": "ses",
    "acquisition": "acq",
    "nucleus": "nuc",
    "volume": "voi",
    "ceagent": "ce",
    "tracer": "trc",
    "staining": "stain",
    "reconstruction": "rec",
    "direction": "dir",
    "modality": "mod",
    "processing": "proc",
    "hemisphere": "hemi",
    "resolution": "res",
    "density": "den",
    "segmentation": "seg",
    "description": "desc",
}

Entities = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class BidsFile:
    """A file of a dataset and what its name says.

    Attributes
    ----------
    path
        The file, never resolved through symbolic links.
    relative
        Its place in the dataset, with forward slashes.
    entities
        (key, value) pairs in the order of the name.
    suffix, extension, folder
        ``T2starw``, ``.nii.gz`` and the name of the folder it lies in (``anat``, ``swi``).
    """

    path: Path
    relative: str
    entities: Entities
    suffix: str
    extension: str
    folder: str

    def get(self, key: str) -> str | None:
        """Value of one entity, or None."""
        return dict(self.entities).get(key)


def parse_name(name: str) -> tuple[Entities, str, str] | None:
    """Take a BIDS file name apart.

    Parameters
    ----------
    name
        File name without its folder.

    Returns
    -------
    tuple or None
        Entities in the order of the name, suffix and extension; None if the name is not built as BIDS asks.
    """
    stem, dot, extension = name.partition(".")
    *pairs, suffix = stem.split("_")
    if not dot or not suffix.isalnum():
        return None
    entities = tuple((key, value) for key, _, value in (pair.partition("-") for pair in pairs))
    fine = all(key.isalpha() and is_label(value) for key, value in entities)
    if not fine or len(dict(entities)) < len(entities):
        return None
    return entities, suffix, "." + extension


def is_label(text: str) -> bool:
    """Whether a text can be an entity's value: letters and digits of any script, and ``+`` and ``-``.

    BIDS allows fewer; what else file systems allow (quotes, brackets, line ends, bytes that are no text) has no
    place in names, tables and pages.
    """
    return bool(text) and all(char.isalnum() or char in "+-" for char in text)


def as_file(path: Path, root: Path) -> BidsFile | None:
    """Describe one file of the dataset at `root`, or return None if its name is not a BIDS name."""
    parsed = parse_name(path.name)
    if parsed is None:
        return None
    entities, suffix, extension = parsed
    return BidsFile(path, path.relative_to(root).as_posix(), entities, suffix, extension, path.parent.name)


def join_name(entities: Iterable[tuple[str, str]], suffix: str, extension: str = "") -> str:
    """Build a file name with its entities in the order that BIDS asks for.

    Entities that BIDS does not know go where the description of the scan ends, before ``space``.
    """
    position = {key: index for index, key in enumerate(ENTITY_ORDER)}
    unknown = position["hemi"] + 0.5
    ordered = sorted(entities, key=lambda pair: position.get(pair[0], unknown))
    return "_".join([*(f"{key}-{value}" for key, value in ordered), suffix]) + extension


def scan_entities(entities: Entities) -> Entities:
    """Keep the entities that say what was scanned (see `DERIVED_ENTITIES`)."""
    return tuple(pair for pair in entities if pair[0] not in DERIVED_ENTITIES)


def bids_uri(dataset: str, relative: str) -> str:
    """Name a file of a dataset, ``bids:<dataset>:<path>``; an empty dataset name means the file's own."""
    return f"bids:{dataset}:{relative}"


def strip_label(label: str, prefix: str) -> str:
    """Accept a label with or without its prefix: ``sub-01`` and ``01`` are the same subject.

    Raises
    ------
    UsageError
        If nothing, or something that can't be part of a file name, is left.
    """
    value = label.strip().removeprefix(f"{prefix}-")
    if not is_label(value):
        raise UsageError(
            f"'{label}' is not a {prefix}- label; labels are letters and digits, e.g. {prefix}-01."
        )
    return value


def same_value(key: str, one: str, other: str) -> bool:
    """Compare two values of an entity; numbers may be padded with zeros."""
    if key in INDEX_ENTITIES and one.isdecimal() and other.isdecimal():
        return int(one) == int(other)
    return one == other
