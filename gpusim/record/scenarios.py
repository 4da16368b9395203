"""The scenarios of gpusim-record: conf_record/NAME.yaml, checked before QEMU starts.

Owns the data classes of a scenario. They use the names of the recordings' format, which are QEMU's
own for capabilities and parameters. session.py asks QEMU whether it knows these names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from gpusim.config.checks import check_choice, check_range, check_whole, reject
from gpusim.config.presets import conf_folder
from gpusim.errors import ConfigError
from gpusim.formats.recording import GUEST_STARTS_MIB, UNFILLED_END_MIB
from gpusim.formats.recording_file import FOREIGN_CAPABILITIES
from gpusim.reading import ReadingError, parse_yaml, read_text, read_yaml
from gpusim.shapes import Fields, ShapeError
from gpusim.shapes import check as check_shape
from gpusim.text import did_you_mean

MOST_MIB = 3072  # the pc machine puts memory beyond at addresses that need more than 32 bits
SLOWEST_PER_S, FASTEST_PER_S = 10, 10**9
MOST_LOOPS = 10**7  # about 20 ms, and 2 s at the highest throttle, so the guest still writes
# They wait for migrate-continue and for the target's answer. Neither is sent.
WAITING_CAPABILITIES = {"pause-before-switchover", "switchover-ack"}
ACCELERATORS = ("tcg", "kvm")
MOST_KEYS = 4  # in the path of an override. No key lies so deep
CODES = {"missing": "missing", "bad_value": "wrong_type", "unknown_key": "unknown_key"}


@dataclass(kw_only=True)
class GuestSettings:
    """The guest's write pattern. guest.c implements it.

    Attributes:
        base: where the working set starts, MiB.
        size: length of the working set, MiB.
        mode: 0: page after page, round and round. 1: at random.
        rate: page writes per second, by a busy loop that is measured at boot. 0: no loop.
        delay: busy loops between two writes, instead of `rate`.
        paced: 1: the guest writes by the clock, and catches up if it is late.
        hot: the first so many MiB get `hotpct` of the writes.
        hotpct: share of the writes that goes to `hot`, percent.
        fill: MiB from 16 MiB on that are not zero. Default: up to 2 MiB before the end.
        flat_ms: how long the guest writes at full speed at boot, to measure that speed.
        crash_after: page writes until the guest crashes on purpose, for tests. 0: never.
    """

    base: int = 32
    size: int
    mode: int = 1
    rate: int | None = None
    delay: int | None = None
    paced: int = 0
    hot: int | None = None
    hotpct: int | None = None
    fill: int | None = None
    flat_ms: int = 500
    crash_after: int = 0

    def recorded(self) -> dict[str, int]:
        """Return the settings that a recording holds."""
        boot_only = ("flat_ms", "crash_after")
        return {
            key: value
            for key, value in asdict(self).items()
            if value is not None and key not in boot_only
        }

    def boot_settings(self) -> dict[str, int]:
        """Return the settings that guest.c reads."""
        return {**self.recorded(), "flat": self.flat_ms, "crash": self.crash_after}


@dataclass(kw_only=True)
class Scenario:
    """One migration to record.

    Attributes:
        mem_mib: RAM, MiB.
        limit_s: the migration is cancelled after so many seconds.
        before_s: for how long the guest's writes are counted before the migration, seconds.
        accelerator: tcg or kvm.
        capabilities: capabilities to switch on, under QEMU's names.
        parameters: of the migration, under QEMU's names.
        guest: its write pattern.
    """

    mem_mib: int = 1024
    limit_s: float = 200.0
    before_s: float = 4.0
    accelerator: str = "tcg"
    capabilities: list[str] = field(default_factory=list)
    parameters: dict[str, Any] = field(default_factory=dict)
    guest: GuestSettings

    def recorded(self) -> dict[str, Any]:
        """Return the `scenario` of a recording. Repeats have equal scenarios."""
        return {
            "mem_mib": self.mem_mib,
            "guest": self.guest.recorded(),
            "capabilities": list(self.capabilities),
            "limit_s": self.limit_s,
            "parameters": dict(self.parameters),
        }


def scenario_folder() -> Path:
    """Return the folder of the scenarios that come with gpusim."""
    return conf_folder("conf_record")


def list_scenarios() -> dict[str, str]:
    """Return the name of every scenario and its purpose, which is the second line of its file."""
    folder = scenario_folder()
    return {
        str(path.relative_to(folder).with_suffix("")): read_text(path)
        .splitlines()[1]
        .removeprefix("# ")
        for path in sorted(folder.rglob("*.yaml"))
    }


def load_scenario(name: str, overrides: Sequence[str] = ()) -> Scenario:
    """Return a scenario by its name or from a user's file, with KEY=VALUE changes.

    Raises:
        ConfigError: no such scenario or key, or a value that is not allowed.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else scenario_folder() / f"{name}.yaml"
    if not path.is_file():
        known = list_scenarios()
        hint = did_you_mean(name, known)
        allowed = f"does not exist.{hint} Expected a .yaml file or one of {', '.join(known)}"
        reject("SCENARIO", name, allowed, "unknown_choice")
    for text in overrides:
        if "=" not in text or text.startswith("="):
            reject("KEY=VALUE", text, 'write it as "guest.rate=20000"')
    try:
        document = read_yaml(path)
    except ReadingError as error:
        reject("SCENARIO", name, f"cannot be read: {error.reason}", "wrong_format")
    for text in overrides:
        document = _changed(document, text)
    try:
        scenario = check_shape({} if document is None else document, Fields(Scenario))
    except ShapeError as error:
        value = error.data.get("value", "missing" if error.code == "missing" else path.name)
        allowed = error.data["allowed"]
        if error.code == "unknown_key":
            allowed = f"no such key. {allowed}"
        allowed += ". See docs/how-to/record-a-real-qemu.md"
        raise ConfigError(error.data["key"], value, allowed, CODES[error.code]) from None
    assert isinstance(scenario, Scenario)
    check(scenario)
    return scenario


def _changed(document: object, override: str) -> object:
    """Return a document with the value of KEY=VALUE. A mapping is merged into the one there is."""
    path, _, text = override.partition("=")
    try:
        value = parse_yaml(text)
    except ReadingError as error:
        reject("KEY=VALUE", override, f"is no YAML value: {error.reason}", "wrong_format")
    for key in reversed(path.split(".", MOST_KEYS)):
        value = {key: value}
    return _merged(document, value)


def _merged(document: object, change: object) -> object:
    if not isinstance(change, dict):
        return change
    before = document if isinstance(document, dict) else {}
    return before | {key: _merged(before.get(key), value) for key, value in change.items()}


def check(scenario: Scenario) -> None:
    """Refuse a scenario that cannot be recorded.

    Raises:
        ConfigError: a value that is not allowed.
    """
    guest, end_mib = scenario.guest, scenario.mem_mib - UNFILLED_END_MIB
    check_whole("mem_mib", scenario.mem_mib, 32, MOST_MIB, " MiB")
    check_range("limit_s", scenario.limit_s, 1, 86_400, " s")
    check_range("before_s", scenario.before_s, 0.1, 60, " s")
    check_choice("accelerator", scenario.accelerator, ACCELERATORS)
    foreign = (FOREIGN_CAPABILITIES | WAITING_CAPABILITIES).intersection(scenario.capabilities)
    if foreign:
        reject(
            "capabilities", ", ".join(sorted(foreign)), "not simulated, so not recorded. Remove it"
        )
    check_whole("guest.base", guest.base, GUEST_STARTS_MIB, end_mib, " MiB")
    check_whole("guest.size", guest.size, 1, end_mib - guest.base, (
        " MiB: base + size end 2 MiB before mem_mib"
    ))  # fmt: skip
    for key, value in (("mode", guest.mode), ("paced", guest.paced)):
        check_whole(f"guest.{key}", value, 0, 1)
    _check_speed(guest)
    if (guest.hot is None) != (guest.hotpct is None):
        reject("guest.hot", guest.hot, "goes with guest.hotpct. Set both or none")
    if guest.hot is not None:
        check_whole("guest.hot", guest.hot, 1, guest.size - 1, " MiB: a part of guest.size")
        check_whole("guest.hotpct", guest.hotpct, 0, 100, " %")
        if guest.mode != 1:
            reject("guest.hot", guest.hot, (
                "needs guest.mode=1, as a sequential writer has no hot part"
            ))  # fmt: skip
    if guest.fill is not None:
        check_whole("guest.fill", guest.fill, 1, end_mib - GUEST_STARTS_MIB, " MiB")
    check_whole("guest.flat_ms", guest.flat_ms, 10, 10_000, " ms")
    check_whole("guest.crash_after", guest.crash_after, 0, 2**32 - 1)


def _check_speed(guest: GuestSettings) -> None:
    if (guest.rate is None) == (guest.delay is None):
        reject("guest.rate", guest.rate, "set one of guest.rate and guest.delay")
    if guest.rate:
        check_whole(
            "guest.rate", guest.rate, SLOWEST_PER_S, FASTEST_PER_S, " page writes a second, or 0"
        )
    if guest.delay is not None:
        check_whole("guest.delay", guest.delay, 1, MOST_LOOPS, " loops")
    if guest.paced and not guest.rate:
        reject("guest.paced", guest.paced, "needs a guest.rate above 0")
