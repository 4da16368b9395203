"""Does every module read files through gpusim/reading.py, except those that are named here?"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import gpusim

PACKAGE = Path(gpusim.__file__).parent
# These open files for reading themselves: files of the system, and files of gpusim's own.
ALLOWED = {
    "reading.py": "the one reader",
    "files.py": "locks and folders of gpusim's own, opened to be synchronised or inspected",
    "command.py": "/dev/null and standard input",
    "bench/cli.py": "/proc/cpuinfo",
    "monitor/dirty_rate.py": "/proc of a QEMU on this machine",
    "pages/backends.py": "/proc/meminfo and the limits of control groups",
    "pages/cupy_kernels.py": "the CUDA source in the package",
    "pages/kernel_cache.py": "compiled kernels, checked by a digest",
    "record/guest.py": "the memory of the recorder's own QEMU",
    "record/cut_file.py": "its own file, which it opens to write",
    "cli/joblib_workers.py": "locks, which hold no data",
    "cli/run_folder.py": "files that a refused run puts back as they were",
    "cli/collect.py": "a picture that the same command wrote",
    "predict/report.py": "a picture that the same command wrote",
    "results/html/run_page.py": "a picture that the same command wrote",
}
METHODS = {"read_text", "read_bytes"}  # of pathlib.Path
FUNCTIONS = {
    "builtins": {"open"},
    "io": {"open", "FileIO"},
    "os": {"open", "fdopen"},
    "codecs": {"open"},
    "gzip": {"open", "GzipFile"},
    "bz2": {"open", "BZ2File"},
    "lzma": {"open", "LZMAFile"},
    "zipfile": {"ZipFile"},
    "tarfile": {"open"},
    "json": {"load"},
    "pickle": {"load"},
    "tomllib": {"load"},
    "yaml": {"load", "safe_load", "load_all", "safe_load_all", "full_load"},
    "OmegaConf": {"load", "from_dotlist"},
    "np": {"load", "loadtxt", "genfromtxt", "fromfile", "memmap"},
    "fileinput": {"input"},
    "linecache": {"getlines", "getline"},
    "mmap": {"mmap"},
}
# Calls that read no file: of a member of an archive, and with these arguments.
IN_MEMORY = {("np", "load"): "io.BytesIO", ("yaml", "safe_load"): "value"}


def opens(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield the line and the name of each call that can open a file for reading."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = node.func
        if isinstance(called, ast.Name):
            if called.id in FUNCTIONS["builtins"] and not writes(node, 1):
                yield node.lineno, called.id
        elif isinstance(called, ast.Attribute):
            owner = called.value.id if isinstance(called.value, ast.Name) else ""
            argument = ast.unparse(node.args[0]) if node.args else ""
            if owner == "archive" or argument.startswith(IN_MEMORY.get((owner, called.attr), "\0")):
                continue
            if called.attr in FUNCTIONS.get(owner, ()) and not writes(node, 1):
                yield node.lineno, f"{owner}.{called.attr}"
            elif owner != "reading" and called.attr in METHODS:
                yield node.lineno, f".{called.attr}"
            elif called.attr == "open" and owner not in FUNCTIONS and not writes(node, 0):
                yield node.lineno, ".open"


def writes(call: ast.Call, place: int) -> bool:
    """Tell whether the mode of an opening call, at this place of its arguments, only writes."""
    modes = [keyword.value for keyword in call.keywords if keyword.arg == "mode"]
    modes += call.args[place : place + 1]
    return any(
        isinstance(mode, ast.Constant)
        and isinstance(mode.value, str)
        and set(mode.value) & set("wxa")
        and "+" not in mode.value
        for mode in modes
    )


def test_only_named_modules_open_files() -> None:
    found = {
        path.relative_to(root).as_posix(): calls
        for root in (PACKAGE, PACKAGE.parent / "hydra_plugins")
        for path in root.rglob("*.py")
        if (calls := list(opens(ast.parse(path.read_text()))))
    }
    others = {name: calls for name, calls in found.items() if name not in ALLOWED}
    assert not others, "read these files through gpusim/reading.py"
    assert set(found) == set(ALLOWED), "these modules of the list open no file"


def test_the_test_sees_every_way_to_open() -> None:
    reads = """
open(p)
open(p, "r+b")
p.open()
p.open("rb")
p.read_text()
p.read_bytes()
json.load(f)
np.load(path)
yaml.safe_load(text)
OmegaConf.load(p)
lzma.open(p)
os.open(p, os.O_RDONLY)
"""
    assert [line for line, _ in opens(ast.parse(reads))] == list(range(2, 14))
    others = 'open(p, "wb")\np.open("x")\nread_text(p)\nreading.read_bytes(p)\njson.loads(t)'
    assert not list(opens(ast.parse(others)))
    assert not list(opens(ast.parse("np.load(io.BytesIO(b))\np.write_text(t)")))
