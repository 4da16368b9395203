"""Does what the documents say work: every command, every example, every table of keys?"""

from __future__ import annotations

import doctest
import itertools
import json
import os
import re
import shlex
import tomllib
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest
import yaml
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser

import gpusim as package
from gpusim import Config
from gpusim.bench import cli as bench
from gpusim.cli import collect, predict, record, validate
from gpusim.config.scenario import resolve
from gpusim.record.scenarios import list_scenarios, load_scenario
from gpusim.results.plots.canvas import narrow_path
from studies import prose, reference
from tests.cli.command import CONF, REPOSITORY, composed, composed_by_hydra, gpusim, jobs
from tests.cli.engines import need_engine_of

DOCUMENTS = [
    REPOSITORY / "README.md",
    REPOSITORY / "CONTRIBUTING.md",
    *sorted(REPOSITORY.glob("docs/**/*.md")),
]
FENCE = re.compile(r"^```bash\n(.*?)^```", re.MULTILINE | re.DOTALL)


def commands(program: str = "gpusim") -> list[tuple[str, bool]]:
    """Every `PROGRAM ...` in a bash block, and whether its comment says that it is not to be run."""
    blocks = [block for path in DOCUMENTS for block in FENCE.findall(path.read_text())]
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    ours = [line for line in lines if re.match(rf"([A-Z_]+=\S+ )*{program}(\s|$)", line)]
    found = [
        (line.split(" #")[0].strip(), bool(re.search("# (slow|needs)", line))) for line in ours
    ]
    return list(dict.fromkeys(found))


# Sweeps that test_collect_command_runs runs, as the documents do.
COLLECTED = {
    f"gpusim sweep={Path(folder).name}"
    for line, skipped in commands("gpusim-collect")
    if not skipped
    for folder in re.findall(r"outputs/multirun/\w+", line)
}

# tests/cli/test_sweep_engines.py runs this with one seed that fails.
ON_SLURM = "gpusim -m experiment=tiny seed=1,2,3 hydra/launcher=slurm_here"
# The largest VM of the table takes longer than all others.
LARGEST = ",24TiB" if os.environ.get("GPUSIM_ALL_TABLES") else ""
SIZES = f"vm.memory=64GiB,256GiB,1TiB,4TiB,12TiB{LARGEST}"


def words(command: str) -> tuple[dict[str, str], list[str]]:
    """Environment and arguments of a command."""
    parts = shlex.split(command)
    environment = list(itertools.takewhile(lambda part: re.match("[A-Z_]+=", part), parts))
    return dict(part.split("=", 1) for part in environment), parts[len(environment) + 1 :]


def need_engines_of(arguments: list[str]) -> None:
    for argument in arguments:
        need_engine_of(argument)


@pytest.mark.parametrize("command", [line for line, _ in commands()])
def test_command_composes(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpusim.pages.backends.obstacle", lambda name: None)
    monkeypatch.setattr("gpusim.pages.backends.free_bytes", lambda name: 2**40)
    _, arguments = words(command)
    need_engines_of(arguments)
    composed_by_hydra(*(text for text in arguments if text.startswith("hydra/")))
    for overrides in jobs(arguments):
        resolve(composed(*overrides))


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [line for line, slow in commands() if not slow and line not in {*COLLECTED, ON_SLURM}],
)
def test_command_runs(command: str, tmp_path) -> None:
    environment, arguments = words(command)
    need_engines_of(arguments)
    gpusim(*arguments, cwd=tmp_path, before=f"import os; os.environ.update({environment})")


@pytest.mark.slow
@pytest.mark.parametrize(("command", "slow"), commands("gpusim-validate"))
def test_validation_command_runs(command: str, slow: bool) -> None:
    """A slow one only as far as its options: docs/validation/'s tables are tested themselves."""
    arguments = shlex.split(command)[1:]
    assert validate._parser().parse_args(arguments)
    if not slow:
        assert validate.main(arguments) == 0


@pytest.mark.parametrize(("command", "slow"), commands("gpusim-record"))
def test_record_command_can_be_parsed(command: str, slow: bool) -> None:
    """As far as its options and its scenario: tests/record records."""
    _, arguments = words(command)
    options = record.parse_options(arguments)
    if options.scenario is not None and not slow:
        load_scenario(options.scenario, options.overrides)


@pytest.mark.slow
@pytest.mark.parametrize(("command", "skipped"), commands("gpusim-predict"))
def test_predict_command_runs(command: str, skipped: bool, tmp_path, monkeypatch) -> None:
    """Run with few migrations, short walks and runs, and few settings.

    Parse only, if the command needs a VM.
    """
    monkeypatch.setattr("gpusim.fit.posterior.STEPS", 150)
    monkeypatch.setattr("gpusim.fit.posterior.BURST_STEPS", 15)
    monkeypatch.setattr("gpusim.predict.ensemble.MEMBERS", 3)
    monkeypatch.setattr("gpusim.explore.run_pool.MOST_STEPS", 300)
    monkeypatch.setattr("gpusim.explore.goal_search.TRIALS", 4)
    (tmp_path / "docs").symlink_to(REPOSITORY / "docs")
    (tmp_path / "outputs").mkdir()
    monkeypatch.chdir(tmp_path)
    _, arguments = words(command)
    assert predict._parsed(arguments)
    if not skipped:
        assert predict.main(arguments) == 0


@pytest.mark.slow
def test_the_answer_for_the_large_database(capsys: pytest.CaptureFixture[str]) -> None:
    """The lines of docs/how-to/predict-a-migration.md, as far as their numbers."""
    text = (REPOSITORY / "docs/how-to/predict-a-migration.md").read_text()
    shown = text.split("large_database.yaml")[1].split("```text\n")[1].splitlines()
    profile = str(REPOSITORY / "docs/profiles/large_database.yaml")
    limits = ["--deadline", "30min", "--max-downtime", "1s"]
    assert (
        predict.main(
            [
                profile,
                "link=25gbit",
                "migration=qemu_9_2",
                *limits,
                "--members",
                "12",
                "--no-advice",
            ]
        )
        == 0
    )
    printed = capsys.readouterr().out.splitlines()
    for line, real in zip(shown[:2], printed, strict=False):
        assert re.sub(r"[0-9.]+", "#", line) == re.sub(r"[0-9.]+", "#", real)


@pytest.mark.parametrize(("command", "slow"), commands("gpusim-bench"))
def test_benchmark_command_runs(command: str, slow: bool) -> None:
    """A slow one only as far as its options."""
    arguments = shlex.split(command)[1:]
    assert bench._parser().parse_args(arguments)
    if not slow:
        assert bench.main(arguments) == 0


@pytest.mark.slow
@pytest.mark.parametrize(("command", "skipped"), commands("gpusim-collect"))
def test_collect_command_runs(command: str, skipped: bool, tmp_path, monkeypatch) -> None:
    """Run on the sweep whose folder it names. Parse only, if it needs folders of the reader.

    If a document has a table of the sweep, the table is the one that was computed.
    """
    _, arguments = words(command)
    options = collect._parser().parse_args(arguments)
    if skipped:
        return
    for folder in options.folders:
        is_table = folder.name == "vm_size"
        runs = swept(tmp_path, folder.name, *([SIZES] if is_table else []))
        if is_table:
            check_table_of_the_size_of_vms(runs)
    monkeypatch.chdir(tmp_path)
    assert collect.main(arguments) == 0
    assert (options.folders[0] / "index.html").is_file()


def rows_of(document: str, heading: str) -> list[list[str]]:
    """The cells of the first table behind a line that begins so."""
    text = (REPOSITORY / document).read_text().split(f"\n{heading}", 1)[1]
    lines = itertools.takewhile(lambda line: line.startswith("|"), text.split("\n|---", 1)[1].splitlines()[1:])  # fmt: skip
    return [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in lines]


def swept(tmp_path: Path, name: str, *overrides: str) -> dict[str, dict]:
    gpusim(f"sweep={name}", *overrides, "plot=false", cwd=tmp_path)
    folders = (tmp_path / f"outputs/multirun/{name}").glob("*/summary.json")
    return {path.parent.name: json.loads(path.read_text()) for path in folders}


def check_table_of_the_size_of_vms(runs: dict[str, dict]) -> None:
    rows = rows_of("docs/how-to/run-a-sweep.md", "## An example: from which size")
    for size, *shown in rows[: 1 + SIZES.count(",")]:
        name = "fallback_sync_interval={},memory=" + size.replace(" ", "")
        timer, none = runs[name.format("5s")], runs[name.format("never")]
        saved = 1 - timer["total_time_s"] / none["total_time_s"]
        assert shown == [
            f"{timer['total_time_s']:.1f}",
            f"{none['total_time_s']:.1f}",
            f"{100 * saved:.0f} %",
            f"{timer['dirty_sync_count']} / {none['dirty_sync_count']}",
            f"{timer['guest_cpu_lost_percent']:.1f} % / {none['guest_cpu_lost_percent']:.1f} %",
        ]


@pytest.mark.slow
def test_table_of_evacuations_is_what_its_sweep_computes(tmp_path) -> None:
    """Of three guests at a time, in every order."""
    runs = swept(tmp_path, "evacuate", "evacuation.at_a_time=3")
    for orders, *shown in rows_of("docs/how-to/empty-a-host.md", "## An example"):
        for order in re.findall(r"\w+", orders):
            run = runs[f"at_a_time=3,order={order}"]
            assert shown[2] == f"{run['total_time_s']:.0f} s, {run['guest_cpu_lost_s']:.0f} s"


def test_host_of_ones_own_is_used_as_the_document_tells(tmp_path) -> None:
    """Its file, word for word, where the document says."""
    text = (REPOSITORY / "docs/how-to/empty-a-host.md").read_text()
    (example,) = re.findall(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    path = tmp_path / "mine/experiment/myhost.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(example)
    assert "gpusim --config-dir mine experiment=myhost" in text
    assert str(path.relative_to(tmp_path)) in text
    done = gpusim("--config-dir", "mine", "experiment=myhost", "dry_run=true", cwd=tmp_path)
    assert done.stdout.startswith("guests       13, ")


def test_no_document_has_a_gap() -> None:
    """A word in capitals alone on a line is a place that was to be filled."""
    for path in DOCUMENTS:
        assert not re.findall(r"^[A-Z]{4,}$", path.read_text(), re.MULTILINE), path


def test_every_command_that_is_named_exists() -> None:
    scripts = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["scripts"]
    for path in DOCUMENTS:
        assert set(re.findall(r"gpusim-[a-z]+", path.read_text())) <= set(scripts), path


def test_the_suite_of_a_gpu_has_its_commands() -> None:
    """tests/parity runs what they run, without a GPU and on a played one."""
    lines = [line for path in DOCUMENTS for line in path.read_text().splitlines()]
    assert [line for line in lines if "python -m pytest -m gpu" in line] == [
        "GPUSIM_REQUIRE_GPU=1 python -m pytest -m gpu",
        'GPUSIM_REQUIRE_GPU=1 python -m pytest -m gpu -p tests.parity.fake_cuda -k "not 2_to_the_3"',
    ]


@pytest.mark.parametrize("name", ["README.md", "docs/how-to/run-a-sweep.md"])
def test_example_of_a_document(name: str) -> None:
    text = (REPOSITORY / name).read_text().replace("```", "\n")
    example = doctest.DocTestParser().get_doctest(text, {}, name, name, 0)
    assert example.examples
    assert doctest.DocTestRunner().run(example).failed == 0


def test_package_examples() -> None:
    import gpusim.cli.sweep_report

    for module in (package, gpusim.cli.sweep_report):
        assert doctest.testmod(module).attempted > 0
        assert doctest.testmod(module).failed == 0


def test_readme_is_short() -> None:
    assert len((REPOSITORY / "README.md").read_text().splitlines()) <= 120


def test_documents_are_easy_to_read() -> None:
    """Sentence lengths and semicolons, as studies/prose.py counts them."""
    texts = [path.read_text() for path in DOCUMENTS]
    lengths = [length for text in texts for length in prose.sentence_lengths(text)]
    assert not prose.exceeds(lengths, sum(prose.prose(text).count(";") for text in texts))


def test_long_sentences_and_semicolons_are_noticed() -> None:
    assert prose.sentence_lengths("One two. Three `a b` four (five)!\n\n- six") == [2, 4, 1]
    assert prose.prose("a; b `c; d` |\n\n| x; y |\n").count(";") == 1
    assert prose.exceeds([18] * 20, 0)
    assert prose.exceeds([10] * 8 + [40] * 2, 0)
    assert prose.exceeds([10], 1)
    assert not prose.exceeds([10] * 10, 0)


def test_reference_is_what_the_code_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    assert reference.main(["--check"]) == 0


def test_reference_describes_every_key_and_preset() -> None:
    text = (REPOSITORY / "docs/reference/configuration.md").read_text()
    for group in fields(Config()):
        keys = getattr(Config(), group.name)
        for one in fields(keys) if is_dataclass(keys) else ():
            assert f"| `{group.name}.{one.name}` |" in text
    presets = (REPOSITORY / "docs/reference/presets.md").read_text()
    for path in CONF.glob("*/*.yaml"):
        assert f"| `{path.stem}` |" in presets


def test_the_how_to_of_guests_names_every_preset_but_idle() -> None:
    rows = rows_of("docs/how-to/describe-a-guest.md", "`workload` says")
    named = {name.strip("` ") for row in rows for name in row[1].split(",")}
    assert named == {path.stem for path in CONF.glob("workload/*.yaml")} - {"idle"}


def test_links_of_documents_lead_somewhere() -> None:
    """Check files and headings, also of README.md. mkdocs build --strict checks docs/ again."""
    for path in DOCUMENTS:
        text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
        pictures = re.findall(r'src(?:set)?="([^"]+)"', text)
        for link in [*pictures, *re.findall(r"\]\(([^)\s]+)\)", text)]:
            if link.startswith("https://"):
                continue
            file, _, heading = link.partition("#")
            target = path.parent / file if file else path
            assert target.exists(), f"{path}: {link}"
            if heading:
                assert heading in anchors(target.read_text()), f"{path}: {link}"


def test_a_page_shows_the_narrow_variant_of_a_picture_on_a_phone() -> None:
    """Each picture in docs/figures/ has a variant, and both are in one <picture>."""
    text = "".join(path.read_text() for path in DOCUMENTS)
    source = r'<source media="\(max-width: 34rem\)" srcset="(\S+)">\n<img .* src="(\S+)">'
    shown = {Path(wide): Path(narrow) for narrow, wide in re.findall(source, text)}
    assert shown
    assert all(narrow_path(wide) == narrow for wide, narrow in shown.items())
    figures = sorted(REPOSITORY.glob("docs/figures/*_narrow.png"))
    assert sorted({path.name for path in shown.values()}) == [path.name for path in figures]
    wide = {path.name for path in REPOSITORY.glob("docs/figures/*.png")} - {
        path.name for path in figures
    }
    assert wide == {path.name for path in shown}


def anchors(text: str) -> set[str]:
    """The anchors of the headings of a Markdown document, as GitHub and mkdocs make them."""
    heads = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads}


def test_record_document_names_every_scenario() -> None:
    table = [row[0] for row in rows_of("docs/how-to/record-a-real-qemu.md", "## Scenarios")]
    assert table == list(list_scenarios())


def test_first_sentence_says_what_is_simulated() -> None:
    first = (REPOSITORY / "README.md").read_text().split("\n\n")[1].splitlines()[0]
    assert "simulates QEMU live migration" in first
    assert "does not simulate GPUs" in first


def test_table_of_sweeps_says_what_they_are() -> None:
    """Each file's question and its number of runs, as docs/how-to/run-a-sweep.md has them."""
    table = (REPOSITORY / "docs/how-to/run-a-sweep.md").read_text()
    for path in sorted(CONF.glob("sweep/*.yaml")):
        settings = yaml.safe_load(path.read_text())["hydra"]
        question = settings["callbacks"]["report"]["question"]
        sweeper = settings["sweeper"]
        runs = sweeper.get("n_trials") or count(sweeper["params"])
        assert f"| `{path.stem}` | {question} | {runs} |" in table


def count(params: dict[str, object]) -> int:
    parsed = OverridesParser.create().parse_overrides([f"{k}={v}" for k, v in params.items()])
    return len(BasicSweeper.split_arguments(parsed, None)[0])
