"""Runs of gpusim as a monitoring script would see them: answers to query-migrate at fixed intervals."""

from __future__ import annotations

from typing import Any, TypeAlias

from gpusim.config.backend import choose_backend
from gpusim.config.scenario import resolve
from gpusim.config.schema import Config
from gpusim.engine.migration import Migration
from gpusim.engine.records import Result
from gpusim.units import NS_PER_MS, NS_PER_S

Answer: TypeAlias = dict[str, Any]
PAGE_BYTES = 4096


class AnsweringMigration(Migration):
    """A migration that answers query-migrate every `interval_ns`, in whole milliseconds as QEMU."""

    def __init__(self, config: Config, interval_ns: int) -> None:
        scenario = resolve(config)
        super().__init__(scenario, choose_backend(scenario))
        self.answers: list[Answer] = []
        self._interval_ns = self._due_ns = interval_ns
        self._recorder.sample_if_due = self._answer_if_due  # type: ignore[method-assign]

    def _next_sync_ns(self) -> int:
        return min(super()._next_sync_ns(), self._due_ns)

    def _answer_if_due(self) -> None:
        if self.state.clock.now_ns >= self._due_ns:
            self.answers.append(self.answer("active"))
            self._due_ns += self._interval_ns

    def answer(self, status: str) -> Answer:
        state = self.state
        counters, percent = state.sender.counters, state.run_time.percent
        found = {
            "status": status,
            "total-time": state.clock.now_ns // NS_PER_MS,
            "setup-time": 0,
            "ram": {
                "total": state.scenario.layout.pages * PAGE_BYTES,
                "transferred": counters.transferred_bytes,
                "remaining": state.pages.pending * PAGE_BYTES,
                "normal": counters.normal_pages,
                "duplicate": counters.zero_pages,
                "dirty-sync-count": state.accounting.dirty_sync_count,
                "dirty-pages-rate": state.accounting.dirty_pages_rate,
                "mbps": state.sender.bandwidth * 8 / 1e6,
                "page-size": PAGE_BYTES,
            },
        }
        return found | ({"cpu-throttle-percentage": percent} if percent else {})


def answers_of(config: Config, interval_s: float = 0.2) -> tuple[Result, list[Answer]]:
    """Return a run, and query-migrate's answers at fixed intervals and at the end."""
    migration = AnsweringMigration(config, round(interval_s * NS_PER_S))
    try:
        result = migration.run()
        answers = migration.answers
        if result.summary.verdict == "converged":
            assert result.summary.downtime_ms is not None
            end = migration.answer("completed") | {"downtime": round(result.summary.downtime_ms)}
            del end["ram"]["dirty-pages-rate"]
            answers.append(end)
    finally:
        migration.close()
    return result, answers
