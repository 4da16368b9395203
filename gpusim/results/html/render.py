"""Renders the Jinja2 templates of this package, and of packages that build on them, to HTML.

All text that a template receives is escaped. A name that a template does not receive is an error.
"""

from __future__ import annotations

import base64
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).with_name("templates")


def render(template: str, *folders: Path, **values: Any) -> str:
    """Return a template as HTML.

    Args:
        template: the file name of the template.
        folders: further folders with templates, searched before this package's own.
        values: the names that the template uses.
    """
    return _environment(folders).get_template(template).render(**values)


@cache
def _environment(folders: tuple[Path, ...]) -> Environment:
    """Return an environment, which keeps the compiled templates for the next page."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader([*folders, TEMPLATES]),
        undefined=StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["data_url"] = _data_url
    return environment


def _data_url(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
