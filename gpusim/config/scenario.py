"""A config as numbers: every check of what a user sets, done once a run.

`resolve` is pure. It asks nothing of the machine and takes no memory for bitmaps. After it,
`choose_backend` in backend.py asks where the bitmaps fit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from gpusim.config.checks import (
    check_choice,
    check_range,
    check_whole,
    parse_duration_ns,
    reject,
)
from gpusim.config.link import parse_link
from gpusim.config.memory import find_zero_pages, parse_host_pages, parse_layout
from gpusim.config.migration import (
    AttemptPlan,
    StartPostcopy,
    make_rules,
    parse_parameters,
    parse_start_postcopy,
    plan_attempts,
)
from gpusim.config.plugins import describe_policies
from gpusim.config.postcopy import PostcopyCosts, parse_postcopy
from gpusim.config.schedule import Action, parse_schedule
from gpusim.config.schema import Config, MigrationConfig
from gpusim.config.tracking import Tracking, check_device_writes, check_tracking, parse_tracking
from gpusim.config.types import checked
from gpusim.config.workload import parse_writers
from gpusim.errors import ConfigError
from gpusim.guest.pattern import Random
from gpusim.guest.run_time import TickCost
from gpusim.guest.writer import Writer
from gpusim.layout import CHUNK_PAGES, IntArray, Layout
from gpusim.pages.backends import BACKENDS
from gpusim.pages.cupy_kernels import draw_bytes_of
from gpusim.policies.user_rule import UserManager
from gpusim.qemu.parameters import Parameters
from gpusim.qemu.versions import Version
from gpusim.sender.link import Link
from gpusim.units import NS_PER_US
from gpusim.wall_limit import WallLimit, WallLimitReachedError

TABLE_ENTRIES = 512  # of a page table: 8 bytes each


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A checked config as numbers: everything that the engine needs, except the backend.

    Attributes:
        config: the config of this migration alone. For an attempt, it holds the attempt's keys.
        layout: the RAM blocks.
        zero_first, zero_last: int64 [runs], guest pages that are zero at the start.
        writers: the guest's writers.
        link: costs of pages, bandwidth and its changes.
        parameters: QEMU's migration parameters.
        rules: the rules that decide: the version's, or a user's in their place.
        manager: makes the user's manager. None: there is none.
        tracking: how writes are tracked, and what a sync costs.
        actions: the schedule.
        timer_latency_ns: how late the main loop wakes for a timer, on average.
        tick_cost: what a tick of the throttle costs the vCPUs.
        start_postcopy: when the migration switches to post-copy by itself.
        postcopy: what post-copy costs.
        simulated_limit_ns: end of the run in simulated time.
        wall_limit_ns: end of the run in wall-clock time. None: no limit.
        stall_after_ns: time of the last change of the workload. Only after it may a stalled
            migration be given up. None: never give up.
        cycle_ns: longest cycle of a writer, after which it has very likely done all that it does. 0:
            no writer has one.
        after_ns: pause since the end of the attempt before.
        resets_capabilities: auto-converge is switched off when this attempt has ended.
        earlier_attempts: the attempts before this one in the same QEMU process.
    """

    config: Config
    layout: Layout
    zero_first: IntArray
    zero_last: IntArray
    writers: tuple[Writer, ...]
    link: Link
    parameters: Parameters
    rules: Version
    manager: Callable[[], UserManager] | None
    tracking: Tracking
    actions: tuple[Action, ...]
    timer_latency_ns: int
    tick_cost: TickCost
    start_postcopy: StartPostcopy
    postcopy: PostcopyCosts
    simulated_limit_ns: int
    wall_limit_ns: int | None
    stall_after_ns: int | None
    cycle_ns: int = 0
    after_ns: int = 0
    resets_capabilities: bool = False
    earlier_attempts: tuple[Scenario, ...] = ()

    @property
    def attempts(self) -> tuple[Scenario, ...]:
        """All attempts of the process in order. This scenario is the last."""
        return (*self.earlier_attempts, self)

    @property
    def page_bytes(self) -> int:
        """Size of a guest page."""
        return self.config.vm.page_size

    @property
    def vm_bytes(self) -> int:
        """RAM, rounded up to whole pages."""
        return self.layout.pages * self.config.vm.page_size

    @property
    def zeroes(self) -> bool:
        """Whether writes may leave pages zero."""
        return any(writer.zeroed_share for writer in self.writers)

    @property
    def has_zero_bitmap(self) -> bool:
        """Whether a page is zero at the start, or may become zero."""
        return self.zeroes or len(self.zero_first) > 0

    @property
    def zero_pages(self) -> int:
        """Pages that are zero at the start."""
        return int((self.zero_last - self.zero_first).sum())

    @property
    def bitmap_bytes(self) -> int:
        """Memory of all bitmaps: dirty, the clear log if lazy, and zero if there are zero pages."""
        bitmaps = 1 + self.tracking.lazy + self.has_zero_bitmap
        return bitmaps * self.layout.chunks * (CHUNK_PAGES // 8)

    @property
    def most_cells(self) -> int:
        """The most cells that a draw can have: runs of pages that are written alike.

        A cell ends at a chunk, at a piece of a writer's place, or at a band of its pattern.
        """
        borders = 0
        for writer in self.writers:
            borders += len(writer.placement.own_first)
            if isinstance(writer.pattern, Random):
                shuffle, places = writer.pattern.shuffle, 1
                if shuffle is not None:
                    places = len(shuffle.row)
                if writer.drift is not None:
                    places = 2 * writer.drift.places
                borders += places * len(writer.pattern.bands)
        cells = borders * min(2, len(self.writers)) + self.layout.chunks
        together = self.tracking.pages_together
        if together == 1:
            return cells
        return max(cells, self.layout.pages // together)  # each group may be written by itself

    @property
    def draw_bytes(self) -> int:
        """Memory of a GPU that a draw needs beside the bitmaps."""
        merges = 1 + self.tracking.lazy
        zeroes = merges * self.zeroes
        return draw_bytes_of(
            self.layout.chunks, self.most_cells, steps=merges + zeroes, masks=zeroes
        )

    @property
    def page_table_bytes(self) -> int:
        """Page tables that the source host gets because KVM splits huge pages.

        An entry of 8 bytes for each page that is not zero, and for each table of 1 GiB above them if
        the pages were that large. With 4 KiB pages the tables exist before the migration.
        """
        is_kvm = self.tracking.mode != "tcg"
        if not is_kvm or self.config.vm.backing == "4k" or self.tracking.pages_together > 1:
            return 0
        tables = -(-(self.layout.pages - self.zero_pages) // TABLE_ENTRIES)
        if self.config.vm.backing == "hugetlb_1g":
            tables += -(-tables // TABLE_ENTRIES)
        return tables * TABLE_ENTRIES * 8

    @property
    def vcpus(self) -> int:
        """Number of vCPUs."""
        return self.config.vm.vcpus

    @property
    def migration(self) -> MigrationConfig:
        """The keys of `migration` as the user set them."""
        return self.config.migration

    @property
    def version(self) -> str:
        """Name of the QEMU version, such as "qemu_9_2"."""
        return self.config.migration.version

    @property
    def policies(self) -> str:
        """The user's rules and manager, for people. Empty: there are none."""
        return describe_policies(self.config.migration)

    @property
    def seed(self) -> int:
        """Seed of the random writes and of QEMU's phases."""
        return self.config.seed


def resolve(config: Config, *, now_ns: Callable[[], int] | None = None) -> Scenario:
    """Check a config and return it as numbers. Of several attempts, return the last.

    Args:
        config: made by a user.
        now_ns: the wall clock, which `limit.wall` goes by. None: the machine's.

    Raises:
        ConfigError: a value has another type or is out of range, two values contradict each other, or
            the wall-clock limit is over.
    """
    config = checked(config, Config)
    wall = config.limit.wall
    limit_ns = None if wall is None else parse_duration_ns("limit.wall", wall)
    limit = WallLimit(limit_ns, now_ns)
    try:
        if not config.attempts:
            return _resolve_migration(config, limit)
        plans = enumerate(plan_attempts(config))
        scenarios = [_resolve_attempt(n, plan, limit) for n, plan in plans]
    except WallLimitReachedError:
        hint = "is over before all writers are checked. Raise it, or use fewer writers"
        raise ConfigError("limit.wall", wall, hint, "too_slow") from None
    return replace(scenarios[-1], earlier_attempts=tuple(scenarios[:-1]))


def _resolve_attempt(number: int, plan: AttemptPlan, limit: WallLimit) -> Scenario:
    """Resolve one attempt. An error in a key that the attempt sets gets the attempt's key."""
    try:
        scenario = _resolve_migration(plan.config, limit)
    except ConfigError as error:
        group, _, name = error.key.partition(".")
        is_own = group == "migration" and name.partition(".")[0] in plan.changed_keys
        if group.startswith("schedule") or is_own:
            raise error.with_prefix("", f"attempts[{number}].") from None
        raise
    return replace(scenario, after_ns=plan.after_ns, resets_capabilities=plan.resets_capabilities)


def _resolve_migration(config: Config, limit: WallLimit) -> Scenario:
    check_whole("seed", config.seed, 0, 2**63 - 1)
    check_whole("vm.vcpus", config.vm.vcpus, 1, 65536)
    check_whole("vm.vfio_devices", config.vm.vfio_devices, 0, 65536)
    check_range("vm.big_lock_exits_per_s", config.vm.big_lock_exits_per_s, 0, 1e9)
    check_range("vm.timer_latency_us", config.vm.timer_latency_us, 0, 1e6)
    check_range("vm.kick_us_per_vcpu", config.vm.kick_us_per_vcpu, 0, 1000)
    check_range("vm.big_lock_us_per_vcpu", config.vm.big_lock_us_per_vcpu, 0, 1000)
    check_whole("backend.threads", config.backend.threads, 0, 1024)
    check_choice("backend.name", config.backend.name, ("auto", *BACKENDS))
    layout = parse_layout(config.vm)
    parameters = parse_parameters(config.migration)
    rules, manager = make_rules(config.migration, parameters)
    _check_postcopy(config)
    check_tracking(config.tracking, config.migration.version)
    writers = parse_writers(config, layout, limit)
    zero_first, zero_last = find_zero_pages(config.vm, layout, writers, config.seed)
    touched = layout.pages - int((zero_last - zero_first).sum())
    tracking = parse_tracking(config.tracking, layout, config.vm, config.migration, touched)
    host_pages = parse_host_pages(config.vm, layout) if rules.sends_host_pages else 1
    check_device_writes(config.tracking.page_size, tracking.pages_together, writers)
    last_change_ns = max((writer.last_change_ns for writer in writers), default=0)
    return Scenario(
        config=config,
        layout=layout,
        zero_first=zero_first,
        zero_last=zero_last,
        writers=writers,
        link=parse_link(config.link, config.vm, config.migration, tracking, host_pages),
        parameters=parameters,
        rules=rules,
        manager=manager,
        tracking=tracking,
        actions=parse_schedule("schedule", config.schedule, config.migration),
        timer_latency_ns=round(config.vm.timer_latency_us * NS_PER_US),
        tick_cost=TickCost(
            vcpus=config.vm.vcpus,
            kick_ns=config.vm.kick_us_per_vcpu * NS_PER_US,
            turn_ns=config.vm.big_lock_us_per_vcpu * NS_PER_US,
        ),
        start_postcopy=parse_start_postcopy(config.migration, layout.pages * config.vm.page_size),
        postcopy=parse_postcopy(config.postcopy, config.vm.vcpus),
        simulated_limit_ns=parse_duration_ns("limit.simulated", config.limit.simulated),
        wall_limit_ns=limit.limit_ns,
        stall_after_ns=last_change_ns if config.limit.stop_when_stuck else None,
        cycle_ns=max((writer.cycle_ns for writer in writers), default=0),
    )


def _check_postcopy(config: Config) -> None:
    """Source: migration/options.c:migrate_caps_check, hw/vfio/migration.c (no post-copy)."""
    starts = [entry.get("do") for entry in config.schedule if isinstance(entry, Mapping)]
    if "start-postcopy" in starts and not config.migration.postcopy_ram:
        hint = "start-postcopy needs the capability. Set migration.postcopy_ram=true"
        reject("migration.postcopy_ram", False, hint, "contradiction")
    if config.migration.postcopy_ram and config.vm.vfio_devices:
        hint = "VFIO devices cannot migrate with post-copy. Set vm.vfio_devices=0"
        reject("migration.postcopy_ram", True, hint, "contradiction")
