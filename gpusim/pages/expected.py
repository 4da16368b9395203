"""The primitives without bitmaps: they expect numbers of pages instead of drawing.

Dry runs, predictions and searches use them.

A piece is a run of pages that are written alike. Each piece has a few shares of its pages, such as
pending, or clean and zero. A cell writes each of its pages with one probability,
so a draw multiplies shares. A piece is cut at the sender's cursor. Apart from chance, decisions are
those of a run with bitmaps. The kernels count draws and keep some of their steps for timing.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gpusim.layout import (
    CHUNK_PAGES,
    CHUNK_SHIFT,
    FloatArray,
    IntArray,
    U64Array,
    among,
    expand,
    rising,
)
from gpusim.pages.budget import Budget
from gpusim.pages.draw import Cells
from gpusim.pages.primitives import ChunkTaken, Counts, Op, Step

KEPT = 16  # draws kept for timing, spread over the run
# Shares of a piece's pages: pending with content, pending and zero, clean and zero, in the log,
# clean and in the log and left zero since the last sync.
NORMAL, ZERO, CLEAN_ZERO, LOGGED, LOGGED_ZERO = range(5)
# With more pieces none is cut at the cursor, and what a sequential writer passed of a chunk is spread
# over it.
MOST_PIECES = 25_000
MERGED_FROM = 4000  # with more pieces, a sync merges those that are alike again


class ExpectedKernels:
    """See primitives.Kernels. There are no bits to `read`.

    Args:
        chunks: number of chunks.
        log, zero: whether the log and the zero bitmap exist.

    Attributes:
        sample_chunks: number of chunks of a draw to keep. 0: keep no draw, and count none.
        chunks_drawn: for each draw, the number of chunks of each of its steps.
        kept: samples of the steps of some draws, by index in `chunks_drawn`. The first draw is
            kept. Chunks of a sample are numbered from 0.
        spent_s: seconds spent in this class, which a run with bitmaps does not spend.
    """

    def __init__(self, chunks: int, *, log: bool, zero: bool) -> None:
        self.dirty, self.log, self.zero = "dirty", "log" if log else None, "zero" if zero else None
        self._chunks = chunks
        self._borders: IntArray = np.arange(chunks + 1) << CHUNK_SHIFT
        self._starts: IntArray = np.arange(chunks) << CHUNK_SHIFT
        self._chunk_of: IntArray = np.arange(chunks)  # of each piece
        self._shares: FloatArray = np.zeros((5, chunks))
        self._pages, self._normal_pages, self._zero_pages = np.zeros((3, chunks), np.int64)
        self.sample_chunks = 0
        self.chunks_drawn: list[list[int]] = []
        self.kept: dict[int, list[Step]] = {}
        self.spent_s = 0.0
        self._keep_every = 1
        self._cursor_cut: int | None = None  # the cursor's slot, if a piece was cut only for it

    def fill(self, bitmap: str, first: IntArray, last: IntArray) -> None:
        """Set the pages of runs, first those of the dirty bitmap, then those of the zero bitmap."""
        self._cut(np.concatenate([first, last]))
        pieces = self._pieces(first, last)
        if bitmap == self.log:
            self._shares[LOGGED, pieces] = 1.0
            return
        self._shares[NORMAL, pieces] = bitmap == self.dirty
        self._shares[ZERO, pieces] = bitmap == self.zero
        if bitmap == self.dirty:
            np.add.at(self._pages, first >> CHUNK_SHIFT, last - first)
        self._normal_pages = self._in_chunks(self._shares[NORMAL])
        self._zero_pages = self._in_chunks(self._shares[ZERO])

    def paint(self, steps: Sequence[Step]) -> list[Counts]:
        """Return what the steps of one draw are expected to change."""
        start = time.perf_counter()
        self._keep(steps)
        counts = self._paint(steps)
        self.spent_s += time.perf_counter() - start
        return counts

    def _paint(self, steps: Sequence[Step]) -> list[Counts]:
        counts = []
        self._merge_alike()
        cleared: NDArray[np.bool_] = np.zeros(self._chunks, np.bool_)
        logs_only = False
        for step in steps:
            written = self._written(step)
            if step.mask is not None:
                counts.append(self._leave_zero(step, step.mask, is_pending=not logs_only))
                continue
            logs_only = step.op is Op.CLEAR_LOG
            dirtied, logged = written, self._shares[LOGGED]
            if step.op is Op.CLEAR_LOG:
                cleared[step.chunks] = True
                logged[:] = np.where(cleared[self._chunk_of], written * (1 - logged), logged)
                dirtied = np.zeros_like(written)
            elif step.op is Op.MERGE_LOG:
                logged[:] = 1 - (1 - logged) * (1 - written)
                # In a chunk of which no page was sent since the last sync,
                # logged pages are pending.
                dirtied = np.where(cleared[self._chunk_of], logged, written)
            counts.append(self._change(step, dirtied, written))
        return counts

    def clear_chunks(self, first: int, last: int) -> None:
        """Clear the pending pages of chunks first <= chunk < last."""
        self._send(self._of_chunks(first, last), 1.0)
        self._normal_pages[first:last] = self._zero_pages[first:last] = 0

    def clear_in_chunk(self, chunk: int, page: int, budgets: Sequence[Budget]) -> ChunkTaken:
        """Take pending pages of a chunk, see primitives.Kernels."""
        start = time.perf_counter()
        taken = self._clear_in_chunk(chunk, page, budgets)
        self.spent_s += time.perf_counter() - start
        return taken

    def _clear_in_chunk(self, chunk: int, page: int, budgets: Sequence[Budget]) -> ChunkTaken:
        pending = int(self._normal_pages[chunk]), int(self._zero_pages[chunk])
        if not page and all(budget.less(*pending).limit >= 0 for budget in budgets):
            self.clear_chunks(chunk, chunk + 1)
            return ChunkTaken(CHUNK_PAGES, *pending, False)
        start, end = chunk << CHUNK_SHIFT, (chunk + 1) << CHUNK_SHIFT
        low = int(self._borders.searchsorted(start + page, side="right")) - 1
        high = int(self._borders.searchsorted(end))
        pages = self._borders[low + 1 : high + 1] - self._borders[low:high]
        normal, zero = self._shares[NORMAL, low:high] * pages, self._shares[ZERO, low:high] * pages
        place = min(_lasts(normal * b.normal + zero * b.zero, b.limit) for b in budgets)
        piece, part = int(place), place % 1.0
        inside = [part * kind[piece] if part else 0.0 for kind in (normal, zero)]
        taken_normal = min(pending[0], int(normal[:piece].sum() + inside[0]))
        taken_zero = min(pending[1], int(zero[:piece].sum() + inside[1]))
        if piece < len(pages) and not taken_normal + taken_zero:
            # The next page has one kind, and a page of that kind may fit.
            fits = [all(b.less(*one).limit >= 0 for b in budgets) for one in ((1, 0), (0, 1))]
            taken_normal = int(pending[0] > 0 and fits[0])
            taken_zero = int(pending[1] > 0 and fits[1] and not taken_normal)
        # Parts are rounded down, so a chunk may hold pages that its shares do not contain any more.
        unknown = piece == len(pages) and not page and not taken_normal + taken_zero
        if unknown:
            taken_normal, taken_zero = _fitting(pending, budgets)
        self._send(self._shares[:, low : low + piece], 1.0)
        self._normal_pages[chunk] -= taken_normal
        self._zero_pages[chunk] -= taken_zero
        if piece == len(pages):
            return ChunkTaken(CHUNK_PAGES - unknown, taken_normal, taken_zero, unknown)
        slot = int(self._borders[low + piece] + part * pages[piece])
        slot = min(max(slot, start + page), end - 1)
        self._send_up_to(low + piece, slot, part)
        return ChunkTaken(slot - start, taken_normal, taken_zero, True)

    def _send_up_to(self, piece: int, slot: int, part: float) -> None:
        """Send the front of a piece.

        If there are few pieces, cut the piece behind its front and merge the last such cut.
        """
        if len(self._borders) > MOST_PIECES:
            self._send(self._shares[:, piece : piece + 1], part)
            return
        last_cut, before = self._cursor_cut, len(self._borders)
        if last_cut is not None and self._borders[piece] == last_cut < slot:
            self._move_cut(piece, slot)
            return
        if self._borders[piece] < slot:
            self._cut_piece(piece, slot)
            self._send(self._shares[:, piece : piece + 1], 1.0)
        self._cursor_cut = slot if len(self._borders) > before or slot == last_cut else None
        if last_cut is not None and last_cut != slot:
            at = int(self._borders.searchsorted(last_cut))
            lengths = np.diff(self._borders[at - 1 : at + 2])
            self._shares[:, at - 1] = self._shares[:, at - 1 : at + 1] @ (lengths / lengths.sum())
            self._shares = np.concatenate((self._shares[:, :at], self._shares[:, at + 1 :]), axis=1)
            self._borders = np.concatenate((self._borders[:at], self._borders[at + 1 :]))
            self._chunk_of = self._borders[:-1] >> CHUNK_SHIFT

    def _move_cut(self, piece: int, slot: int) -> None:
        """Move the cursor's cut, at which a piece begins, to a later slot of this piece.

        The pages in between are sent and belong to the piece before.
        """
        passed = self._shares[:, piece : piece + 1].copy()
        self._send(passed, 1.0)
        start, last_cut = self._borders[piece - 1 : piece + 1].tolist()
        part = (slot - last_cut) / (slot - start)
        self._shares[:, piece - 1] += part * (passed[:, 0] - self._shares[:, piece - 1])
        self._borders[piece] = self._cursor_cut = slot

    @staticmethod
    def _send(shares: FloatArray, part: float) -> None:
        """Send a part of the pending pages of pieces."""
        shares[CLEAN_ZERO] += part * shares[ZERO]
        shares[NORMAL : ZERO + 1] *= 1 - part

    def read(self, bitmap: str, first: int, last: int) -> U64Array:
        """Raise an error, because there are no bits.

        Raises:
            TypeError: always.
        """
        raise TypeError(f"the bitmap {bitmap!r} has no bits, because pages are only counted")

    def pending_shares(self, cuts: IntArray) -> tuple[IntArray, FloatArray, FloatArray]:
        """Return the pieces after cuts at some slots, with their pending pages.

        Args:
            cuts: int64 [n], slots.

        Returns:
            int64 [pieces + 1], the borders of the pieces. float64 [pieces] each, the share of the
            pages that are pending and normal, and pending and zero.
        """
        self._cut(cuts)
        return self._borders, self._shares[NORMAL], self._shares[ZERO]

    def close(self) -> None:
        """Do nothing, because there is no device memory."""

    def _keep(self, steps: Sequence[Step]) -> None:
        """Count a draw, and keep a sample of every n-th draw."""
        if not self.sample_chunks:
            return
        draw = len(self.chunks_drawn)
        self.chunks_drawn.append([len(step.chunks) for step in steps])
        if draw % self._keep_every == 0:
            self.kept[draw] = [_sample(step, self.sample_chunks) for step in steps]
            if len(self.kept) > KEPT:
                self._keep_every *= 2
                self.kept = {i: s for i, s in self.kept.items() if i % self._keep_every == 0}

    def _change(self, step: Step, dirtied: FloatArray, written: FloatArray) -> Counts:
        """Make pages dirty, and let zero pages get content, each with its probability."""
        normal, zero, clean_zero, _logged, logged_zero = self._shares
        unzeroed = zero * written
        new = np.maximum(0.0, 1 - normal - zero) * dirtied
        unzeroed_pages = np.clip(self._in_chunks(unzeroed), 0, self._zero_pages)
        clean_pages = self._pages - self._normal_pages - self._zero_pages
        new_pages = np.clip(self._in_chunks(new), 0, clean_pages)
        zero -= unzeroed
        normal += unzeroed + new
        clean_zero *= (1 - dirtied) * (1 - written)
        self._zero_pages -= unzeroed_pages
        self._normal_pages += unzeroed_pages + new_pages
        if step.op is Op.MERGE_LOG and logged_zero.any():  # a page may be new and zero
            new_zero = np.minimum(logged_zero * (1 - written), normal)
            normal -= new_zero
            zero += new_zero
            logged_zero[:] = 0
            unzeroed_pages = unzeroed_pages - self._make_zero(new_zero)
        return Counts(new=new_pages[step.chunks], unzeroed=unzeroed_pages[step.chunks])

    def _leave_zero(self, step: Step, mask: Cells, *, is_pending: bool) -> Counts:
        """Let pages that the step before wrote become zero, each with its probability.

        Args:
            step: has the same cells as the step before. The pieces are cut at its cells.
            mask: the cells of the pages that are left zero if they are written.
            is_pending: all written pages are pending now. Otherwise they are only in the log.
        """
        zeroed = self._marked(mask, step.chunks)  # cuts more pieces
        written = self._written(step)
        normal, zero, clean_zero, logged, logged_zero = self._shares
        new_zero = zeroed * written * (1.0 if is_pending else normal + zero)
        new_zero = np.minimum(new_zero, normal)
        if not is_pending:
            clean = 1 - normal - zero
            clean_zero += np.minimum(zeroed * written * clean, clean - clean_zero)
            logged_zero[:] = zeroed * logged * clean
        normal -= new_zero
        zero += new_zero
        return Counts(
            new=np.zeros(len(step.chunks), np.int64),
            unzeroed=-self._make_zero(new_zero)[step.chunks],
        )

    def _make_zero(self, share: FloatArray) -> IntArray:
        """Count a share of each piece's pending pages as zero pages. Return them, int64 [chunks]."""
        pages = np.minimum(self._in_chunks(share), self._normal_pages)
        self._normal_pages -= pages
        self._zero_pages += pages
        return pages

    def _written(self, step: Step) -> FloatArray:
        """The probability that a step writes the pages of each piece, float64 [pieces]."""
        return self._marked(step.cells, step.chunks)

    def _marked(self, cells: Cells, chunks: IntArray) -> FloatArray:
        """The probability that cells mark the pages of each piece, float64 [pieces]."""
        chosen = among(cells.first >> CHUNK_SHIFT, chunks)
        certain = chosen & (cells.key == 0)  # a sequential writer passed these pages
        drawn = chosen & ~certain
        first, last = cells.first[drawn], cells.last[drawn]
        passed = cells.first[certain], cells.last[certain]
        is_exact = not len(passed[0]) or len(self._borders) + 2 * len(passed[0]) <= MOST_PIECES
        self._cut(np.concatenate([first, last, *(passed if is_exact else ())]))
        if cells.mean is not None:
            likely = -np.expm1(-cells.mean[drawn])
        else:
            missed = 1 - cells.threshold[drawn] / 256
            missed = missed * np.exp(-cells.count[drawn] / np.maximum(1, last - first))
            likely = np.where(cells.inverted[drawn], missed, 1 - missed)
        written = np.zeros(len(self._borders) - 1)
        lengths = self._borders.searchsorted(last) - self._borders.searchsorted(first)
        written[self._pieces(first, last)] = np.repeat(likely, lengths)
        if is_exact:
            written[self._pieces(*passed)] = 1.0
        else:
            runs: FloatArray = np.zeros(self._chunks)
            np.add.at(runs, passed[0] >> CHUNK_SHIFT, passed[1] - passed[0])
            runs = np.minimum(1.0, runs / np.maximum(1, self._pages))
            written = 1 - (1 - written) * (1 - runs[self._chunk_of])
        return written

    def _cut(self, borders: IntArray) -> None:
        """Cut pieces at all of these slots."""
        if self._cursor_cut is not None and (borders == self._cursor_cut).any():
            self._cursor_cut = None  # this cut is permanent now
        at = np.minimum(self._borders.searchsorted(borders), len(self._borders) - 1)
        new = borders[self._borders[at] != borders]
        if len(new):
            new = rising(new)
            cut = np.insert(self._borders, self._borders.searchsorted(new), new)
            own = self._borders.searchsorted(cut[:-1], side="right") - 1
            self._borders, self._shares = cut, self._shares[:, own]
            self._chunk_of = cut[:-1] >> CHUNK_SHIFT

    def _cut_piece(self, piece: int, slot: int) -> None:
        """Cut one piece at a slot inside it or at its end."""
        if self._borders[piece + 1] == slot:
            return
        cut = np.array([slot])
        self._borders = np.concatenate(
            (self._borders[: piece + 1], cut, self._borders[piece + 1 :])
        )
        self._shares = np.concatenate(
            (self._shares[:, : piece + 1], self._shares[:, piece:]), axis=1
        )
        self._chunk_of = self._borders[:-1] >> CHUNK_SHIFT

    def _merge_alike(self) -> None:
        """Merge neighbours with the same shares, if there are many pieces."""
        if len(self._borders) <= MERGED_FROM:
            return
        differs = (self._shares[:, 1:] != self._shares[:, :-1]).any(axis=0)
        differs |= self._chunk_of[1:] != self._chunk_of[:-1]
        if self._cursor_cut is not None:
            differs |= self._borders[1:-1] == self._cursor_cut
        kept = np.concatenate([[True], differs])
        self._shares = self._shares[:, kept]
        self._borders = np.append(self._borders[:-1][kept], self._borders[-1])
        self._chunk_of = self._borders[:-1] >> CHUNK_SHIFT

    def _pieces(self, first: IntArray, last: IntArray) -> IntArray:
        """The indexes of the pieces of runs that end at borders."""
        low, high = self._borders.searchsorted(first), self._borders.searchsorted(last)
        return expand(low, high - low)

    def _of_chunks(self, first: int, last: int) -> FloatArray:
        """The shares of the pieces of some chunks, a view."""
        ends = np.array([first, last]) << CHUNK_SHIFT
        low, high = self._borders.searchsorted(ends)
        return self._shares[:, low:high]

    def _in_chunks(self, share: FloatArray) -> IntArray:
        """The pages of each chunk that a share per piece makes, int64 [chunks]."""
        of_chunk = self._borders.searchsorted(self._starts)
        pages = share * np.diff(self._borders)
        return np.rint(np.add.reduceat(pages, of_chunk)).astype(np.int64)


def _sample(step: Step, most: int) -> Step:
    """Some chunks from the beginning, middle and end of a step, renumbered from 0."""
    chunks, cells = step.chunks, step.cells
    if len(chunks) > most:
        part, middle = most // 3, len(chunks) // 2
        ends = [chunks[:part], chunks[middle : middle + part], chunks[-part:]]
        chunks = np.unique(np.concatenate(ends))
    sampled = _sample_cells(cells, chunks)
    mask = None if step.mask is None else _sample_cells(step.mask, chunks)
    return Step(step.op, sampled, np.arange(len(chunks)), mask)


def _sample_cells(cells: Cells, chunks: IntArray) -> Cells:
    """The cells of some chunks, which are renumbered from 0."""
    cell_chunk = cells.first >> CHUNK_SHIFT
    chosen = among(cell_chunk, chunks)
    number = np.searchsorted(chunks, cell_chunk[chosen])
    moved = (number - cell_chunk[chosen]) << CHUNK_SHIFT
    return Cells(
        first=cells.first[chosen] + moved,
        last=cells.last[chosen] + moved,
        threshold=cells.threshold[chosen],
        count=cells.count[chosen],
        key=cells.key[chosen],
        inverted=cells.inverted[chosen],
        mean=None if cells.mean is None else cells.mean[chosen],
    )


def _fitting(pending: tuple[int, int], budgets: Sequence[Budget]) -> tuple[int, int]:
    """How many of these normal and zero pages every budget lasts for, normal pages first."""
    normal = min([pending[0], *(max(0, b.limit) // b.normal for b in budgets if b.normal)])
    left = [b.less(normal, 0) for b in budgets]
    return normal, min([pending[1], *(max(0, b.limit) // b.zero for b in left if b.zero)])


def _lasts(cost: FloatArray, limit: int) -> float:
    """How many pieces of these costs a limit lasts for, including the part of the last piece."""
    running = cost.cumsum()
    whole = int(running.searchsorted(limit, side="right"))
    if whole == len(cost):
        return float(whole)
    return whole + float((limit - (running[whole] - cost[whole])) / cost[whole])
