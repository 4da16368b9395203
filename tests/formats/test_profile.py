"""Is a profile read as it was written, and one that says nothing of its VM refused in a line?"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from gpusim.formats.errors import ProfileError
from gpusim.formats.migration_history import Outcome
from gpusim.formats.profile import Measurement, Profile, load_profile
from tests.formats.profiles import exact_profile, uniform_pages

GIB = 2**30
TYPED = """\
memory: 64GiB
vcpus: 16
zero_percent: 25
measurements:
- {seconds: 1, dirty_rate: 812}
- {seconds: 5, dirty_rate: 601}
- {seconds: 10, dirty_rate: 450}
"""


def written(tmp_path: Path, found: object) -> Path:
    path = tmp_path / "vm.json"
    path.write_text(found if isinstance(found, str) else json.dumps(found))
    return path


def document(**changes: Any) -> dict[str, Any]:
    return exact_profile(uniform_pages(10_000, 3000), GIB).document() | changes


def error_of(tmp_path: Path, found: object) -> ProfileError:
    """The error, whose text is one bounded line that names the file."""
    with pytest.raises(ProfileError) as caught:
        load_profile(written(tmp_path, found))
    text = str(caught.value)
    assert text.startswith(f"{tmp_path / 'vm.json'}: ")
    assert "\n" not in text and len(text) < 800
    return caught.value


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    profile = Profile(
        source="a test",
        memory_bytes=GIB + 4096,
        vcpus=3,
        accelerator="tcg",
        qemu=(10, 0, 2),
        mode="page-sampling",
        sample_pages=16384,
        measurements=tuple(
            Measurement(seconds=t, dirty_rate=12, at_s=t, running=0.5) for t in (0.1, 1.0, 5.0)
        ),
        blocks={"pc.ram": GIB, "rom": 4096},
        zero_sampled=1000,
        zero_found=400,
        utilisation=(1.0, 0.5, 0.0),
        parameters={"max-bandwidth": 0},
        capabilities=("auto-converge",),
        outcome=Outcome(completed=False, seconds=300.0, max_throttle_percent=99),
        notes=("a note",),
    )
    assert load_profile(written(tmp_path, profile.document())) == profile


def test_a_typed_one(tmp_path: Path) -> None:
    profile = load_profile(written(tmp_path, TYPED))
    assert (profile.memory_bytes, profile.vcpus, profile.zero_share) == (64 * GIB, 16, 0.25)
    assert profile.mode == "dirty-bitmap"
    assert [one.dirty_rate for one in profile.measurements] == [812, 601, 450]


def test_qemu_samples_no_small_blocks() -> None:
    # 16384 pages of 1 GiB, 4 of 256 KiB, 2 of 128 KiB, and none of 4 KiB
    profile = Profile(
        source="",
        memory_bytes=GIB,
        mode="page-sampling",
        sample_pages=16384,
        blocks={"pc.ram": GIB, "pc.bios": 2**18, "pc.rom": 2**17, "loader": 4096},
    )
    assert profile.sampled == 16390


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "empty"),
        ("   \n", "empty"),
        (json.dumps(document())[:200], "not_parsed"),
        ("[1, 2]", "not_a_mapping"),
        ("hello", "not_a_mapping"),
        ("a: [", "not_parsed"),
        ("[" * 5000, "not_parsed"),
    ],
)
def test_a_file_that_is_not_a_profile(text: str, code: str, tmp_path: Path) -> None:
    assert error_of(tmp_path, text).code == code


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ProfileError) as caught:
        load_profile(tmp_path / "none.json")
    assert caught.value.code == "unreadable"


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"memory": None}, "memory"),
        ({"memory": "lots"}, "memory"),
        ({"memory": 0}, "memory"),
        ({"memory": "x" * 10_000}, "memory"),
        ({"vcpus": 0}, "vcpus"),
        ({"vcpus": 1.5}, "vcpus"),
        ({"vcpus": True}, "vcpus"),
        ({"mode": "guess"}, "mode"),
        ({"mode": ["guess"] * 1000}, "mode"),
        ({"profile": 2}, "profile"),
        ({"qemu": "new"}, "qemu"),
        ({"utilisation": [2]}, "utilisation[0]"),
        ({"utilisation": [True]}, "utilisation[0]"),
        ({"zero_pages": {"sampled": 10, "zero": 11}}, "zero_pages.zero"),
        ({"zero_pages": {"sampled": True, "zero": 0}}, "zero_pages.sampled"),
        ({"zero_pages": {"sampled": 2**62, "zero": 0}}, "zero_pages.sampled"),
        ({"zero_percent": 101}, "zero_percent"),
        ({"measurements": 5}, "measurements"),
        ({"measurements": [5]}, "measurements[0]"),
        ({"measurements": [{"seconds": 0, "dirty_rate": 1}]}, "measurements[0].seconds"),
        ({"measurements": [{"seconds": 1, "dirty_rate": -1}]}, "measurements[0].dirty_rate"),
        ({"blocks": 3}, "blocks"),
        ({"outcome": 5}, "outcome"),
        ({"outcome": {"completed": "yes", "seconds": 5}}, "outcome.completed"),
        ({"outcome": {"completed": True, "seconds": 0}}, "outcome.seconds"),
    ],
)
def test_a_wrong_value_is_refused(changes: dict[str, Any], key: str, tmp_path: Path) -> None:
    error = error_of(tmp_path, document(**changes))
    assert (error.code, error.data["key"]) == ("bad_value", key)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"utilisation": [0.5] * 5}, "too_many_utilisations"),
        ({"blocks": {"pc.ram": 2 * GIB}}, "blocks_differ_from_memory"),
        ({"colour": "red"}, "unknown_key"),
        ({"measurements": [{"seconds": 1}]}, "missing"),
        ({"measurements": [{"seconds": 1, "dirty_rate": 1, "speed": 2}]}, "unknown_key"),
        ({"measurements": []}, "too_few_periods"),
        ({"c" * 10_000: "red"}, "unknown_key"),
    ],
)
def test_values_that_contradict_each_other(
    changes: dict[str, Any], code: str, tmp_path: Path
) -> None:
    assert error_of(tmp_path, document(**changes)).code == code


@pytest.mark.parametrize(
    ("changes", "right"),
    [
        ({"parameters": {"max-bandwith": 1}}, "max-bandwidth"),
        ({"parameters": {"max_bandwidth": 1}}, "max-bandwidth"),
        ({"capabilities": ["auto-convergence"]}, "auto-converge"),
    ],
)
def test_a_misspelt_name_is_refused_with_the_right_one(
    changes: dict[str, Any], right: str, tmp_path: Path
) -> None:
    error = error_of(tmp_path, document(**changes))
    assert (error.code, error.data["right"]) == ("misspelt_name", right)


@pytest.mark.parametrize(
    "form",
    [
        ["auto-converge", "events"],
        {"auto-converge": True, "events": 1, "multifd": False, "newer-than-gpusim": False},
        [{"capability": "auto-converge", "state": True}, {"capability": "xbzrle", "state": False},
         {"capability": "events", "state": True}],
        {"return": [{"capability": "auto-converge", "state": True}, "events"], "id": "libvirt-1"},
    ],
)  # fmt: skip
def test_capabilities_have_qemus_forms(form: Any, tmp_path: Path) -> None:
    profile = load_profile(written(tmp_path, document(capabilities=form)))
    assert set(profile.capabilities or ()) == {"auto-converge", "events"}


def test_capabilities_typed_as_yaml(tmp_path: Path) -> None:
    typed = TYPED + "capabilities:\n- {capability: auto-converge, state: on}\n- events\n"
    assert load_profile(written(tmp_path, typed)).capabilities == ("auto-converge", "events")
    typed = TYPED + "capabilities: {auto-converge: off}\n"
    assert load_profile(written(tmp_path, typed)).capabilities == ()


@pytest.mark.parametrize(
    ("changes", "code", "key"),
    [
        ({"capabilities": 5}, "bad_value", "capabilities"),
        ({"capabilities": "auto-converge"}, "bad_value", "capabilities"),
        ({"capabilities": {"auto-converge": "on"}}, "bad_value", "capabilities.auto-converge"),
        ({"capabilities": [["auto-converge"]]}, "bad_value", "capabilities[0]"),
        ({"capabilities": [{"capability": "events"}]}, "missing", "capabilities[0].state"),
        ({"capabilities": ["warp-drive"]}, "unknown_capability", None),
        ({"capabilities": {"warp-drive": True}}, "unknown_capability", None),
        ({"capabilities": {"auto_converge": True}}, "misspelt_name", "capabilities"),
        (
            {"parameters": {"multifd-compression": "lz4"}},
            "bad_value",
            "parameters.multifd-compression",
        ),
        (
            {"parameters": {"zero-page-detection": 1}},
            "bad_value",
            "parameters.zero-page-detection",
        ),
        ({"parameters": {"tls-creds": []}}, "bad_value", "parameters.tls-creds"),
        ({"parameters": [1]}, "bad_value", "parameters"),
    ],
)
def test_unknown_capabilities_and_choices_are_refused(
    changes: dict[str, Any], code: str, key: str | None, tmp_path: Path
) -> None:
    error = error_of(tmp_path, document(**changes))
    assert (error.code, error.data.get("key")) == (code, key)


def test_parameters_as_qmp_answers(tmp_path: Path) -> None:
    given = {"return": {"max-bandwidth": 7, "tls-creds": "", "zero-page-detection": "multifd"}}
    profile = load_profile(written(tmp_path, document(parameters=given)))
    assert profile.parameters == given["return"]


def test_too_few_periods(tmp_path: Path) -> None:
    rows = [{"seconds": 1, "dirty_rate": 10}] * 5 + [{"seconds": 1.004, "dirty_rate": 10}]
    error = error_of(tmp_path, document(measurements=rows))
    counts = (error.data["measurements"], error.data["periods"])
    assert (error.code, counts) == ("too_few_periods", (6, 1))


def test_from_a_larger_vm(tmp_path: Path) -> None:
    rows = [{"seconds": t, "dirty_rate": 200} for t in (1, 5, 10)]
    assert error_of(tmp_path, document(measurements=rows)).code == "dirties_more_than_memory"


def test_more_dirty_pages_than_pages_that_are_not_zero(tmp_path: Path) -> None:
    rows = [{"seconds": t, "dirty_rate": 900 / t} for t in (1, 5, 10)]
    error = error_of(tmp_path, document(measurements=rows, zero_percent=50))
    assert (error.code, error.data["percent"]) == ("dirties_zero_pages", 50)


def test_a_block_below_128_kib_is_not_sampled(tmp_path: Path) -> None:
    small = {"memory": 2**16, "mode": "page-sampling", "blocks": {"rom": 2**16}}
    assert error_of(tmp_path, document(**small)).code == "no_block_sampled"


def test_a_sample_of_zero_pages_is_not_exact(tmp_path: Path) -> None:
    """The guest writes all of its non-zero half. A sample of 53 % zero is 1.9 deviations off."""
    rows = [{"seconds": t, "dirty_rate": 512 / t} for t in (1, 5, 10)]
    path = written(tmp_path, document(measurements=rows, zero_pages={"sampled": 1000, "zero": 530}))
    assert load_profile(path).zero_share == 0.53


@pytest.mark.parametrize("text", ["9.2.0", "9.2", "9.2.0-1", "9.2.0 (Debian 1:9.2.0+ds-2)"])
def test_versions_of_qemu_and_of_packages(text: str, tmp_path: Path) -> None:
    path = tmp_path / "vm.json"
    path.write_text(json.dumps(document() | {"qemu": text}))
    assert load_profile(path).qemu == (9, 2, 0)


def test_a_repeat_is_not_another_period() -> None:
    """QEMU measured 100 to 106 ms for 100 ms."""
    lengths = (0.1, 0.106, 0.2, 0.206, 0.5, 0.504, 10.0, 10.004)
    profile = exact_profile(uniform_pages(2**14, 2000), GIB, lengths)
    assert profile.periods_s == [0.1, 0.2, 0.5, 10.0]
    assert profile.repeated
    assert not exact_profile(uniform_pages(2**14, 2000), GIB).repeated


def test_a_profile_is_data_and_tells_no_environment_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "hush")
    error = error_of(tmp_path, document(accelerator="${oc.env:SECRET}"))
    assert (error.code, error.data["value"]) == ("bad_value", '"${oc.env:SECRET}"')
    path = tmp_path / "typed.yaml"
    path.write_text("memory: ${oc.env:SECRET}\nmeasurements: []\n")
    with pytest.raises(ProfileError) as caught:
        load_profile(path)
    assert "hush" not in str(caught.value)


def test_a_pipe_is_no_profile(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(ProfileError) as caught:
        load_profile(tmp_path / "pipe.json")
    assert caught.value.code == "unreadable"
