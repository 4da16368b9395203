"""Do evacuations take the time of queues and of even shares of a link?"""

from __future__ import annotations

from dataclasses import replace

import pytest

from gpusim import Config, Evacuation, evacuate, simulate
from tests.engine.evacuation.hosts import BANDWIDTH, PAGE_BYTES, busy, host, idle

FRAMING = 2e-5  # 18 bytes a burst, a page a change, half a picosecond a page
SIZES = {"64MiB": 2**26, "128MiB": 2**27, "256MiB": 2**28, "512MiB": 2**29}


def link_s(memory: str) -> float:
    """Return the time of an idle guest that has the whole link."""
    return SIZES[memory] / 4096 * PAGE_BYTES / BANDWIDTH


def ends(evacuation: Evacuation) -> dict[str, float]:
    return {guest.name: guest.end_s for guest in evacuation.guests}


def fair_share_ends(sizes: dict[str, str]) -> dict[str, float]:
    """Return the ends under processor sharing if all start together.

    Sort the guests by size. When the i-th ends, each of the n - i + 1 that were left has sent
    s_i - s_(i-1) more.
    """
    done, before, at_s = {}, 0.0, 0.0
    ranked = sorted(sizes, key=lambda name: SIZES[sizes[name]])
    for place, name in enumerate(ranked):
        alone_s = link_s(sizes[name])
        at_s += (len(ranked) - place) * (alone_s - before)
        done[name], before = at_s, alone_s
    return done


@pytest.mark.parametrize("at_a_time", [1, 2, 3, 6, 9])
def test_equal_idle_guests_take_the_same_time_for_any_number_at_a_time(at_a_time: int) -> None:
    result = evacuate(host({"web": idle("128MiB", count=6)}, at_a_time))
    assert result.summary.verdict == "converged"
    assert result.summary.total_time_s == pytest.approx(6 * link_s("128MiB"), rel=FRAMING)
    assert result.summary.link_used_percent == pytest.approx(100, rel=1e-3)


@pytest.mark.parametrize(
    "sizes",
    [
        {"a": "64MiB", "b": "128MiB", "c": "512MiB"},
        {"a": "512MiB", "b": "64MiB"},
        {"a": "256MiB", "b": "128MiB", "c": "256MiB", "d": "64MiB"},
    ],
)
def test_guests_that_start_together_end_as_under_processor_sharing(
    sizes: dict[str, str],
) -> None:
    guests = {name: idle(memory) for name, memory in sizes.items()}
    result = evacuate(host(guests, at_a_time=len(sizes)))
    wanted = fair_share_ends(sizes)
    assert ends(result) == pytest.approx(wanted, rel=FRAMING, abs=1e-3)


def test_two_at_a_time_by_hand() -> None:
    """The unit is the time of 64 MiB alone: a needs 8, b needs 1 and c needs 4.

    b is out at 2, when a has 7 left. c is out 8 later, at 10, when a has 3 left. a then has the
    whole link and is out at 13, the sum.
    """
    guests = {"a": idle("512MiB"), "b": idle("64MiB"), "c": idle("256MiB")}
    result = evacuate(host(guests, at_a_time=2))
    unit_s = link_s("64MiB")
    wanted = {"b": 2 * unit_s, "c": 10 * unit_s, "a": 13 * unit_s}
    assert ends(result) == pytest.approx(wanted, rel=FRAMING, abs=1e-3)
    assert [guest.name for guest in result.guests] == ["a", "b", "c"]
    assert result.guests[2].start_s == ends(result)["b"]


def test_a_link_that_changes_is_shared_evenly() -> None:
    """Two guests of 64 MiB share 100 MB/s for a second, then 400 MB/s."""
    result = evacuate(host({"web": idle("64MiB", count=2)}, 2, changes=[[1, "400MB/s"]]))
    left = 2 * link_s("64MiB") * BANDWIDTH - 1e8
    assert result.summary.total_time_s == pytest.approx(1 + left / 4e8, rel=1e-4)


def test_one_at_a_time_is_one_run_after_the_other() -> None:
    guests = {"a": busy("256MiB", 2e4), "b": idle("64MiB"), "c": busy("128MiB", 1e3)}
    whole = host(guests)
    result = evacuate(whole)
    at_s = 0.0
    for index, guest in enumerate(result.guests):
        one = guests[guest.name]
        seed = whole.seed + index
        alone = replace(whole, vm=one.vm, workload=one.workload, evacuation=None, seed=seed)
        run = simulate(alone)
        assert (guest.result.syncs, guest.result.events) == (run.syncs, run.events)
        assert guest.start_s == pytest.approx(at_s, abs=1e-9)
        at_s += run.summary.total_time_s
    assert result.summary.total_time_s == pytest.approx(at_s, abs=1e-9)
    assert result.summary.simulated_runs == 3


def test_max_bandwidth_below_the_share_makes_guests_independent() -> None:
    """Three guests with 10 MB/s each take as long as one, except for the final pages."""
    guests = {"web": idle("64MiB", count=3)}
    together, alone = (
        evacuate(host(guests, k, max_bandwidth=10_000_000)).summary.total_time_s for k in (3, 1)
    )
    assert together == pytest.approx(alone / 3, rel=0.02)


def test_a_guest_that_does_not_converge_stays_behind_and_frees_its_place() -> None:
    stubborn = busy("256MiB", 1e6, share=100)
    stubborn.workload.throttled = False  # type: ignore[attr-defined]
    result = evacuate(host({"device": stubborn, "web": idle("64MiB", count=2)}))
    summary = result.summary
    assert (summary.verdict, summary.left_behind) == ("not_converged", ["device"])
    assert summary.reason_code == "guest_left_behind"
    assert result.guests[0].result.summary.reason in summary.reason
    assert [guest.result.summary.verdict for guest in result.guests] == [
        "not_converged",
        "converged",
        "converged",
    ]
    assert result.guests[1].start_s == result.guests[0].end_s


def test_a_guest_at_its_time_limit_stays_behind() -> None:
    whole = host({"big": idle("512MiB"), "web": idle("64MiB")}, 2)
    result = evacuate(replace(whole, limit=replace(whole.limit, simulated="4s")))
    assert (result.summary.verdict, result.summary.left_behind) == ("time_limit", ["big"])
    assert ends(result)["big"] == pytest.approx(4, abs=0.1)


def test_an_evacuation_that_the_wall_clock_stops_has_no_verdict() -> None:
    whole = host({"web": idle("512MiB", count=3)}, 2)
    result = evacuate(replace(whole, limit=replace(whole.limit, wall="1ns")))
    assert (result.summary.status, result.summary.verdict) == ("incomplete", None)
    assert result.summary.left_behind == ["web-1", "web-2", "web-3"]


def test_orders() -> None:
    guests = {
        "calm": busy("256MiB", 1e3),
        "big": idle("512MiB"),
        "wild": busy("128MiB", 1e6),
        "small": idle("64MiB"),
        "hot": busy("256MiB", 1e6, share=0.1),  # many writes, to few pages
    }

    def started(order: str) -> list[str]:
        return [guest.name for guest in evacuate(host(guests, 1, order)).guests]

    assert started("as_listed") == ["calm", "big", "wild", "small", "hot"]
    assert started("smallest_first") == ["small", "wild", "calm", "hot", "big"]
    assert started("largest_first") == ["big", "calm", "hot", "wild", "small"]
    assert started("calmest_first") == ["big", "small", "hot", "calm", "wild"]
    assert started("busiest_first") == ["wild", "calm", "hot", "big", "small"]


def test_the_losses_of_the_guests_add_up() -> None:
    result = evacuate(host({"a": busy("256MiB", 6e4), "b": busy("128MiB", 5e4)}, 2))
    lost = [guest.result.summary.guest_cpu_lost_s for guest in result.guests]
    vcpu_s = 4 * result.summary.total_time_s  # two of each, waiting or not
    assert min(lost) > 0
    faults = [guest.result.summary.write_faults for guest in result.guests]
    assert result.summary.write_faults == sum(faults) > 0
    assert result.summary.guest_cpu_lost_s == pytest.approx(sum(lost))
    assert result.summary.guest_cpu_lost_percent == pytest.approx(100 * sum(lost) / vcpu_s)


def test_the_seed_of_a_guest_does_not_depend_on_the_order() -> None:
    guests = {"a": busy("256MiB", 2e4), "b": busy("64MiB", 1e3)}
    for order in ("largest_first", "smallest_first"):
        by_name = {g.name: g.config.seed for g in evacuate(host(guests, 1, order)).guests}
        assert by_name == {"a": 1, "b": 2}


def test_simulate_does_not_read_an_evacuation() -> None:
    with pytest.raises(ValueError, match=r"^evacuation = .*gpusim.evacuate"):
        simulate(host({"a": idle("64MiB")}))
    with pytest.raises(ValueError, match=r"^evacuation = "):
        evacuate(Config())


def test_a_link_without_a_limit_after_the_end_does_not_count() -> None:
    changes: list[list[object]] = [["1h", "unlimited"]]
    later = evacuate(host({"web": idle("64MiB")}, changes=changes)).summary
    never = evacuate(host({"web": idle("64MiB")})).summary
    assert later.link_used_percent == never.link_used_percent
    assert later.link_gbit_per_s == never.link_gbit_per_s == pytest.approx(BANDWIDTH * 8 / 1e9)
    assert later.sending_gbit_per_s == never.sending_gbit_per_s
