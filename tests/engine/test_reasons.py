"""Does every reason code have a text?"""

from __future__ import annotations

from gpusim.engine.reasons import REASON_CODES, reason_text
from gpusim.text import Message
from tests.golden import check_golden

GIB = 2**30
STALLED = {
    "throttle_percent": 99,
    "over_s": 60,
    "over_passes": 10,
    "less_than_percent": 2,
    "smallest_bytes": 3 * GIB,
    "threshold_bytes": GIB // 4,
}
CONVERGED = {
    "time_s": 12.34,
    "passes": 3,
    "throttle_percent": 20,
    "downtime_ms": 123.4,
    "downtime_limit_ms": 300,
    "pause_s": 0.0,
}
CANCELLED = Message("cancelled_by_manager", {"time_s": 7.6, "manager": "Quitter", "why": "enough"})
REASONS = [
    Message("converged", CONVERGED),
    Message("converged", {**CONVERGED, "passes": 1, "throttle_percent": 0, "pause_s": 5.0}),
    Message(
        "postcopy", {"time_s": 8.06, "switch_s": 5.05, "downtime_ms": 61.4, "postcopy_s": 2.95}
    ),
    Message("postcopy_paused", {"time_s": 60.0, "remaining_bytes": GIB}),
    Message("link_lost", {"time_s": 4.0}),
    Message("throttle_at_maximum", STALLED),
    Message("no_throttle_to_raise", {**STALLED, "throttle_percent": 0}),
    Message("simulated_limit", {"time_s": 3600.0, "remaining_bytes": GIB, "throttle_percent": 50}),
    Message("wall_limit"),
    Message("cancelled_by_schedule", {"time_s": 60.02}),
    CANCELLED,
    Message("cancelled_by_manager", {"time_s": 7.6, "manager": "Quitter", "why": ""}),
    Message("aborted_by_leftover_timer", {"cancelled": CANCELLED, "later_s": 5.0}),
    Message(
        "all_guests_out",
        {"guests": 3, "vm_bytes": 48 * GIB, "time_s": 99.5, "at_a_time": 2, "order": "as_listed"},
    ),
    Message("guest_left_behind", {"guest": "db", "others": [], "reason": CANCELLED}),
    Message("guest_left_behind", {"guest": "db", "others": ["web"], "reason": CANCELLED}),
    Message("guests_at_wall_limit", {"out": 1, "guests": 3}),
]


def test_every_code_has_its_text() -> None:
    assert {reason.code for reason in REASONS} == set(REASON_CODES)
    lines = [f"{reason.code}: {reason_text(reason)}" for reason in REASONS]
    check_golden("reasons", "\n".join(lines) + "\n")
