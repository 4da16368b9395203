"""Does what the documents say work: every command, every example, every table of keys?"""

from __future__ import annotations

import doctest
import itertools
import re
import shlex
from dataclasses import fields

import pytest

import gpusim as package
from gpusim import Config, Summary, bench
from gpusim.scenario import resolve
from gpusim.validation import cli as validate
from tests.app.command import CONF, REPOSITORY, composed, gpusim

DOCUMENTS = [
    REPOSITORY / "README.md",
    REPOSITORY / "CONTRIBUTING.md",
    *sorted(REPOSITORY.glob("docs/*.md")),
]
FENCE = re.compile(r"^```bash\n(.*?)^```", re.MULTILINE | re.DOTALL)


def commands(program: str = "gpusim") -> list[tuple[str, bool]]:
    """Every `PROGRAM ...` in a bash block, and whether it is marked slow in a comment."""
    blocks = [block for path in DOCUMENTS for block in FENCE.findall(path.read_text())]
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    ours = [line for line in lines if re.match(program + r"(\s|$)", line)]
    return [(line.split("#")[0].strip(), "# slow" in line) for line in ours]


def jobs(arguments: list[str]) -> list[list[str]]:
    """The overrides of each job of a command; a comma outside of brackets makes a sweep."""
    overrides = [text for text in arguments if not text.startswith(("-", "hydra."))]
    choices = []
    for override in overrides:
        key, _, value = override.partition("=")
        values = [value] if re.search(r"[\[{'\"]", value) else value.split(",")
        choices.append([f"{key}={one}" for one in values])
    return [list(job) for job in itertools.product(*choices)]


@pytest.mark.parametrize("command", [line for line, _ in commands()])
def test_command_composes(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpusim.pages.backends.obstacle", lambda name: None)
    monkeypatch.setattr("gpusim.pages.backends.free_bytes", lambda name: 2**40)
    for overrides in jobs(shlex.split(command)[1:]):
        resolve(composed(*overrides))


@pytest.mark.slow
@pytest.mark.parametrize("command", [line for line, slow in commands() if not slow])
def test_command_runs(command: str, tmp_path) -> None:
    gpusim(*shlex.split(command)[1:], cwd=tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("command", "slow"), commands("gpusim-validate"))
def test_validation_command_runs(command: str, slow: bool) -> None:
    """A slow one only as far as its options: docs/validation.md's tables are tested themselves."""
    arguments = shlex.split(command)[1:]
    assert validate._parser().parse_args(arguments)
    if not slow:
        assert validate.main(arguments) == 0


@pytest.mark.parametrize(("command", "slow"), commands("gpusim-bench"))
def test_benchmark_command_runs(command: str, slow: bool) -> None:
    """A slow one only as far as its options."""
    arguments = shlex.split(command)[1:]
    assert bench._parser().parse_args(arguments)
    if not slow:
        assert bench.main(arguments) == 0


def test_the_commands_for_a_gpu_can_be_parsed() -> None:
    """tests/parity/test_bare_machine.py runs what they run, as far as it goes without a GPU."""
    lines = [line for path in DOCUMENTS for line in path.read_text().splitlines()]
    gpu = [
        line for line in lines if line.startswith("GPUSIM_REQUIRE_GPU=1 python -m pytest -m gpu")
    ]
    measured = [line.split("gpusim.bench")[1] for line in gpu if "gpusim.bench" in line]
    assert len(gpu) == 2
    for arguments in measured:
        assert bench._parser().parse_args(shlex.split(arguments)).backend == ["cupy"]
    assert measured


def test_readme_example() -> None:
    text = (REPOSITORY / "README.md").read_text().replace("```", "\n")
    example = doctest.DocTestParser().get_doctest(text, {}, "README.md", "README.md", 0)
    assert example.examples
    assert doctest.DocTestRunner().run(example).failed == 0


def test_package_examples() -> None:
    import gpusim.multirun

    for module in (package, gpusim.multirun):
        assert doctest.testmod(module).attempted > 0
        assert doctest.testmod(module).failed == 0


def test_readme_names_every_summary_key() -> None:
    table = (REPOSITORY / "README.md").read_text().split("### summary.json")[1]
    assert {field.name for field in fields(Summary)} <= set(re.findall(r"`(\w+)`", table))


def test_readme_names_every_option_and_key() -> None:
    text = (REPOSITORY / "README.md").read_text().split("## What can be set")[1]
    named = set(re.findall(r"`([\w.]+)`", text))
    config = Config()
    for path in CONF.glob("*/*.yaml"):
        assert {path.parent.name, path.stem} <= named
    for group in ("vm", "workload", "link", "migration", "tracking", "backend"):
        keys = {field.name for field in fields(getattr(config, group))}
        assert keys - {"pattern"} <= named


def test_first_sentence_says_what_is_simulated() -> None:
    first = (REPOSITORY / "README.md").read_text().split("\n\n")[1].split(". ")[0]
    assert "simulates QEMU live migration" in first
    assert "does not simulate GPUs" in first
