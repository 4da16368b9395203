"""Random command lines of `gpusim` with mistakes: valid overrides and options, mutated."""

from __future__ import annotations

import random
from collections.abc import Callable

VALID = [
    "vm=tiny_256mib", "workload=zipf", "link=25gbit", "migration=qemu_10_1", "tracking=tcg",
    "backend=numpy", "policy=none", "experiment=tiny", "experiment=evacuate", "sweep=seeds",
    "vm.memory=1GiB", "vm.vcpus=4", "vm.blocks=[1GiB,2GiB]", "link.bandwidth=10Gbit/s",
    "link.bandwidth='10 Gbit/s'", 'vm.memory="1GiB"', "workload.page_writes_per_s=1e5",
    "workload.windows=[[0,5],[7,9]]", "migration.auto_converge=true", "migration.manager=null",
    "migration.downtime_limit=500", "migration.manager.args.a=1", "limit.simulated=1h",
    "schedule=[{at:60s,do:pause}]", "attempts=[{after:5}]", "seed=${vm.vcpus}", "plot=false",
    "hydra.run.dir=out", "hydra.job.name=x", "hydra/launcher=basic", "objective=[total_time_s]",
    "evacuation.at_a_time=2", "+evacuation.guests.a.count=2", "~seed", "dry_run=true",
]  # fmt: skip
OPTIONS = [
    "-m", "--multirun", "--cfg", "job", "--resolve", "--package", "link", "--info", "defaults",
    "--config-name", "config", "--config-dir", ".", "--run", "--hydra-help", "--help", "-h", "-c",
]  # fmt: skip
FOREIGN = [
    "", "null", "true", "-1", "1e999", "nan", "???", "[]", "{}", "[[]]", "{a:1}", "[1,2", "'", '"',
    "${", "${}", "${nosuch}", "${oc.env:NO_SUCH}", "${oc.env:HOME}", "${link}", "1,2", "a=b", "=",
    "range(1,3)", "choice(a)", "glob(*)", "int(x)", "sort(1)", "../x", "/etc/passwd", "\\", "@",
    "9" * 400, "x" * 400, "[" * 60 + "]" * 60, "\ud800", "\x1b[31m", "é名🙂", "a b", "\t", "%s", "{0}",
]  # fmt: skip
PIECES = "=.,:[]{}()'\"$+~@/\\-_ #&*!?%\t\x01\udcff9aZé"


def broken_line(seed: int) -> list[str]:
    """Return the arguments of one command line. Few of them are right."""
    draw = random.Random(seed)
    line = draw.sample(VALID, draw.choice((1, 1, 2, 3)))
    if draw.random() < 0.15:
        line.insert(draw.randrange(len(line) + 1), draw.choice(OPTIONS))
    for _ in range(draw.choice((1, 1, 2, 4))):
        at = draw.randrange(len(line))
        line[at] = draw.choice(MUTATIONS)(draw, line[at])
    return line


def _delete(draw: random.Random, text: str) -> str:
    at = draw.randrange(len(text) + 1)
    return text[:at] + text[at + draw.choice((1, 1, 3)) :]


def _insert(draw: random.Random, text: str) -> str:
    at = draw.randrange(len(text) + 1)
    return text[:at] + draw.choice(PIECES) * draw.choice((1, 1, 2, 40)) + text[at:]


def _swap(draw: random.Random, text: str) -> str:
    letters = list(text)
    if len(letters) > 1:
        at = draw.randrange(len(letters) - 1)
        letters[at], letters[at + 1] = letters[at + 1], letters[at]
    return "".join(letters)


def _repeat(draw: random.Random, text: str) -> str:
    at = draw.randrange(len(text) + 1)
    return text[:at] * 2 + text[at:]


def _set_value(draw: random.Random, text: str) -> str:
    return f"{text.partition('=')[0]}={draw.choice(FOREIGN)}"


def _set_key(draw: random.Random, text: str) -> str:
    return f"{draw.choice(VALID).partition('=')[0]}={text.partition('=')[2]}"


def _change_prefix(draw: random.Random, text: str) -> str:
    return draw.choice(("+", "++", "~", "@", "--", ".", "hydra.", "link.", "vm/")) + text


def _add_package(draw: random.Random, text: str) -> str:
    return text.replace("=", draw.choice(("@foo=", "@=", "@_global_=", ".x=", "[0]=")), 1)


Mutation = Callable[[random.Random, str], str]
MUTATIONS: list[Mutation] = [
    _delete, _insert, _swap, _repeat, _set_value, _set_value, _set_key, _change_prefix, _add_package,
]  # fmt: skip
