"""Turn a template into one self-contained file, written whole or not at all.

The page's policy (a meta tag) forbids every request and every script but the ones built in here, named by their
hashes: text from file names and sidecars is escaped by the templates, and could not run even if it were not.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from bids_cmb import __version__
from bids_cmb.files import write_text
from bids_cmb.wording import counted


def make_environment(package: str) -> Environment:
    """Return the environment of a package's templates: everything is escaped, and nothing may be missing."""
    environment = Environment(
        loader=PackageLoader(package),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = format_number
    environment.filters["counted"] = counted
    environment.globals["version"] = __version__
    return environment


@lru_cache(maxsize=1)
def _environment() -> Environment:
    return make_environment("bids_cmb.report")


def format_number(value: float, digits: int = 1) -> str:
    """Write a number with a true minus sign and a fixed number of decimals, or a dash if it is not known."""
    if value != value:  # nan
        return "–"
    text = f"{value:.{digits}f}"
    return (
        "0" + text[2:] if float(text) == 0 and text.startswith("-0") else text.replace("-", "\N{MINUS SIGN}")
    )


def read_asset(name: str) -> str:
    """Read a style sheet or script of the templates folder."""
    return (Path(__file__).parent / "templates" / name).read_text(encoding="utf-8")


def render(template: str, styles: Sequence[str], scripts: Sequence[str], **context: object) -> str:
    """Render a page with its styles and scripts inline.

    Parameters
    ----------
    template
        File name in the templates folder.
    styles, scripts
        Their text; scripts run in this order at the end of the page.
    **context
        What the template shows.
    """
    blocks = [script.replace("</script", "<\\/script") for script in scripts]
    return _environment().get_template(template).render(
        styles=Markup("\n".join(styles)),  # noqa: S704 - our own file, no text from a dataset
        scripts=[Markup(block) for block in blocks],  # noqa: S704 - as above
        script_hashes=" ".join(f"'sha256-{_hash(block)}'" for block in blocks),
        **context,
    ) + "\n"  # fmt: skip


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")


def write_page(path: Path, text: str) -> None:
    """Write a page atomically: readers see the old one or the new one, never half of it."""
    write_text(path, text)
