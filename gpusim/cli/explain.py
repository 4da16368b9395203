"""gpusim-predict on a file of an operator: what it was taken for, and the post-mortem of a migration."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from gpusim.explore.bounds import Bounds
    from gpusim.formats.intake import Intake
    from gpusim.predict.prediction import Member

NEED_A_GUEST = ("goal", "experiment")  # options that no post-mortem uses


def read_file(options: argparse.Namespace) -> Intake:
    """Read the file of the command line, and say what it was taken for, if it is no profile."""
    from gpusim.config.checks import reject
    from gpusim.errors import one_line
    from gpusim.formats.intake import read_intake

    path = Path(options.profile)
    intake = read_intake(path, options.memory, options.vcpus, options.domain)
    if intake.kind.code != "profile":
        print(f"{one_line(path)}: {intake.kind.name}", file=sys.stderr, flush=True)
    for option in ("memory", "vcpus", "domain"):
        if getattr(options, option) and intake.kind.code != "domstats":
            reject(f"--{option}", "given", "needs output of virsh domstats --dirtyrate")
    if options.explain and intake.log is None:
        reject("--explain", path, f"needs a migration, and this is {intake.kind.name}")
    if options.explain or intake.profile is None:
        for option in NEED_A_GUEST:
            if getattr(options, option):
                hint = "this file gives no guest. Remove the option, or name a profile"
                if options.explain:
                    hint = "--explain does not use it. Remove one of them"
                reject(f"--{option}", getattr(options, option), hint)
    return intake


def explain_file(
    options: argparse.Namespace,
    intake: Intake,
    bounds: Bounds,
    messages: TextIO,
    progress: Callable[[Iterator[Member], int], Iterator[Member]],
) -> int:
    """Print or write the post-mortem of a migration, or the coarse answer that its reports allow."""
    from gpusim.files import write_text
    from gpusim.predict.post_mortem import explain
    from gpusim.predict.post_mortem_page import write_page
    from gpusim.predict.post_mortem_text import post_mortem_document, terminal_text

    found = explain(
        intake,
        options.overrides,
        bounds,
        members=options.members,
        seed=options.seed,
        search=not options.no_advice,
        effort=options.effort or 1,
        progress=progress,
    )
    numbers = json.dumps(post_mortem_document(found), indent=1, allow_nan=False) + "\n"
    if str(options.json) == "-":
        print(numbers, end="")
    else:
        print(terminal_text(found))
        if options.json:
            write_text(options.json, numbers)
    if options.report:
        print(write_page(found, options.report), file=messages)
    return 0
