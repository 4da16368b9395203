"""Compiled kernels of numba on disk, with a digest, so that no damaged file is ever used.

numba trusts the files in its cache: after a power loss an empty file stops every later run, and a
file with zeros in the middle is machine code. Here each kernel and signature has one file that
begins with the SHA-256 of the rest. A file that does not match is removed, and numba compiles again.
If no folder can be written then numba compiles in each process.

Source: numba/core/caching.py (0.65 to 0.68), whose locators choose the folder.
"""

from __future__ import annotations

import hashlib
import pickle
from contextlib import suppress
from pathlib import Path
from typing import Any

from numba import __version__ as numba_version
from numba.core.caching import FunctionCache
from numba.core.serialize import dumps

from gpusim.files import whole_file

_DIGEST_BYTES = hashlib.sha256().digest_size


def cache_on_disk(kernel: Any) -> Any:
    """Decorate a kernel that `njit` made: keep its compiled code for the next process."""
    with suppress(RuntimeError):  # numba finds no folder that can be written
        kernel._cache = _DigestCache(kernel.py_func)
    return kernel


class _DigestCache(FunctionCache):
    """numba's cache of one kernel, which neither reads a damaged file nor stops a run."""

    def __init__(self, function: Any) -> None:
        super().__init__(function)
        stamp = f"{numba_version} {self._impl.locator.get_source_stamp()!r}"
        self._files = _DigestFiles(Path(self._cache_path), self._impl.filename_base, stamp)
        self._cache_file: Any = self._files

    def load_overload(self, signature: Any, target_context: Any) -> Any:
        """Return the compiled code, or None if there is none that can be used."""
        try:
            return super().load_overload(signature, target_context)
        except Exception:  # whatever a cache file holds, numba can compile again
            self._files.remove(self._index_key(signature, target_context.codegen()))
            return None

    def save_overload(self, signature: Any, data: Any) -> None:
        """Keep the compiled code if it can be written."""
        with suppress(OSError):  # a full disk, or a folder that became read-only
            super().save_overload(signature, data)


class _DigestFiles:
    """One file for each key: the digest of the rest, then a pickle."""

    def __init__(self, folder: Path, base: str, stamp: str) -> None:
        self._folder, self._base, self._stamp = folder, base, stamp

    def _path(self, key: object) -> Path:
        name = hashlib.sha256(repr(key).encode()).hexdigest()[:16]
        return self._folder / f"{self._base}.{name}.gpusim"

    def _digest(self, key: object, content: bytes) -> bytes:
        """Return the digest of a file that belongs to this key, numba and source."""
        return hashlib.sha256(f"{self._stamp} {key!r} ".encode() + content).digest()

    def load(self, key: object) -> Any:
        """Return what `save` kept under a key, or None. A file of anything else is removed."""
        try:
            whole = self._path(key).read_bytes()
        except OSError:
            return None
        digest, content = whole[:_DIGEST_BYTES], whole[_DIGEST_BYTES:]
        if digest != self._digest(key, content):
            self.remove(key)
            return None
        return pickle.loads(content)

    def save(self, key: object, data: object) -> None:
        """Keep data under a key.

        Raises:
            OSError: the file cannot be written.
        """
        content = dumps(data)
        with whole_file(self._path(key)) as file:
            file.write(self._digest(key, content) + content)

    def remove(self, key: object) -> None:
        """Remove the file of a key if that is possible."""
        with suppress(OSError):
            self._path(key).unlink(missing_ok=True)
