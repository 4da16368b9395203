"""A line of progress on a terminal, for commands that talk to QEMU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm


@contextmanager
def progress_line() -> Iterator[Callable[[str], None]]:
    """Yield a function that shows a text in place of the last one.

    Without a terminal it shows nothing.
    """
    with tqdm(bar_format="{desc}", leave=False, disable=None) as bar:
        yield bar.set_description_str
