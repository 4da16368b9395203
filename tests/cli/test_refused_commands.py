"""Is a refused command one line and exit code 2, and does it leave each folder as it was?"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gpusim.cli import job
from gpusim.cli.app import task
from gpusim.cli.hydra_run import run_hydra
from gpusim.config.compose import register
from gpusim.config.scenario import resolve
from gpusim.config.schema import Config
from gpusim.config.types import checked
from gpusim.errors import LONGEST_MESSAGE, LONGEST_VALUE, ConfigError, UsageError
from tests.cli.broken_lines import broken_line
from tests.cli.command import gpusim

Refuse = Callable[..., str]


def contents(folder: Path) -> dict[str, bytes]:
    """Return every path below a folder, with the bytes of the files."""
    paths = sorted(folder.rglob("*"))
    return {str(path): path.read_bytes() if path.is_file() else b"" for path in paths}


@pytest.fixture(autouse=True)
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Work in an empty folder, and undo what Hydra does to the process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    register()
    root = logging.getLogger()
    level = root.level
    with _own_handlers(root):
        yield
    root.setLevel(level)


@contextmanager
def _own_handlers(root: logging.Logger) -> Iterator[None]:
    """Keep the handlers that Hydra adds to a log from writing to a closed stream later."""
    before = list(root.handlers)
    try:
        yield
    finally:
        for handler in set(root.handlers) - set(before):
            handler.close()
        root.handlers[:] = before


@pytest.fixture
def refuse(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Refuse:
    """Return a function that runs a command line in this process and returns the code of its error.

    It is "exit" if the run itself printed the error, and "all" if each job did.
    """

    def run(*arguments: str) -> str:
        before = contents(tmp_path)
        with pytest.raises((ConfigError, UsageError, SystemExit)) as caught:
            run_hydra(task, arguments)
        error = caught.value
        assert contents(tmp_path) == before
        if isinstance(error, ConfigError | UsageError):
            assert str(error).isprintable()
            return error.code
        errors = [line for line in capsys.readouterr().err.split("\n") if line.startswith("error")]
        assert error.code == 2
        return "exit" if len(errors) == 1 else "all"

    return run


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ("--nosuch", "usage"),
        ("--cfg foo", "usage"),
        ("-c", "usage"),
        ("--info foo", "usage"),
        ("--experimental-rerun x", "usage"),
        ("--resolve", "usage"),
        ("--package vm", "usage"),
        ("--run --multirun", "usage"),
        ("--json --cfg job", "usage"),
        ("--quiet --help", "usage"),
        ("--json dry_run=true", "contradiction"),
        ("--cfg job -m", "usage"),
        ("hydra.run.dir=", "missing"),
        ("-m hydra.sweep.dir=", "missing"),
        ("--config-dir nosuch", "unknown_choice"),
        ("--config-path x", "unknown_choice"),
        ("--config-path x.yaml", "unknown_choice"),
        ("--config-name nosuch", "unknown_choice"),
        ("--config-name vm/huge_1tib", "wrong_type"),
        pytest.param("--cfg job --package nosuch", "unknown_key", marks=pytest.mark.slow),
        pytest.param("--cfg job vm=nosuch", "unknown_choice", marks=pytest.mark.slow),
        pytest.param(
            "--cfg job --resolve vm.memory=${nosuch}", "wrong_reference", marks=pytest.mark.slow
        ),
        pytest.param("--help vm=nosuch", "unknown_choice", marks=pytest.mark.slow),
        ("--info defaults link=10", "unknown_choice"),
        ("--shell-completion", "not_composed"),
        pytest.param("--shell-completion install=nosuch", "not_composed", marks=pytest.mark.slow),
        ("hydra.run.dir=/proc/x", "not_allowed"),
        pytest.param("hydra.run.dir=/dev/null/x", "not_allowed", marks=pytest.mark.slow),
        pytest.param("hydra.job.env_copy=[NO_SUCH]", "not_composed", marks=pytest.mark.slow),
        pytest.param("hydra.job_logging.formatters=3", "not_composed", marks=pytest.mark.slow),
        ("-m hydra.sweeper=null", "missing"),
        ("-m ~hydra/launcher", "missing"),
        pytest.param("+hydra.callbacks.report.foo=1", "not_composed", marks=pytest.mark.slow),
        ("vm.memory=${nosuch}", "wrong_reference"),
        ("dry_run=${oc.env:HOME}", "wrong_type"),
        pytest.param("vm.memory=", "wrong_format", marks=pytest.mark.slow),
    ],
)
def test_a_refused_command_leaves_nothing(refuse: Refuse, arguments: str, code: str) -> None:
    assert refuse(*arguments.split(" ")) == code


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ("link=10,20", "unknown_choice"),
        ("seed=range(1,1000000000)", "out_of_range"),
        ("vm.memory=glob(*)", "unknown_choice"),
        ("workload=glob(base*)", "unknown_choice"),  # data classes are no presets
        pytest.param("vm=tiny_256mib seed=1,x", "wrong_type", marks=pytest.mark.slow),
        ("hydra/sweeper=batch vm=tiny_256mib seed=1,x", "wrong_type"),
        pytest.param(
            "hydra/sweeper=batch vm=tiny_256mib link=10,20",
            "unknown_choice",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "hydra/sweeper=batch hydra.sweeper.workers=x", "out_of_range", marks=pytest.mark.slow
        ),
        pytest.param("hydra.run.dir=1,2", "several_values", marks=pytest.mark.slow),
        pytest.param("hydra.sweep.dir=/proc/x", "exit", marks=pytest.mark.slow),
        pytest.param("hydra.sweep.dir=/proc/x dry_run=true", "not_allowed", marks=pytest.mark.slow),
        ("objective=${nosuch}", "exit"),
        ("vm.memory=1T,2T vm=tiny_256mib", "all"),
        pytest.param("objective=[nosuch]", "exit", marks=pytest.mark.slow),
    ],
)
def test_a_refused_sweep_leaves_nothing(refuse: Refuse, arguments: str, code: str) -> None:
    assert refuse("-m", *arguments.split(" ")) == code


def test_folders_that_were_there_stay_as_they_were(refuse: Refuse, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    run, sweep = tmp_path / "run", tmp_path / "sweep"
    for folder in (run, sweep / "job"):
        (folder / ".hydra").mkdir(parents=True)
        for name in ("summary.json", ".hydra/config.yaml", "gpusim.log"):
            (folder / name).write_text("earlier\n")
    for name in ("multirun.yaml", "sweep.json"):
        (sweep / name).write_text("earlier\n")
    refuse("seed=-1", "hydra.run.dir=empty")
    refuse("seed=-1", "hydra.run.dir=empty/a/b")
    refuse("seed=-1", "hydra.run.dir=run")
    refuse("-m", "seed=1,x", "hydra.sweep.dir=sweep")
    refuse("-m", "seed=1,x", "hydra.sweep.dir=empty")
    refuse("-m", "seed=1,x", "hydra.sweep.dir=empty/a/b")


def test_a_dry_run_changes_no_folder(refuse: Refuse, tmp_path: Path) -> None:
    dry = [
        "vm=tiny_256mib",
        "dry_run=true",
        "hydra.sweep.dir=sweep",
        "hydra.run.dir='sweep/seed=1'",
    ]
    (tmp_path / "sweep" / "seed=1" / ".hydra").mkdir(parents=True)
    for name in ("multirun.yaml", "seed=1/summary.json", "seed=1/.hydra/config.yaml"):
        (tmp_path / "sweep" / name).write_text("earlier\n")
    (tmp_path / "sweep" / "seed=1" / "gpusim.log").write_text("")
    before = contents(tmp_path)
    run_hydra(task, dry)
    assert contents(tmp_path) == before
    run_hydra(task, ["-m", *dry, "seed=1,2"])
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    "arguments",
    [["link=10"], ["-m", "vm=nosuch,tiny_256mib"]],
    ids=" ".join,
)
def test_the_process_prints_one_line(tmp_path: Path, arguments: list[str]) -> None:
    done = gpusim(*arguments, cwd=tmp_path, code=2)
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_what_hydra_prints_on_request(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def printed(*arguments: str) -> str:
        with _own_handlers(logging.getLogger()):
            run_hydra(task, arguments)
        return capsys.readouterr().out

    assert "link: 100gbit, 10gbit" in printed("--help")
    assert "bandwidth: 25Gbit/s" in printed("--cfg", "job", "link=25gbit")
    assert "bandwidth: 25Gbit/s" in printed("link=25gbit", "-c", "job", "-p", "link", "seed=1")
    assert "file://" in printed("--info", "searchpath")
    assert "complete" in printed("--shell-completion", "install=bash")
    monkeypatch.setenv("COMP_LINE", "gpusim link=10g")
    assert "link=10gbit" in printed("-sc", "query=bash")
    monkeypatch.setenv("COMP_LINE", "gpusim link=[ vm")
    assert printed("-sc", "query=bash").count("\n") < 5  # it completes nothing, and is no error


def _check_lines(refuse_in: Path, seeds: range, capsys: pytest.CaptureFixture[str]) -> None:
    """Run broken command lines. Each is refused in one line, or only checked, and leaves nothing."""
    for seed in seeds:
        line = broken_line(seed)
        try:
            with _own_handlers(logging.getLogger()):
                run_hydra(task, line)
            code = "ok"
        except (ConfigError, UsageError) as error:
            assert str(error).isprintable(), (seed, line)
            assert len(str(error)) < LONGEST_MESSAGE + 3 * LONGEST_VALUE, (seed, line)
            code = error.code
        except SystemExit as error:
            assert error.code in (2, 3), (seed, line)
            code = "exit" if error.code == 2 else "ok"  # jobs that fail leave their summaries
        printed = capsys.readouterr().err
        assert printed.count("\n") <= (code == "exit"), (seed, line, printed)
        assert code == "ok" or list(refuse_in.iterdir()) == [], (seed, line)
        if code == "ok":
            _remove_all(refuse_in)


def _remove_all(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()


def _only_check(config: Config, folder: Path, **named: object) -> float:
    config = checked(config, Config)
    if config.evacuation is None:
        resolve(config)
    return 0.0


@pytest.mark.parametrize(
    "seeds",
    [
        range(5000, 5020),
        *(pytest.param(range(at, at + 125), marks=pytest.mark.slow) for at in range(0, 250, 125)),
    ],
    ids=str,
)
def test_broken_command_lines(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    seeds: range,
) -> None:
    monkeypatch.setattr(job, "run_config", _only_check)
    _check_lines(tmp_path, seeds, capsys)


def test_a_pipe_in_the_place_of_the_log_does_not_hang() -> None:
    out = Path("out")
    out.mkdir()
    os.mkfifo(out / "gpusim.log")
    with pytest.raises(ConfigError, match="is no regular file"):
        run_hydra(task, ["experiment=tiny", f"hydra.run.dir={out}"])
    assert [one.name for one in out.iterdir()] == ["gpusim.log"]


@pytest.mark.parametrize("name", ["gpusim.log", ".hydra/config.yaml"])
def test_a_pipe_in_the_folder_of_a_job_is_refused(
    refuse: Refuse, name: str, tmp_path: Path
) -> None:
    """Hydra would wait for its reader."""
    pipe = tmp_path / "sweep/seed=1" / name
    pipe.parent.mkdir(parents=True)
    os.mkfifo(pipe)
    assert refuse("-m", "vm=tiny_256mib", "seed=1,2", "hydra.sweep.dir=sweep") == "not_allowed"


def test_aliases_in_a_preset_are_bounded(refuse: Refuse, tmp_path: Path) -> None:
    lines = ["# @package _global_", "x0: &x0 [1,1,1,1,1,1,1,1,1,1]"]
    for place in range(1, 9):
        aliases = ",".join([f"*x{place - 1}"] * 10)
        lines.append(f"x{place}: &x{place} [{aliases}]")
    (tmp_path / "conf/experiment").mkdir(parents=True)
    (tmp_path / "conf/experiment/laugh.yaml").write_text("\n".join(lines))
    assert refuse("--config-dir", "conf", "experiment=laugh") == "wrong_format"


@pytest.mark.parametrize(
    "override",
    [
        "vm.memory=${oc.env:SECRET}",
        "link.changes=[[${oc.env:SECRET},1]]",
        pytest.param("migration.version=${oc.env:SECRET}", marks=pytest.mark.slow),
        pytest.param("attempts=[{after: '${oc.env:SECRET}'}]", marks=pytest.mark.slow),
        pytest.param(
            "schedule=[{at: 5, set: {max_bandwidth: '${oc.env:SECRET}'}}]", marks=pytest.mark.slow
        ),
        pytest.param("objective=['${oc.env:SECRET}']", marks=pytest.mark.slow),
    ],
)
def test_no_error_shows_the_value_of_a_variable(
    override: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SECRET", "hunter22")
    with pytest.raises(ConfigError) as caught:
        run_hydra(task, ["vm=tiny_256mib", "plot=false", override])
    assert "${oc.env:SECRET}" in str(caught.value)
    assert "hunter22" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("engine", [[], ["hydra/sweeper=batch"]])
def test_no_job_of_a_sweep_shows_the_value_of_a_variable(
    engine: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SECRET", "hunter22")
    typed = ["-m", "vm=tiny_256mib", "vm.memory=${oc.env:SECRET},512MiB", *engine]
    with pytest.raises(SystemExit):
        run_hydra(task, [*typed, "hydra.sweep.dir=sweep", "plot=false"])
    summaries = [path.read_text() for path in tmp_path.glob("sweep/*/summary.json")]
    assert ["oc.env" in text for text in sorted(summaries)].count(True) == 1
    assert len(summaries) == 2
    assert not any("hunter22" in text for text in summaries)
