"""Predictions of these tests draw their guests with short walks. tests/fit judges whole ones."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _short_walks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpusim.fit.posterior.STEPS", 150)
    monkeypatch.setattr("gpusim.fit.posterior.BURST_STEPS", 15)
