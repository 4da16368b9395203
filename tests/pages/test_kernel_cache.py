"""Does a run survive any damage of numba's compiled code on disk?"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("numba")

from gpusim.pages.kernel_cache import _DigestFiles

COMPILES = (  # prints of how many kernels the compiled code came from the disk
    "from gpusim.pages import numba_kernels as k; k.compile_kernels(); "
    "print(sum(sum(one.stats.cache_hits.values()) for one in (k._paint, k._clear_in_chunk)))"
)
KERNELS = 2
DAMAGES = {
    "empty": lambda whole: b"",
    "truncated": lambda whole: whole[: len(whole) // 2],
    "garbage": lambda whole: os.urandom(len(whole)),
    "another pickle": lambda whole: pickle.dumps(5),
    "zeros in the middle": lambda whole: whole[:5000] + bytes(4096) + whole[9096:],
}


def cache_hits(folder: Path) -> int:
    environment = os.environ | {"NUMBA_CACHE_DIR": str(folder)}
    done = subprocess.run(
        [sys.executable, "-c", COMPILES],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return int(done.stdout)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_removed_and_not_read(damage: str, tmp_path: Path) -> None:
    files = _DigestFiles(tmp_path, "kernel", "numba and source")
    code = os.urandom(20_000)
    files.save("int64", code)
    (path,) = tmp_path.iterdir()
    assert files.load("int64") == code
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    assert files.load("int64") is None
    assert not path.exists()


def test_the_file_of_another_kernel_source_or_signature_is_not_read(tmp_path: Path) -> None:
    files = _DigestFiles(tmp_path, "kernel", "numba and source")
    files.save("int64", "code")
    other = _DigestFiles(tmp_path, "kernel", "another source")
    assert other.load("int64") is None
    files.save("int64", "code")
    files._path("int64").rename(files._path("float64"))
    assert files.load("float64") is None


def test_a_folder_in_place_of_the_file(tmp_path: Path) -> None:
    files = _DigestFiles(tmp_path, "kernel", "numba and source")
    files._path("int64").mkdir()
    assert files.load("int64") is None


@pytest.mark.slow
def test_every_process_compiles_again_after_damage(tmp_path: Path) -> None:
    assert (cache_hits(tmp_path), cache_hits(tmp_path)) == (0, KERNELS)
    paths = list(tmp_path.rglob("*.gpusim"))
    assert len(paths) == KERNELS
    for path, damage in zip(paths, ("empty", "zeros in the middle"), strict=True):
        path.write_bytes(DAMAGES[damage](path.read_bytes()))
    assert (cache_hits(tmp_path), cache_hits(tmp_path)) == (0, KERNELS)


@pytest.mark.slow
def test_without_a_folder_that_can_be_written(tmp_path: Path) -> None:
    """A file in place of the cache folder, and no other place that numba could use."""
    (tmp_path / "file").touch()
    code = (
        "from numba.core import caching as c; c.CacheImpl._locator_classes = "
        f"[c.UserProvidedCacheLocator]; {COMPILES}"
    )
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "file")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=False,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (0, "0\n"), done.stderr
