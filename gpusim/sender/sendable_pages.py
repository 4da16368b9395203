"""The interface of the pages that the sender sends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from gpusim.layout import IntArray, Taken


class SendablePages(Protocol):
    """Everything that the sender sees of the pages."""

    @property
    def pending(self) -> int:
        """Number of pages to send."""

    @property
    def at_end(self) -> bool:
        """Whether no page to send lies ahead of the cursor, so that it wraps next."""

    @property
    def mixes_kinds(self) -> bool:
        """Whether both normal and zero pages are pending."""

    def run_ahead(self, *, wraps: bool) -> tuple[bool, int]:
        """Return whether the next pages are zero pages, and how many are certainly of one kind."""

    def clears_ahead(self, pages: int) -> tuple[IntArray, IntArray, IntArray] | None:
        """Return the remote clears among the next pages.

        Returns:
            int64 [n] each: pages before each clear, pages that the clear protects, and those of them
            that no clear has protected before. None if that is not known.
        """

    def host_page_ends(self, size: int, number: int) -> IntArray:
        """Return the pages to send up to the end of each of the next host pages, int64 [n]."""

    def take(
        self, budgets: Sequence[tuple[int, int, int]], *, clear: tuple[int, int, int], wraps: bool
    ) -> Taken:
        """Take pages from the cursor on while all budgets last. Clears use the last budget."""
