"""Does a reader that refuses a file name the command that reads it?"""

from __future__ import annotations

from pathlib import Path

import pytest

from gpusim.errors import CodedError
from gpusim.formats import recording_from_answers, recording_from_virsh
from gpusim.formats.profile import load_profile
from gpusim.formats.virsh import load_domstats

JOBS = '{"return": {"enabled": true}}\n1700000000.5\nJob type:         Unbounded\n'
DOMSTATS = "Domain: 'a'\n  dirtyrate.calc_status=2\n  dirtyrate.megabytes_per_second=5\n"
ANSWERS = '[{"return": {"status": "completed", "total-time": 5}}]'
METRICS = 'kubevirt_vmi_memory_domain_bytes{name="a"} 5\n'
VECTOR = '{"status": "success", "data": {"resultType": "vector", "result": []}}'
TABLE = "name,memory,dirty_rate\n# a: b: c\na,1GiB,5\n"


@pytest.mark.parametrize(
    ("text", "command"),
    [
        (JOBS, "gpusim-record --libvirt"),
        (DOMSTATS, "gpusim-predict --domstats"),
        (ANSWERS, "gpusim-record --answers"),
        (METRICS, "gpusim-predict --fleet"),
        (VECTOR, "gpusim-predict --fleet"),
        (TABLE, "gpusim-predict --fleet"),
    ],
)
def test_every_other_reader_names_the_right_one(text: str, command: str, tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_text(text)
    readers = {
        "gpusim-predict": lambda: load_profile(path),
        "gpusim-predict --domstats": lambda: load_domstats(path, None, None),
        "gpusim-record --answers": lambda: recording_from_answers.convert(path, {}),
        "gpusim-record --libvirt": lambda: recording_from_virsh.convert(path, None),
    }
    for own, read in readers.items():
        with pytest.raises(CodedError) as caught:
            read()
        assert (f"{command} " in str(caught.value)) == (own != command), own


def test_a_text_of_no_known_kind_has_no_hint(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text("- a: b: c")
    with pytest.raises(CodedError) as caught:
        load_profile(path)
    assert caught.value.code == "not_parsed" and "gpusim-" not in str(caught.value)
