"""Does everything that composing raises become one line with a code, a key and the value typed?"""

from __future__ import annotations

import os
import pickle
import re
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import MissingConfigException

from gpusim import ConfigError
from gpusim.config.compose import composed_config, converted, register
from gpusim.config.compose_errors import compose_error, describe, one_compose_error
from gpusim.config.presets import conf_folder
from gpusim.config.scenario import resolve
from gpusim.errors import LONGEST_MESSAGE, LONGEST_VALUE, install_command

DEEP = "[" * 2000 + "]" * 2000
CASES = [  # overrides, code, key
    ("link=10", "unknown_choice", "link"),
    ("link=nosuch", "unknown_choice", "link"),
    ("link=${oc.env:HOME}", "unknown_choice", "link"),
    ("hydra/launcher=nosuch", "unknown_choice", "hydra/launcher"),
    ("link.threads=1.5", "unknown_key", "link.threads"),
    ("+link.foo=1", "unknown_key", "link.foo"),
    ("~x", "unknown_key", "x"),
    ("~link=nosuch", "unknown_key", "link"),
    ("link@foo=10gbit", "unknown_key", "link@foo"),
    ("seed=abc", "wrong_type", "seed"),
    ("evacuation.guests=3", "wrong_type", "evacuation.guests"),
    ("backend.threads=${oc.env:HOME}", "wrong_type", "backend.threads"),
    ("backend.threads=${nosuch}", "wrong_reference", "backend.threads"),
    ("vm.memory=${oc.env:NO_SUCH_VARIABLE}", "wrong_reference", "vm.memory"),
    ("seed=1,2", "several_values", "seed"),
    ("seed=range(1,3)", "several_values", "seed"),
    ("vm=tiny_256mib,huge_1tib", "several_values", "vm"),
    ("link.threads=[1", "wrong_format", "link.threads"),
    ("link.threads=}", "wrong_format", "link.threads"),
    ("vm.memory=${", "wrong_format", "vm.memory"),
    ('vm.memory="1', "wrong_format", "vm.memory"),
    ("vm.memory='1", "wrong_format", "vm.memory"),
    ("a=b=c", "wrong_format", "a"),
    ("seed=int(x)", "wrong_format", "seed"),
    ("seed=choice()", "wrong_format", "seed"),
    ("seed=" + "1" * 5000, "wrong_format", "seed"),
    ("link..x=1", "wrong_format", "link..x"),
    ("link", "wrong_format", "KEY=VALUE"),
    ("=3", "wrong_format", "KEY=VALUE"),
    ("=", "wrong_format", "KEY=VALUE"),
    ("vm.memory=\x00", "wrong_format", "vm.memory"),
    ("vm.memory=\x1b[31m", "wrong_format", "vm.memory"),
    ("vm.memory=\ud800", "wrong_format", "vm.memory"),
    ("\udcff=1", "wrong_format", "\\xff"),
    ("x" * 2**16, "wrong_format", "KEY=VALUE"),
    (f"vm.blocks={'[' * 2000}", "wrong_format", "vm.blocks"),
]  # fmt: skip
MORE_CASES = [  # as above. Hydra composes a config for each
    ("link=null", "unknown_choice", "link"),
    ("link=true", "unknown_choice", "link"),
    ("link=1.5", "unknown_choice", "link"),
    ("link=", "unknown_choice", "link"),
    ("link=/etc/passwd", "unknown_choice", "link"),
    ("experiment=nosuch", "unknown_choice", "experiment"),
    ("experiment=[tiny,nosuch]", "unknown_choice", "experiment"),
    ("migration=qemu_1_0", "unknown_choice", "migration"),
    ("link.foo=1", "unknown_key", "link.foo"),
    ("++x=1", "unknown_key", "x"),
    ("x=1", "unknown_key", "x"),
    ("~link.threads", "unknown_key", "link.threads"),
    ("link.threads.x=1", "unknown_key", "link.threads"),
    ("link={a:1}", "unknown_key", "link.a"),
    ("wrkload=uniform", "unknown_key", "wrkload"),
    ("vm.memorx=1TiB", "unknown_key", "vm.memorx"),
    ("workload._target_=os.system", "unknown_key", "workload._target_"),
    ("workload=idle workload.working_set_percent=5", "unknown_key", "workload.working_set_percent"),
    ("workload=mix workload.writer=5", "unknown_key", "workload.writer"),
    ("hydra.foo=1", "unknown_key", "hydra.foo"),
    ("+link@foo=10gbit", "unknown_key", "foo"),
    ("link/threads=1", "unknown_key", "link/threads"),
    ("seed=1e400", "wrong_type", "seed"),
    ("vm.vcpus=many", "wrong_type", "vm.vcpus"),
    ("vm.memory=true", "wrong_type", "vm.memory"),
    ("plot=maybe", "wrong_type", "plot"),
    ("link.bandwidth=[1,2]", "wrong_type", "link.bandwidth"),
    ("attempts=3", "wrong_type", "attempts"),
    ("evacuation.guests=[{a:1}]", "wrong_type", "evacuation.guests"),
    ("hydra.mode=foo", "wrong_type", "hydra.mode"),
    ("hydra.searchpath=3", "wrong_type", "hydra.searchpath"),
    ("vm.blocks=[${x}]", "wrong_reference", "vm.blocks[0]"),
    ("vm.memory=${nosuch:1}", "wrong_reference", "vm.memory"),
    ("link=${link}", "wrong_reference", "link"),
    ("vm.memory=${vm.memory}", "wrong_reference", "vm.memory"),
    ("link=???", "missing", "link"),
    ("+vm=tiny_256mib", "contradiction", "vm"),
    ("++vm=tiny_256mib", "contradiction", "vm"),
    ("+seed=4", "contradiction", "seed"),
    (f"vm.blocks={DEEP}", "too_deep", "vm.blocks"),
    (f"vm.blocks={'[' * 200}{']' * 200}", "too_deep", "vm.blocks"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("typed", "code", "key"),
    [*CASES, *(pytest.param(*case, marks=pytest.mark.slow) for case in MORE_CASES)],
    ids=lambda text: ascii(text)[1:40],
)
def test_a_wrong_override_is_one_line(typed: str, code: str, key: str) -> None:
    overrides = typed.split(" ")
    with pytest.raises(ConfigError) as caught:
        composed_config(overrides)
    error = caught.value
    assert (error.code, error.key) == (code, key)
    assert str(error).isprintable()
    assert len(str(error)) <= LONGEST_MESSAGE + 2 * LONGEST_VALUE
    assert os.environ["HOME"] not in str(error)
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.code) == (str(error), code)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("link=40gbit", '"link.bandwidth=40Gbit/s"?'),
        ("link=4x", "type link.bandwidth="),
        ("vm=64GiB", "vm.memory="),
        ("vm=1tib", '"vm=huge_1tib" or "vm.memory=1TiB"?'),
        ("migration=8.2", "qemu_8_2"),
        ("migration=8.2.2", "qemu_8_2"),
    ],
)
def test_a_quantity_or_version_in_place_of_a_preset_is_told_what_to_type(
    typed: str, meant: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        composed_config([typed])
    assert meant in caught.value.message.rpartition("must be one of")[2].partition(". ")[2]


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("qemu=9.2", "migration=qemu_9_2?"),
        ("memory=4GiB", "vm.memory?"),
        ("downtime=300", "migration.downtime_limit?"),
        ("migration.downtime_limit=4s", "in ms. Did you mean 4000?"),
        ("vm.vcpus=4GiB", "without a unit"),
        ("qemu=8.2.2", "migration=qemu_8_2?"),
        ("migration.qemu=11.0", "migration=qemu_11_0?"),
        ("migration.max-downtime=300", "migration.downtime_limit?"),
        ("channels=4", "migration.multifd_channels?"),
        ("workload.rate=4", "workload.page_writes_per_s?"),
        ("limit.timeout=30min", "limit.simulated?"),
        ("policy=OpenStack", 'Did you mean "policy=nova"?'),
        ("policy=pve", 'Did you mean "policy=proxmox"?'),
        ("backend=cuda", 'Did you mean "backend=cupy"?'),
    ],
)
def test_what_other_tools_call_a_key_or_write_as_a_value(typed: str, meant: str) -> None:
    with pytest.raises(ConfigError) as caught:
        composed_config([typed])
    assert meant in caught.value.message


@pytest.mark.parametrize(
    ("path", "given", "key", "extra"),
    [
        ("hydra/launcher/ray", "hydra/launcher=ray_here", "hydra/launcher", "ray"),
        ("hydra/launcher/joblib", "hydra/launcher=processes", "hydra/launcher", "joblib"),
        ("hydra/launcher/submitit_slurm", "hydra/launcher=slurm", "hydra/launcher", "slurm"),
        ("hydra/sweeper/optuna", "sweep=best_throttle", "sweep", "optuna"),
        ("hydra/sweeper/sampler/tpe", "hydra/sweeper=optuna", "hydra/sweeper", "optuna"),
        ("hydra/launcher/joblib", "sweep=vm_size hydra/launcher=gpus", "hydra/launcher", "joblib"),
    ],
)
def test_a_preset_of_a_missing_extra_names_the_extra(
    path: str, given: str, key: str, extra: str
) -> None:
    error = compose_error(MissingConfigException("missing", path, []), given.split())
    assert (error.code, error.key) == ("not_installed", key)
    assert install_command(extra) in error.message


@pytest.mark.parametrize("series", [2, 3, 4])
def test_a_posted_version_has_two_names(series: int) -> None:
    by_patch = composed_config([f"migration=patch_v{series}"])
    assert by_patch == composed_config([f"migration=seed_v{series}"])
    with pytest.raises(ConfigError) as caught:
        resolve(composed_config([f"migration.version=patch_v{series}"]))
    assert f"Did you mean seed_v{series}?" in caught.value.message


@pytest.mark.parametrize(
    ("typed", "key", "meant"),
    [
        ("seed=choice(1,null)", "seed", "takes no null. Write the values without it"),
        ("seed=range(a)", "seed", "wrong or missing argument"),
        ("seed=interval(1)", "seed", "wrong or missing argument"),
        ("seed=count(1)", "seed", "no function count. Known are bool, choice"),
        ('migration.throttle_rule={"target": a:B}', "migration.throttle_rule", "no quotes"),
        ("migration.throttle_rule={target}", "migration.throttle_rule", "Write a mapping as {KEY"),
        ("migration.throttle_rule={null: 2}", "migration.throttle_rule", "key that is no text"),
        (
            "migration.throttle_rule.target=null",
            "migration.throttle_rule.target",
            "For no class write migration.throttle_rule=null",
        ),
        ("vm=tiny_256mib ~vm.nope", "vm.nope", "so it cannot be removed"),
        ("vm=tiny_256mib ~vm.memory", "vm.memory", "cannot be removed. Write vm.memory=VALUE"),
        ("++vm.memry=4", "vm.memry", "Did you mean vm.memory?"),
        ("policy={a:1}", "policy", "has no keys. Write policy=PRESET"),
        ("policy.args=3", "policy", "has no keys. Write policy=PRESET"),
        ("hydra.sweep.dir=null", "hydra.sweep.dir", "must not be null"),
        ("hydra/launcher=null", "hydra/launcher", "must be the name of a preset"),
        ("hydra.sweep.dir=[1]", "hydra.sweep.dir", "must be a text"),
        ("hydra.job.config=[1]", "hydra.job.config", "must hold names and values"),
        ("hydra.job.env_set=[1]", "hydra.job.env_set", "must hold names and values"),
    ],
)
def test_no_text_of_a_library_is_shown(typed: str, key: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(meant)) as caught:
        composed_config(re.split(" (?=[~\\w.]+[.=])", typed))
    assert caught.value.key == key


def test_an_empty_override() -> None:
    with pytest.raises(ConfigError) as caught:
        composed_config([""])
    assert caught.value.code == "wrong_format"


def test_a_long_value_is_one_bounded_line() -> None:
    with pytest.raises(ConfigError) as caught:
        resolve(composed_config([f"vm.memory={'a' * 2**18}"]))
    assert len(str(caught.value)) < LONGEST_MESSAGE


@pytest.mark.slow
@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("link=10", '"link=10gbit"'),
        ("link=10", "link.bandwidth=10"),
        ("link.bandwith=1", "link.bandwidth?"),
        ("link.threads=1", "workload.threads or postcopy.threads or backend.threads?"),
        ("downtime_limit=1", "migration.downtime_limit?"),
        ("wrkload=idle", "workload?"),
        ("workload=hot_cod", '"workload=hot_cold"'),
        ("workload.exponent=2", "workload=zipf"),
        ("seed=1,2", "gpusim -m"),
        ("link", "link=PRESET"),
        (
            "experiment=evacuate evacuation.guests.web.vm.memry=1",
            "evacuation.guests.web.vm.memory?",
        ),
    ],
)
def test_the_line_says_what_to_type(typed: str, meant: str) -> None:
    with pytest.raises(ConfigError) as caught:
        composed_config(typed.split(" "))
    assert meant in caught.value.message


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "code"),
    [
        (b"a: [", "wrong_format"),
        (b"\xff\xfe\x00", "wrong_format"),
        (b"a: !!python/object:os.system 3", "wrong_format"),
        (b"defaults: [mine]", "too_deep"),
        (b"defaults: [{override /vm: nosuch}]", "not_composed"),
        (b"defaults: 3", "not_composed"),
        (b"defaults: [{/nosuch: x}]", "unknown_choice"),
        (b"# @package _global_\nvm: {memorx: 1}", "unknown_key"),
        (b"# @package _global_\nseed: x", "wrong_type"),
        (b"# @package _global_\nseed: ${oc.env:HOME}", "wrong_type"),
        (b"# @package _global_\nseed: ${nosuch}", "wrong_reference"),
        (b"# @package _global_\nvm: 3", "not_composed"),
        (b"- 3", "unknown_key"),
        (b"3", "wrong_format"),
    ],
)
def test_a_wrong_file_of_the_users(tmp_path: Path, text: bytes, code: str) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_bytes(text)
    with pytest.raises(ConfigError) as caught:
        composed_config([f"hydra.searchpath=[file://{tmp_path}]", "experiment=mine"])
    assert caught.value.code == code
    assert str(caught.value).isprintable()
    assert os.environ["HOME"] not in str(caught.value)


@pytest.mark.parametrize("kind", ["folder", "pipe", "device", "loop", "nothing"])
def test_what_is_no_file_is_no_preset(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "experiment" / "mine.yaml"
    path.parent.mkdir()
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind != "nothing":
        path.symlink_to("/dev/zero" if kind == "device" else path)
    with pytest.raises(ConfigError) as caught:
        composed_config([f"hydra.searchpath=[file://{tmp_path}]", "experiment=mine"])
    assert (caught.value.code, caught.value.key) == ("unknown_choice", "experiment")


def test_an_unknown_error_is_one_line() -> None:
    error = compose_error(ZeroDivisionError("a\nb\x1b"), ["vm=tiny_256mib"])
    assert error.code == "not_composed"
    assert "a b\\x1b" in error.message
    assert describe(KeyError()) == "KeyError"


@pytest.mark.parametrize(
    ("override", "code", "key", "value", "hint"),
    [
        ("attempts=[{},{aftr: 5}]", "unknown_key", "attempts[1].aftr", 5, "attempts[1].after?"),
        ("attempts=[{schedul: []}]", "unknown_key", "attempts[0].schedul", [], "schedule?"),
        ("attempts=[{after: 1},{after: [2]}]", "wrong_type", "attempts[1].after", [2], ""),
        ("attempts=[{migration: 5}]", "wrong_type", "attempts[0].migration", 5, ""),
        ("attempts=[{schedule: 5}]", "wrong_type", "attempts[0].schedule", 5, ""),
        ("migration.manager=a:B", "wrong_type", "migration.manager", "a:B", "manager.target="),
    ],
)
def test_an_error_inside_of_a_list_names_its_place_and_value(
    override: str, code: str, key: str, value: object, hint: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        composed_config([override])
    error = caught.value
    assert (error.code, error.key, error.value) == (code, key, value)
    assert hint in error.message


@pytest.mark.slow
@pytest.mark.parametrize(
    ("override", "code", "key", "hint"),
    [
        ("attempts=[{migration: {downtme_limit: 5}}]", "unknown_key", "attempts[0].migration.downtme_limit", "downtime_limit?"),
        ("attempts=[{migration: {manager: {taget: a}}}]", "unknown_key", "attempts[0].migration.manager.taget", "target?"),
        ("attempts=[{migration: {manager: a:B}}]", "wrong_type", "attempts[0].migration.manager", "target: "),
        ("schedule=[{at: 5, set: {downtime_limt: 5}}]", "unknown_key", "schedule[0].set.downtime_limt", "downtime_limit?"),
        ("schedule=[{att: 5, do: cancel}]", "unknown_key", "schedule[0].att", "at?"),
        ("schedule=[{at: 5, do: cancle}]", "unknown_choice", "schedule[0].do", "cancel?"),
        ("tracking.mode=kvm_manul", "unknown_choice", "tracking.mode", "kvm_manual?"),
        ("migration.version=9.2", "unknown_choice", "migration.version", "qemu_9_2"),
        ("backend.name=nunpy", "unknown_choice", "backend.name", "numpy?"),
        ("migration.throttle_rule.args={a: 1}", "missing", "migration.throttle_rule.target", "throttle_rule.target="),
        ("migration.throttle_rule.target=my_rules.py:Bug", "wrong_format", "migration.throttle_rule.target", "my_rules:Bug?"),
        ("migration.throttle_rule.target=./my_rules.py:Bug", "wrong_format", "migration.throttle_rule.target", "my_rules:Bug?"),
        ("migration.throttle_rule.target=my_rules.Bug", "wrong_format", "migration.throttle_rule.target", "my_rules:Bug?"),
        ("migration.throttle_rule.target=a/my_rules.py:Bug", "wrong_format", "migration.throttle_rule.target", "PYTHONPATH=a"),
        ("migration.throttle_rule.target=my_rules", "wrong_format", "migration.throttle_rule.target", "module:Class"),
    ],
)  # fmt: skip
def test_an_unknown_name_has_a_suggestion(override: str, code: str, key: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve(composed_config([override]))
    assert (caught.value.code, caught.value.key) == (code, key)
    assert hint in caught.value.message


@pytest.mark.parametrize(
    ("group", "text", "package"),
    [
        ("experiment", "vm: {memory: 2GiB}", "_global_"),
        ("policy", "downtime_limit: 5", "migration"),
        ("vm", "vm: {memory: 2GiB}", "_global_"),
    ],
)
def test_a_preset_in_the_wrong_package_names_the_missing_line(
    group: str, text: str, package: str, tmp_path: Path
) -> None:
    (tmp_path / group).mkdir()
    (tmp_path / group / "mine.yaml").write_text(text)
    register()
    path = f"hydra.searchpath=[file://{tmp_path}]"
    with (
        pytest.raises(ConfigError) as caught,
        one_compose_error([f"{group}=mine"], [tmp_path]),
        initialize_config_dir(config_dir=str(conf_folder()), version_base="1.3"),
    ):
        converted(compose("config", overrides=[f"{group}=mine", path]))
    assert (caught.value.code, caught.value.value) == ("unknown_key", "mine")
    assert f"# @package {package}" in caught.value.message
