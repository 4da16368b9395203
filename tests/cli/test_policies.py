"""The command takes a user's rules, as docs/how-to/write-a-rule.md describes."""

from __future__ import annotations

import json
import re
import shlex
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from gpusim import Config, ConfigError, simulate
from gpusim.cli import job
from gpusim.command import run_command
from gpusim.config.plugins import KINDS
from gpusim.config.scenario import resolve
from gpusim.config.schema import MigrationConfig
from tests.cli.command import REPOSITORY, composed, gpusim

DOCUMENT = (REPOSITORY / "docs/how-to/write-a-rule.md").read_text()
SMALL = ("vm=small_16gib", "workload=uniform", "plot=false")


def block(kind: str) -> str:
    (found,) = re.findall(rf"^```{kind}\n(.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL)
    return found


def test_the_documents_example_is_the_responsive_throttle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The document's own text, imported from the current directory."""
    (tmp_path / "documented_rules.py").write_text(block("python"))
    monkeypatch.setattr("sys.path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    rule = "{target: documented_rules:Responsive, args: {rising_periods: 2}}"
    case = ("vm=tiny_256mib", "workload=uniform", "workload.working_set_percent=75", "link=1gbit")
    case = (*case, "vm.memory=1GiB", "link.bandwidth=480Mbit/s", "workload.page_writes_per_s=2e4")
    case = (*case, "migration.fallback_sync_interval=1500ms", "limit.simulated=60s")
    mine = simulate(composed(*case, f"migration.throttle_rule={rule}"))
    assert mine.syncs == simulate(composed(*case, "policy=responsive")).syncs
    assert mine.syncs == simulate(composed(*case, "migration=what_if_responsive")).syncs
    assert mine.syncs != simulate(composed(*case)).syncs


@pytest.mark.slow
def test_the_documents_commands_run_beside_the_example(tmp_path: Path) -> None:
    (tmp_path / "my_rules.py").write_text(block("python"))
    for line in block("console").splitlines():
        gpusim(*shlex.split(line)[1:], "vm=small_16gib", cwd=tmp_path)
    runs = [json.loads(path.read_text()) for path in tmp_path.glob("out*/**/summary.json")]
    assert len(runs) == 4
    assert all("throttle_rule my_rules:Responsive" in run["policies"] for run in runs)


def test_keys_are_set_one_by_one_and_taken_back() -> None:
    args = "migration.manager.args.stall_progress_timeout=11"
    stall = composed("policy=kubevirt_stall", args, "migration.manager.args.ewma_alpha=1")
    assert stall.migration.manager.args["stall_progress_timeout"] == 11
    assert stall.migration.manager.args["ewma_alpha"] == 1
    assert composed("policy=kubevirt_stall", "migration.manager=null").migration.manager is None
    assert composed().migration == MigrationConfig()
    both = composed("policy=[kubevirt_ramp,responsive]").migration
    assert both.manager is not None and both.throttle_rule is not None
    with pytest.raises(ConfigError) as typo:
        composed("migration.manager.trget=x")
    assert (typo.value.key, typo.value.code) == ("migration.manager.trget", "unknown_key")
    with pytest.raises(
        ConfigError, match=r"migration\.manager\.target = missing: must be module:Class"
    ):
        resolve(composed(args))


def run_alone(config: Config, folder: Path) -> int:
    """Run a config as the command does. Return the exit code."""
    return run_command("gpusim", lambda: int(job.run_job(lambda: config, folder, alone=True) or 0))


def test_a_wrong_class_is_one_line_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    config = composed(*SMALL, "migration.manager.target=no_such_rules:Mine")
    assert run_alone(config, folder) == 2
    printed = capsys.readouterr().err
    assert printed.startswith(
        "error: migration.manager.target = no_such_rules:Mine: no module no_such"
    )
    assert printed.count("\n") == 1
    assert not folder.exists()


def test_a_rule_that_raises_leaves_its_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    rule = "from gpusim.policies import ThrottleRule\nclass Mine(ThrottleRule):\n"
    rule += "    def on_period(self, period):\n        raise LookupError('no idea')\n"
    (tmp_path / "raising_rules.py").write_text(rule)
    folder = tmp_path / "run"
    folder.mkdir()
    config = composed(*SMALL, "migration.throttle_rule.target=raising_rules:Mine")
    assert job.run_job(lambda: config, folder, alone=False) is None
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["status"] == "failed"
    assert summary["error"].startswith("RuleError: raising_rules:Mine.on_period raised LookupError")
    assert "raise LookupError('no idea')" in summary["traceback"]


@pytest.mark.parametrize("shows_traceback", [False, True])
@pytest.mark.parametrize("is_dry", [False, True])
def test_a_lone_run_with_a_rule_that_raises_ends_with_one_line(
    is_dry: bool,
    shows_traceback: bool,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A run that began leaves a summary. A dry run leaves nothing."""
    monkeypatch.setenv("GPUSIM_TRACEBACK", str(int(shows_traceback)))
    folder = tmp_path / "run"
    folder.mkdir()
    target = "migration.throttle_rule.target=tests.policies.user_rules:Raises"
    config = composed(*SMALL, target, f"dry_run={is_dry}")
    assert run_alone(config, folder) == 2
    trace, _, line = capsys.readouterr().err.rpartition("error: ")
    assert ("no idea what to do" in trace) is shows_traceback
    assert line.startswith("tests.policies.user_rules:Raises.on_period raised LookupError")
    assert line.count("\n") == 1
    assert folder.exists() is not is_dry


def test_every_kind_is_a_key_of_migration_and_documented() -> None:
    assert set(KINDS) <= {field.name for field in fields(MigrationConfig)}
    for name in KINDS:
        assert f"| `migration.{name}` |" in DOCUMENT
    for path in (REPOSITORY / "conf/policy").glob("*.yaml"):
        assert path.stem == "none" or f"| `{path.stem}` |" in DOCUMENT


@pytest.mark.slow
def test_a_sweep_in_processes_goes_by_a_changed_source(tmp_path: Path) -> None:
    """Earlier results stay until the class changes."""
    rule = "from gpusim.policies import ThrottleRule\nclass Mine(ThrottleRule):\n    pass\n"
    (tmp_path / "swept_rules.py").write_text(rule)
    overrides = (*SMALL, "migration.throttle_rule.target=swept_rules:Mine", "seed=1,2")
    sweep = (
        "-m",
        *overrides,
        "hydra/sweeper=batch",
        "hydra.sweeper.workers=2",
        "hydra.sweep.dir=out",
    )
    gpusim(*sweep, cwd=tmp_path)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.glob("out/*/summary.json")}
    assert len(times) == 2
    gpusim(*sweep, "hydra.sweeper.workers=1", cwd=tmp_path)
    assert times == {path: path.stat().st_mtime_ns for path in times}
    (tmp_path / "swept_rules.py").write_text(rule + "    high_periods = 1\n")
    gpusim(*sweep, cwd=tmp_path)
    assert all(times[path] != path.stat().st_mtime_ns for path in times)
