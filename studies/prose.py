"""`python -m studies.prose [FILE ...]` counts the words of each sentence in Markdown documents.

It prints one row per document and one for all: sentences, the mean length, the 90th percentile and the
number of semicolons. Code, tables, comments, headings and link targets do not count. The exit code is 1
if all documents together exceed a limit.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

import numpy as np

from gpusim.text import text_table

MEAN_WORDS, P90_WORDS = 17, 30  # limits
DOCUMENTS = ("README.md", "docs/**/*.md")
NOT_PROSE = re.compile(
    r"^```.*?^```|<!--.*?-->|<picture>.*?</picture>|^\|.*?$|^#.*?$|^\s*!\[.*?$|^---$.*?^---$",
    re.DOTALL | re.MULTILINE,
)
ABBREVIATIONS = re.compile(r"\b(e\.g|i\.e|vs|Fig|no)\.")
END = re.compile(r"(?<=[.!?:])\s+(?=[A-Z0-9\"'`(*\[])")


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the counts. Return 1 if a limit is exceeded, else 0."""
    parser = argparse.ArgumentParser(prog="python -m studies.prose", description=__doc__)
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE")
    options = parser.parse_args(arguments)
    files = options.files or [path for glob in DOCUMENTS for path in sorted(Path().glob(glob))]
    found = {path: path.read_text() for path in files}
    lengths = {path: sentence_lengths(text) for path, text in found.items()}
    semicolons = {path: prose(text).count(";") for path, text in found.items()}
    everything = [length for path in files for length in lengths[path]]
    rows = [_row(str(path), lengths[path], semicolons[path]) for path in files if lengths[path]]
    rows.append(_row("all", everything, sum(semicolons.values())))
    print(text_table([("document", "sentences", "mean", "p90", "semicolons"), *rows]))
    return int(exceeds(everything, sum(semicolons.values())))


def exceeds(lengths: Sequence[int], semicolons: int) -> bool:
    """Return whether documents are harder to read than the limits allow."""
    return mean(lengths) > MEAN_WORDS or p90(lengths) > P90_WORDS or semicolons > 0


def p90(lengths: Sequence[int]) -> float:
    """Return the 90th percentile of sentence lengths, in words."""
    return float(np.percentile(lengths, 90))


def prose(text: str) -> str:
    """Return the running text of a Markdown document, one paragraph or list item per line."""
    text = NOT_PROSE.sub("\n\n", text)
    text = re.sub(r"`[^`]*`", "code", text)
    text = re.sub(r"\]\([^)]*\)", "]", text)
    text = re.sub(r"^(\s*[-*]|\s*\d+\.) ", "\n\n", text, flags=re.MULTILINE)
    paragraphs = re.split(r"\n\s*\n", text)
    return "\n".join(" ".join(paragraph.split()) for paragraph in paragraphs if paragraph.strip())


def sentence_lengths(text: str) -> list[int]:
    """Return the number of words of each sentence of a Markdown document."""
    lines = ABBREVIATIONS.sub(r"\1", prose(text)).splitlines()
    sentences = [sentence for line in lines for sentence in END.split(line)]
    return [
        count for sentence in sentences if (count := len(re.findall(r"\w[\w'.,/%-]*", sentence)))
    ]


def _row(name: str, lengths: Sequence[int], semicolons: int) -> tuple[str, ...]:
    return name, str(len(lengths)), f"{mean(lengths):.1f}", f"{p90(lengths):.0f}", str(semicolons)


if __name__ == "__main__":
    sys.exit(main())
