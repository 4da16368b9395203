"""The shape of a recording's document: its keys, their types, units and ranges.

gpusim/validation/data/README.md describes the keys for people. recording_file.py checks what no
single value shows: counters that fall, and times that contradict each other.
"""

from __future__ import annotations

from gpusim.qemu.parameters import MOST_DOWNTIME_LIMIT_MS, MOST_MULTIFD_CHANNELS
from gpusim.shapes import Anything, Flag, Keys, Number, OneOf, Row, Rows, Shape, Text, Whole
from gpusim.units import MIB, MOST_BYTES, MOST_COUNT, MOST_VCPUS

TIME = Number(-1e9, 1e12, " s")
DURATION_MS = Number(0, 1e12, " ms")
BYTES = Whole(unit=" bytes")
PAGES = Whole(0, MOST_COUNT, " pages")
COUNT = Whole(0, MOST_COUNT)
MEBIBYTES = Whole(1, 2**30, " MiB")
RATE = Number(0, 1e15, " page writes a second")
PERCENT = Whole(1, 99, " %")
VCPUS = Whole(1, MOST_VCPUS)
PART = Whole(0, 999)  # of a version
RAM_KEYS = ("transferred", "remaining", "duplicate", "normal", "dirty-sync-count")
COUNTERS = (*RAM_KEYS, "total")  # of query-migrate's ram

GUEST = Keys(
    required={"base": Whole(0, 2**30, " MiB"), "size": MEBIBYTES, "mode": OneOf((0, 1))},
    optional={
        "rate": RATE,
        "delay": Number(0, 1e12, " loops"),
        "paced": Flag(),
        "hot": Whole(0, 2**30, " MiB"),
        "hotpct": Number(0, 100, " %"),
        "fill": MEBIBYTES,
    },
    defaults={"paced": False},
    together=(("hot", "hotpct"),),
)
# Answers of QEMU, which its monitor and a log of virsh hold.
VERSION_PARTS = ("major", "minor", "micro")
VERSION_ANSWER = Keys({"qemu": Keys(dict.fromkeys(VERSION_PARTS, PART))})
KVM_ANSWER = Keys({"enabled": Flag()})
# The limits are QEMU's. Source: migration/options.c:migrate_params_check.
PARAMETERS = Keys(
    required={
        "max-bandwidth": BYTES,
        "downtime-limit": Whole(0, MOST_DOWNTIME_LIMIT_MS, " ms"),
        "throttle-trigger-threshold": Whole(1, 100, " %"),
        "cpu-throttle-initial": PERCENT,
        "cpu-throttle-increment": PERCENT,
        "cpu-throttle-tailslow": Flag(),
        "max-cpu-throttle": PERCENT,
    },
    optional={
        "avail-switchover-bandwidth": BYTES,
        "multifd-channels": Whole(1, MOST_MULTIFD_CHANNELS),
        "multifd-compression": Text(),
    },
    defaults={"multifd-channels": 2, "multifd-compression": "none"},
)
EVENTS = Rows(Row((TIME, Text(), Anything()), allowed="must be [seconds, name, arguments]"))
COUNTER = Rows(Row((TIME, COUNT), allowed="must be [seconds, writes]"))
SAMPLE: dict[str, Shape] = {
    "transferred": BYTES,
    "remaining": BYTES,
    "duplicate": PAGES,
    "normal": PAGES,
    "dirty-sync-count": COUNT,
    "dirty-pages-rate": COUNT,
    "total": Whole(MIB, MOST_BYTES, " bytes"),
    "total-time": DURATION_MS,
    "downtime": DURATION_MS,
    "downtime-bytes": BYTES,
    "cpu-throttle-percentage": Whole(0, 99, " %"),
    "mbps": Number(0, 1e9, " Mbit/s"),
    "xbzrle-pages": PAGES,
}


def document_shape(*, known: bool) -> Keys:
    """Return the shape of a recording.

    Args:
        known: whether the guest is known. Then its writes were counted.
    """
    scenario: dict[str, Shape] = {"mem_mib": MEBIBYTES, "capabilities": Rows(Text())}
    limit: dict[str, Shape] = {"limit_s": Number(0, 1e8, " s", above=True)}
    sample: dict[str, Shape] = {"t": TIME, "status": Text()}
    before: dict[str, Shape] = {"writes_per_s_before": RATE}
    samples = Rows(
        Keys(
            required=sample | ({"writes": COUNT} if known else {}),
            optional=SAMPLE,
            defaults={
                "cpu-throttle-percentage": 0,
                "mbps": 0.0,
                "dirty-pages-rate": 0,
                "xbzrle-pages": 0,
            },
            together=(RAM_KEYS,),
        )
    )
    required: dict[str, Shape] = {
        "scenario": Keys(
            required=scenario | (limit | {"guest": GUEST} if known else {}),
            optional={} if known else limit,
        ),
        "qemu": Keys(required={"major": PART, "minor": PART}),
        "parameters": PARAMETERS,
        "samples": samples,
    }
    return Keys(
        required=required | (before | {"events": EVENTS} if known else {}),
        optional={
            "events": EVENTS,
            "qmp_events": EVENTS,
            "counter": COUNTER,
            "accelerator": OneOf(("tcg", "kvm")),
            "vcpus": VCPUS,
            "flat_out_writes_per_s": Number(0, 1e15, " page writes a second", above=True),
            "profile": Anything(),  # profile.py owns its shape
        },
        defaults={"events": [], "qmp_events": [], "counter": [], "accelerator": "tcg", "vcpus": 1},
    )
