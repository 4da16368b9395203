"""The one reader of everything that comes from outside: files, JSON and YAML.

A file may be a FIFO that never ends, 156 kB of xz that hold 2 GB, or lists nested 100,000 deep. This
module checks all limits before it takes memory. It returns None, bool, int, float, str, list and dict
with text keys, and nothing else. The callers decide what the values mean.
"""

from __future__ import annotations

import json
import lzma
import math
import os
import re
import stat
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NoReturn

from gpusim.errors import CodedError, one_line

MIB = 2**20
LARGEST_INTEGER = 2**63
XZ_MEMORY_BYTES = 128 * MIB  # for the dictionary: xz -9 needs 65 MiB
CHUNK_BYTES = MIB
GZIP_WINDOW = 31  # zlib's number for a gzip header and its largest window
BOM = "\ufeff"
# A text, which may be cut off by the end of its line, a bracket, or a line that starts a new part.
TOKEN = re.compile(r'"(?:[^"\\\n]|\\.)*+"?|[{}\[\]]|\n(?=[^\s}\]",-])')
INNER_LEVELS = 3
SHORTEST = 12  # characters of an object that a log may hold: {"return":{}}
UTF_16 = (b"\xff\xfe", b"\xfe\xff")  # its marks of byte order. No UTF-8 begins so.
UTF_32 = b"\xff\xfe\0\0"
FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK  # opening a FIFO does not wait

# YAML 1.1 as OmegaConf reads it, without base 60 (1:30), base 8 (010), dates and merge keys.
NULL = re.compile(r"~|null|Null|NULL|")
TRUE = re.compile(r"yes|Yes|YES|true|True|TRUE|on|On|ON")
FALSE = re.compile(r"no|No|NO|false|False|FALSE|off|Off|OFF")
INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9_]*)")
NUMBER = re.compile(r"[-+]?(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?")
NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
BASE_8 = re.compile(r"[-+]?0[0-9_]+")
SURROGATE = re.compile("[\ud800-\udfff]")
ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
LARGE_NUMBER = re.compile(r"[0-9]{19}|[0-9][eE]")  # a number without either is small enough


class ReadingError(CodedError):
    """A file or text that cannot be read.

    `data["path"]` is the file, if the text came from one. `reason` is the line without it, for
    callers with an error of their own.
    """

    texts: ClassVar[dict[str, str]] = {
        "no_such_file": "no such file",
        "not_a_file": "not a regular file but {kind}",
        "unreadable": "cannot be read ({reason})",
        "too_large": "larger than {most_mib:g} MiB",
        "too_large_unpacked": "larger than {most_mib:g} MiB after decompression",
        "damaged_compression": "damaged compression ({reason})",
        "not_utf8": "not UTF-8 at byte {place}. Expected text",
        "not_json": "not JSON, or cut off ({reason})",
        "not_yaml": "not YAML, or cut off ({reason})",
        "not_a_tree": "the alias {name} stands before the end of its anchor, or has none",
        "tag": "YAML's tag {name} is not supported. Expected plain values",
        "key_not_text": "a key is a list or a mapping. Expected text",
        "repeated_key": "the key {key} occurs twice in one mapping",
        "too_deep": "lists and mappings are nested more than {most} levels deep",
        "too_many_values": "more than {most} values",
        "not_finite": "{value} is not a finite number",
        "integer_too_large": "a whole number does not fit 64 bits with a sign",
        "not_unicode": "a text holds a lone surrogate, which is half of a character",
    }

    @property
    def reason(self) -> str:
        """Return the line without the file's name."""
        return super().__str__()

    def __str__(self) -> str:
        if "path" not in self.data:
            return self.reason
        return f"{one_line(self.data['path'])}: {self.reason}"


@dataclass(frozen=True)
class Limits:
    """What may be read. A recording of a day with a sample every 0.2 s fits.

    Attributes:
        bytes: of the file on the disk.
        decompressed_bytes: of the content of a .xz or .gz file.
        depth: levels of nested lists and mappings.
        nodes: values in all lists and mappings. An alias of YAML counts with all its values.
    """

    bytes: int = 64 * MIB
    decompressed_bytes: int = 128 * MIB
    depth: int = 50
    nodes: int = 4_000_000


DEFAULT = Limits()


def read_bytes(path: Path | str, limits: Limits = DEFAULT) -> bytes:
    """Return the content of a regular file, unpacked if its name ends in .xz or .gz.

    It never waits for a writer. A compressed file is one whole stream, without anything after it.

    Raises:
        ReadingError: no regular file, unreadable, larger than the limits, damaged.
    """
    try:
        content = _read_regular_file(path, limits.bytes)
        name = os.fspath(path)
        if name.endswith(".xz"):
            return _unpack(_unxz, content, limits.decompressed_bytes)
        if name.endswith(".gz"):
            return _unpack(_gunzip, content, limits.decompressed_bytes)
        return content
    except ReadingError as error:
        raise ReadingError(error.code, **error.data | {"path": path}) from None


def read_text(path: Path | str, limits: Limits = DEFAULT, *, errors: str = "strict") -> str:
    """Return the content of a file as text, with "\\n" line ends and no byte order mark.

    The file is UTF-8, or UTF-16 with a byte order mark, as Windows PowerShell writes it.

    Args:
        path: a regular file, unpacked if its name ends in .xz or .gz.
        limits: for its size.
        errors: "replace" keeps the readable part of a log.

    Raises:
        ReadingError: as `read_bytes`, or not UTF-8.
    """
    content = read_bytes(path, limits)
    if content.startswith(UTF_16) and not content.startswith(UTF_32):
        content = _recode(content, errors)
    try:
        return _decode(content, errors)
    except ReadingError as error:
        raise ReadingError(error.code, **error.data | {"path": path}) from None


def read_json(path: Path | str, limits: Limits = DEFAULT) -> object:
    """Return the value in a JSON file.

    Raises:
        ReadingError: as `read_bytes` and `parse_json`, with the path.
    """
    return _parse_file(path, limits, parse_json)


def read_yaml(path: Path | str, limits: Limits = DEFAULT) -> object:
    """Return the value in a YAML file.

    Raises:
        ReadingError: as `read_text` and `parse_yaml`, with the path.
    """
    return _parse_file(path, limits, parse_yaml)


def parse_json(content: str | bytes, limits: Limits = DEFAULT) -> object:
    """Return the value of a JSON text. All its numbers are finite and all its texts are Unicode.

    Raises:
        ReadingError: not JSON, a key twice in one object, deeper or with more values than the
            limits allow, NaN, infinity, an integer beyond 2^63, half a surrogate pair.
    """
    text = _decode(content, "strict") if isinstance(content, bytes) else content
    brackets = text.count("[") + text.count("{")
    if 1 + text.count(",") + brackets > limits.nodes:
        raise ReadingError("too_many_values", most=limits.nodes)
    try:
        found: object = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise ReadingError("not_json", reason=str(error)) from None
    except RecursionError:
        raise ReadingError("too_deep", most=limits.depth) from None
    except ValueError:  # Python refuses more than 4300 digits
        raise ReadingError("integer_too_large") from None
    may_hold_surrogates = not text.isascii() and SURROGATE.search(text)
    may_hold_surrogates = may_hold_surrogates or ("\\u" in text and ESCAPED_SURROGATE.search(text))
    if may_hold_surrogates or brackets > limits.depth or LARGE_NUMBER.search(text):
        _check_tree(found, limits, texts=bool(may_hold_surrogates))
    return found


def find_json(text: str, limits: Limits = DEFAULT) -> Iterator[object]:
    """Yield each whole JSON object and array in a text, such as a log with one per line.

    A value of fewer than SHORTEST characters is left out, because it holds nothing of use. A value that
    `parse_json` refuses is left out too. If a value was cut off, then the whole values inside it are
    found, down to INNER_LEVELS. The time grows with the length of the text.
    """
    for start, end in _balanced(text, 0, len(text), INNER_LEVELS):
        if end - start < SHORTEST:
            continue
        try:
            yield parse_json(text[start:end], limits)
        except ReadingError:
            continue


def _balanced(text: str, start: int, end: int, levels: int) -> Iterator[tuple[int, int]]:
    """Yield start and end of each part whose brackets close. A line that is not indented ends a part."""
    began, depth = start, 0
    for token in TOKEN.finditer(text, start, end):
        mark = token[0][0]
        if mark in "{[":
            began = began if depth else token.start()
            depth += 1
        elif mark in "}]" and depth:
            depth -= 1
            if not depth:
                yield began, token.end()
        elif mark == "\n" and depth:
            if levels:
                yield from _balanced(text, began + 1, token.start(), levels - 1)
            depth = 0
    if depth and levels:
        yield from _balanced(text, began + 1, end, levels - 1)


def parse_yaml(text: str, limits: Limits = DEFAULT) -> object:
    """Return the value of a YAML text with one document. Keys are texts as they are written.

    Values are plain data: a tag is refused, and `${...}` stays text.

    Raises:
        ReadingError: as `parse_json`, or a tag, or an alias of something that is not whole.
    """
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        _check_text(text)
        return _Tree(limits).read(yaml.parse(text, Loader=loader))
    except yaml.MarkedYAMLError as error:
        place = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ReadingError("not_yaml", reason=f"{error.problem}{place}") from None
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        raise ReadingError("not_yaml", reason=str(error)) from None


def _parse_file(path: Path | str, limits: Limits, parse: Callable[[str, Limits], object]) -> object:
    text = read_text(path, limits)
    try:
        return parse(text, limits)
    except ReadingError as error:
        raise ReadingError(error.code, **error.data | {"path": path}) from None


def _read_regular_file(path: Path | str, most: int) -> bytes:
    try:
        _check_regular(os.stat(path))  # opening a device can have effects
        handle = os.open(path, FLAGS)
    except FileNotFoundError:
        raise ReadingError("no_such_file") from None
    except OSError as error:
        raise ReadingError("unreadable", reason=error.strerror) from None
    except ValueError:  # NUL, or a surrogate that stands for no byte
        raise ReadingError("no_such_file") from None
    try:
        _check_regular(os.fstat(handle))
        chunks, size = [], 0
        while size <= most and (chunk := os.read(handle, CHUNK_BYTES)):
            chunks.append(chunk)
            size += len(chunk)
    except OSError as error:
        raise ReadingError("unreadable", reason=error.strerror) from None
    finally:
        os.close(handle)
    if size > most:
        raise ReadingError("too_large", most_mib=most / MIB)
    return b"".join(chunks)


def _check_regular(found: os.stat_result) -> None:
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    if not stat.S_ISREG(found.st_mode):
        kind = kinds.get(stat.S_IFMT(found.st_mode), "something else")
        raise ReadingError("not_a_file", kind=kind)


def _unpack(
    unpack: Callable[[bytes, int], tuple[bytes, bool, bytes]], packed: bytes, most: int
) -> bytes:
    try:
        content, is_whole, rest = unpack(packed, most + 1)
    except (lzma.LZMAError, zlib.error) as error:
        raise ReadingError("damaged_compression", reason=str(error)) from None
    if len(content) > most:
        raise ReadingError("too_large_unpacked", most_mib=most / MIB)
    if not is_whole:
        raise ReadingError("damaged_compression", reason="cut off")
    if rest:
        raise ReadingError("damaged_compression", reason=f"{len(rest)} bytes after its end")
    return content


def _unxz(packed: bytes, most: int) -> tuple[bytes, bool, bytes]:
    xz = lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=XZ_MEMORY_BYTES)
    content = xz.decompress(packed, max_length=most)
    return content, xz.eof, xz.unused_data


def _gunzip(packed: bytes, most: int) -> tuple[bytes, bool, bytes]:
    gz = zlib.decompressobj(wbits=GZIP_WINDOW)
    content = gz.decompress(packed, most)
    return content, gz.eof, gz.unused_data


def _recode(content: bytes, errors: str) -> bytes:
    """Return UTF-16 as UTF-8, or as it is if it is damaged. For `errors` see `read_text`."""
    try:
        return content.decode("utf-16", errors).encode("utf-8")
    except (UnicodeDecodeError, UnicodeEncodeError):
        return content


def _decode(content: bytes, errors: str) -> str:
    if content.startswith(UTF_16):
        raise ReadingError("not_utf8", place=0)
    try:
        text = content.decode("utf-8", errors)
    except UnicodeDecodeError as error:
        raise ReadingError("not_utf8", place=error.start) from None
    return text.removeprefix(BOM).replace("\r\n", "\n").replace("\r", "\n")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys: set[str] = set()
        for key, _ in pairs:
            if key in keys:
                raise ReadingError("repeated_key", key=key)
            keys.add(key)
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise ReadingError("not_finite", value=name)


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse_constant)


def _check_tree(found: object, limits: Limits, *, texts: bool) -> None:
    """Check depth and numbers of a tree, level by level, and its texts if asked."""
    level, depth = [found], 0
    while level:
        below: list[object] = []
        holds_any = False
        for value in level:
            if isinstance(value, str):
                if texts:
                    _check_text(value)
            elif isinstance(value, float):
                _check_finite(value)
            elif isinstance(value, int):
                _check_integer(value)
            elif isinstance(value, list):
                holds_any = True
                below += value
            elif isinstance(value, dict):
                holds_any = True
                below += value.values()
                if texts:
                    below += value
        depth += holds_any
        if depth > limits.depth:
            raise ReadingError("too_deep", most=limits.depth)
        level = below


def _check_text(text: str) -> None:
    if SURROGATE.search(text):
        raise ReadingError("not_unicode")


def _check_finite(number: float, shown: str = "a number with a huge exponent") -> None:
    if not math.isfinite(number):
        raise ReadingError("not_finite", value=shown)


def _check_integer(number: int) -> None:
    if not -LARGEST_INTEGER <= number < LARGEST_INTEGER:
        raise ReadingError("integer_too_large")


@dataclass
class _Open:
    """A list or mapping that has not ended."""

    value: list[Any] | dict[str, Any]
    anchor: str | None
    nodes_before: int
    key: str | None = None
    depth: int = 1  # of the deepest list or mapping in it, itself included


@dataclass
class _Tree:
    """Builds the value of a YAML text from the parser's events, and counts what it builds."""

    limits: Limits
    nodes: int = 0
    open: list[_Open] = field(default_factory=list)
    anchors: dict[str, tuple[Any, int, int]] = field(default_factory=dict)  # value, nodes, depth
    documents: list[Any] = field(default_factory=list)

    def read(self, events: Iterable[Any]) -> object:
        import yaml

        for event in events:
            if isinstance(event, yaml.ScalarEvent):
                self.scalar(event)
            elif isinstance(event, yaml.AliasEvent):
                self.alias(event.anchor)
            elif isinstance(event, yaml.CollectionStartEvent):
                self.begin({} if isinstance(event, yaml.MappingStartEvent) else [], event)
            elif isinstance(event, yaml.CollectionEndEvent):
                self.end()
        if len(self.documents) > 1:
            raise ReadingError("not_yaml", reason="more than one document")
        return self.documents[0] if self.documents else None

    def scalar(self, event: Any) -> None:
        self.refuse_tag(event)
        self.count(1)
        _check_text(event.value)
        holder = self.open[-1] if self.open else None
        is_key = holder is not None and isinstance(holder.value, dict) and holder.key is None
        is_plain = event.implicit[0] and not is_key
        value = _plain_value(event.value) if is_plain else event.value
        if event.anchor:
            self.anchors[event.anchor] = value, 1, 0
        self.add(value, 0)

    def alias(self, name: str) -> None:
        if name not in self.anchors:
            raise ReadingError("not_a_tree", name=name)
        value, nodes, depth = self.anchors[name]
        self.count(nodes)
        if len(self.open) + depth > self.limits.depth:
            raise ReadingError("too_deep", most=self.limits.depth)
        self.add(value, depth)

    def begin(self, value: list[Any] | dict[str, Any], event: Any) -> None:
        self.refuse_tag(event)
        self.anchors.pop(event.anchor, None)  # inside, the name would be a cycle
        self.open.append(_Open(value, event.anchor, self.nodes))
        self.count(1)
        if len(self.open) > self.limits.depth:
            raise ReadingError("too_deep", most=self.limits.depth)

    def end(self) -> None:
        done = self.open.pop()
        if done.anchor:
            self.anchors[done.anchor] = done.value, self.nodes - done.nodes_before, done.depth
        self.add(done.value, done.depth)

    def add(self, value: Any, depth: int) -> None:
        """Put a whole value where it belongs."""
        if not self.open:
            self.documents.append(value)
            return
        holder = self.open[-1]
        holder.depth = max(holder.depth, depth + 1)
        if isinstance(holder.value, list):
            holder.value.append(value)
        elif holder.key is not None:
            holder.value[holder.key] = value
            holder.key = None
        elif not isinstance(value, str):
            raise ReadingError("key_not_text")
        elif value in holder.value:
            raise ReadingError("repeated_key", key=value)
        else:
            holder.key = value

    def count(self, nodes: int) -> None:
        self.nodes += nodes
        if self.nodes > self.limits.nodes:
            raise ReadingError("too_many_values", most=self.limits.nodes)

    def refuse_tag(self, event: Any) -> None:
        if event.tag is not None:
            raise ReadingError("tag", name=event.tag)


def _plain_value(text: str) -> object:
    """Return the value of a scalar without quotes."""
    if NULL.fullmatch(text):
        return None
    if TRUE.fullmatch(text):
        return True
    if FALSE.fullmatch(text):
        return False
    if NOT_FINITE.fullmatch(text):
        raise ReadingError("not_finite", value=text)
    if INTEGER.fullmatch(text):
        digits = text.replace("_", "")
        if len(digits) > 20:
            raise ReadingError("integer_too_large")
        _check_integer(int(digits))
        return int(digits)
    if NUMBER.fullmatch(text) and not BASE_8.fullmatch(text):
        number = float(text.replace("_", ""))
        _check_finite(number, text)
        return number
    return text
