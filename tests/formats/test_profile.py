"""Is a profile read as it was written, and one that says nothing of its VM refused in a line?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gpusim.formats.profile import Measurement, Profile, ProfileError, load_profile
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


def error_of(tmp_path: Path, found: object) -> str:
    with pytest.raises(ProfileError) as caught:
        load_profile(written(tmp_path, found))
    text = str(caught.value)
    assert text.startswith(f"{tmp_path / 'vm.json'}: ")
    assert "\n" not in text
    return text


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
        notes=("a note",),
    )
    assert load_profile(written(tmp_path, profile.document())) == profile


def test_a_typed_one(tmp_path: Path) -> None:
    profile = load_profile(written(tmp_path, TYPED))
    assert (profile.memory_bytes, profile.vcpus, profile.zero_share) == (64 * GIB, 16, 0.25)
    assert profile.mode == "dirty-bitmap"
    assert [one.dirty_rate for one in profile.measurements] == [812, 601, 450]


def test_pages_sampled_are_those_that_qemu_looks_at() -> None:
    # 1 GiB at 16384 a GiB, and of the small blocks 256 KiB: 4; 128 KiB: 2; 4 KiB: none
    profile = Profile(
        source="",
        memory_bytes=GIB,
        mode="page-sampling",
        sample_pages=16384,
        blocks={"pc.ram": GIB, "pc.bios": 2**18, "pc.rom": 2**17, "loader": 4096},
    )
    assert profile.sampled == 16390


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        ("   \n", "empty"),
        (json.dumps(document())[:200], "cut off"),
        ("[1, 2]", "no profile"),
        ("hello", "hello: no such key"),
        ("a: [", "cut off"),
    ],
)
def test_a_file_that_holds_none(text: str, words: str, tmp_path: Path) -> None:
    assert words in error_of(tmp_path, text)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match=r"none\.json: cannot be read \(No such file"):
        load_profile(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"memory": None}, "memory: None"),
        ({"memory": "lots"}, "memory: 'lots'"),
        ({"memory": 0}, "memory: 0"),
        ({"vcpus": 0}, "vcpus: 0"),
        ({"vcpus": 1.5}, "vcpus: 1.5"),
        ({"mode": "guess"}, "page-sampling, dirty-bitmap, dirty-ring"),
        ({"profile": 2}, "profile: 2"),
        ({"qemu": "new"}, "qemu: 'new'"),
        ({"utilisation": [2]}, "utilisation: 2"),
        ({"utilisation": [0.5] * 5}, "utilisation of 5 vCPUs, and the VM has 4"),
        ({"zero_pages": {"sampled": 10, "zero": 11}}, "zero_pages"),
        ({"zero_pages": {"sampled": True, "zero": 0}}, "zero_pages"),
        ({"zero_pages": {"sampled": 10**400, "zero": 0}}, "zero_pages"),
        ({"zero_percent": 101}, "zero_percent: 101"),
        ({"colour": "red"}, "colour: no such key"),
        (
            {"parameters": {"max-bandwith": 1}},
            "max-bandwith: QEMU has no such name; max-bandwidth?",
        ),
        (
            {"parameters": {"max_bandwidth": 1}},
            "max_bandwidth: QEMU has no such name; max-bandwidth?",
        ),
        (
            {"capabilities": ["auto-convergence"]},
            "auto-convergence: QEMU has no such name; auto-converge?",
        ),
        ({"measurements": []}, "measurements: none"),
        ({"measurements": [{"seconds": 1}]}, r"measurements[0]"),
        ({"measurements": [{"seconds": float("nan"), "dirty_rate": 1}]}, "seconds: nan"),
        ({"measurements": [{"seconds": 1, "dirty_rate": -1}]}, "dirty_rate: -1"),
        ({"measurements": [{"seconds": 1, "dirty_rate": 1, "speed": 2}]}, "no such key as speed"),
        ({"blocks": {"pc.ram": 2 * GIB}}, "put together from two VMs?"),
        ({"blocks": 3}, "blocks: 3"),
    ],
)
def test_values_that_cannot_be(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    assert words in error_of(tmp_path, document(**changes))


def test_too_few_periods(tmp_path: Path) -> None:
    rows = [{"seconds": 1, "dirty_rate": 10}] * 5 + [{"seconds": 1.004, "dirty_rate": 10}]
    assert "6 measurements of 1 different periods; expected 3 or more" in error_of(
        tmp_path, document(measurements=rows)
    )


def test_from_a_larger_vm(tmp_path: Path) -> None:
    """What was dirtied is more than the VM has: it belongs to another."""
    rows = [{"seconds": t, "dirty_rate": 200} for t in (1, 5, 10)]
    assert "from a VM of another size?" in error_of(tmp_path, document(measurements=rows))


def test_more_dirty_than_is_not_zero(tmp_path: Path) -> None:
    rows = [{"seconds": t, "dirty_rate": 900 / t} for t in (1, 5, 10)]
    text = error_of(tmp_path, document(measurements=rows, zero_percent=50))
    assert "more than the 50 % of the VM that is not zero" in text


def test_a_sample_of_zero_pages_is_not_taken_for_exact(tmp_path: Path) -> None:
    """A guest that writes all of its half that is not zero, by a sample that says 53 %: 1.9 deviations."""
    rows = [{"seconds": t, "dirty_rate": 512 / t} for t in (1, 5, 10)]
    path = written(tmp_path, document(measurements=rows, zero_pages={"sampled": 1000, "zero": 530}))
    assert load_profile(path).zero_share == 0.53


@pytest.mark.parametrize("said", ["9.2.0", "9.2", "9.2.0-1", "9.2.0 (Debian 1:9.2.0+ds-2)"])
def test_a_version_as_qemu_and_its_packagers_write_it(said: str, tmp_path: Path) -> None:
    path = tmp_path / "vm.json"
    path.write_text(json.dumps(document() | {"qemu": said}))
    assert load_profile(path).qemu == (9, 2, 0)


def test_repeats_of_a_period_are_no_other_length() -> None:
    """QEMU measured 100 to 106 ms where it was asked for 100."""
    lengths = (0.1, 0.106, 0.2, 0.206, 0.5, 0.504, 10.0, 10.004)
    profile = exact_profile(uniform_pages(2**14, 2000), GIB, lengths)
    assert profile.periods_s == [0.1, 0.2, 0.5, 10.0]
    assert profile.repeated
    assert not exact_profile(uniform_pages(2**14, 2000), GIB).repeated
