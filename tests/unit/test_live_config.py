"""The configuration: defaults, the environment over the file, every wrong value in a line."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from live.config import Config, policy_of, read_box, read_config
from shared.errors import InputError
from shared.offers import Offer
from shared.presets import ACCURACY_4, THROUGHPUT_24


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch):
    for name in [name for name in os.environ if name.startswith("FOUR_SLOT_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def written(tmp_path):
    def write(text, name="config.toml"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def test_without_a_file_everything_has_its_default(tmp_path):
    config = read_config(None)
    assert (config.http.host, config.http.port, config.http.auth) == ("127.0.0.1", 7999, "none")
    assert config.data_folder == Path("live-data").absolute()
    assert config.spool_folder == config.data_folder / "spool"
    assert policy_of(config, tmp_path).preset == ACCURACY_4


def test_the_environment_goes_over_the_file_key_by_key(written, monkeypatch):
    path = written('[http]\nport = 1\nmin_stake = 5.0\n[policy]\npreset = "throughput_24"\n')
    monkeypatch.setenv("FOUR_SLOT_HTTP__PORT", "8000")
    monkeypatch.setenv("FOUR_SLOT_HTTP__METRICS_PORT", "null")
    config = read_config(path)
    assert (config.http.port, config.http.min_stake) == (8000, 5.0)
    assert config.http.metrics_port is None
    assert policy_of(config, path.parent).preset.profile == THROUGHPUT_24.profile


def test_image_offers_are_refused_where_nothing_trains_them(written, monkeypatch):
    offer = Offer("t", "stabilityai/stable-diffusion-xl-base-1.0", "ImageTask", 1.0, 20, None)
    path = written("")
    config = read_config(path)
    assert policy_of(config, path.parent).box.why_unsupported(offer, ACCURACY_4.layout) is None
    monkeypatch.setattr("live.worker.find_spec", lambda _: None)
    box = policy_of(config, path.parent).box
    assert box.why_unsupported(offer, ACCURACY_4.layout) == "task type ImageTask"
    text = replace(offer, task_type="DpoTask")
    assert box.why_unsupported(text, ACCURACY_4.layout) is None
    stub = read_config(written('[jobs]\nworker = "stub"\n', "stub.toml"))
    assert policy_of(stub, path.parent).box.why_unsupported(offer, ACCURACY_4.layout) is None
    written("task_types: [DpoTask, ImageTask]\n", "box.yaml")
    declared = read_config(written('[policy]\nbox = "box.yaml"\n', "declared.toml"))
    with pytest.raises(InputError, match=r"box.yaml: task_types: found ImageTask"):
        policy_of(declared, path.parent)


def test_grpo_offers_are_refused_where_nobody_scores_them(written):
    offer = Offer("t", "meta-llama/Llama-3.1-8B", "GrpoTask", 1.0, 20, None)

    def why(text, name="config.toml"):
        path = written(text, name)
        box = policy_of(read_config(path), path.parent).box
        return box.why_unsupported(offer, ACCURACY_4.layout)

    assert why("") == "task type GrpoTask"
    assert why("[training]\nrewards = true\n") is None
    assert why('device = "cpu"\n') is None  # a rehearsal has a reward of its own
    assert why('[jobs]\nworker = "stub"\n') is None
    written("task_types: [GrpoTask]\n", "box.yaml")
    assert why('[policy]\nbox = "box.yaml"\n[training]\nrewards = true\n') is None
    with pytest.raises(InputError, match=r"allowed only with training\.rewards = true"):
        why('[policy]\nbox = "box.yaml"\n')


def test_a_policy_is_the_preset_with_what_differs(written):
    written("task_types: [DpoTask]\nshortest_row: 256\n", "box.yaml")
    path = written('[policy]\ncap = 3\nthreshold = 0.5\nbox = "box.yaml"\nrepeat_window_s = 0\n')
    policy = policy_of(read_config(path), path.parent)
    assert (policy.preset.cap, policy.preset.threshold, policy.repeat_window_ms) == (3, 0.5, 0)
    assert policy.box.task_types == {"DpoTask"}


WRONG = {
    "nonsense = 1": "config.toml: 'nonsense': unknown key",
    '_env_file = "/etc/passwd"': "config.toml: '_env_file': unknown key",
    "self = 1": "config.toml: 'self': unknown key",
    "= x": "config.toml: no valid TOML",
    "http = 3": "http: found 3",
    "[http]\nprot = 1": "http.prot: unknown key",
    '[http]\nport = "x"': "http.port: found 'x'",
    "[http]\nport = 65536": "http.port: found 65536",
    '[http]\nhost = "0.0.0.0"': "loopback",
    '[http]\nauth = "fiber"': "hotkey",
    '[http]\nauth = "fiber"\nhotkey = "x"': "validators",
    "[policy]\ncap = 25": "policy.cap: found 25",
    "[policy]\ncap = true": "policy.cap: found true, which is no number",
    "[training]\nepochs = true": "training: epochs: found true, which is no number",
    "[http]\nport = false": "http.port: found false, which is no number",
    "[jobs]\nmargin_minutes = true": "jobs.margin_minutes: found true, which is no number",
    '[http]\nprotocol = "latest"': "http.protocol: found 'latest'",
    "[jobs]\nmargin_minutes = nan": "jobs.margin_minutes: found nan",
    "[jobs]\nmargin_minutes = inf": "jobs.margin_minutes: found inf",
    '[jobs]\non_stop = "maybe"': "jobs.on_stop: found 'maybe'",
    'data = ""': "data: found ''",
    'data = "a\\u0000b"': "data: found",
    '[spool]\nfolder = ""': "spool.folder: found ''",
    "[spool]\npoll_s = 0": "spool.poll_s: found 0",
    b"\xff": "no UTF-8",
    "x = " + "[" * 3000: "no valid TOML",
}


@pytest.mark.parametrize("text", WRONG)
def test_what_is_wrong_is_told_in_one_line_with_its_key(written, text):
    path = written(text)
    with pytest.raises(InputError) as wrong:
        read_config(path)
    said = str(wrong.value)
    assert said.startswith(str(path))
    assert WRONG[text] in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("FOUR_SLOT_HTPP__PORT", "1", "unknown variable"),
        ("FOUR_SLOT_HTTP__PORT", "x", "FOUR_SLOT_HTTP__PORT"),
        ("FOUR_SLOT_HTTP__PROT", "1", "http.prot: unknown key"),
        ("FOUR_SLOT_HTTP", "{", 'field "http"'),
        ("FOUR_SLOT_DEVICE", "tpu", "FOUR_SLOT_DEVICE"),
    ],
)
def test_a_wrong_variable_is_named(monkeypatch, name, value, said):
    monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=r"^environment: ") as wrong:
        read_config(None)
    assert said in str(wrong.value)


def test_variables_that_are_no_configuration_are_left_alone(monkeypatch):
    monkeypatch.setenv("FOUR_SLOT_FAULT", "after_commit")
    monkeypatch.setenv("FOUR_SLOT_JOB", "/x")
    assert read_config(None) == Config()


@pytest.mark.parametrize(
    "text", ["task_types: 3", "[", "a: &a [*a, *a]", "shortest_row: 0", "x: 1"]
)
def test_a_wrong_box_is_told_once_with_its_file(written, text):
    path = written(text, "box.yaml")
    with pytest.raises(InputError) as wrong:
        read_box(path)
    assert str(wrong.value).count(str(path)) == 1
    assert "\n" not in str(wrong.value)


def test_a_missing_box_is_told_once(tmp_path):
    with pytest.raises(InputError, match="cannot be read") as wrong:
        read_box(tmp_path / "none.yaml")
    assert str(wrong.value).count("none.yaml") == 1


def test_a_file_too_long_is_not_read(written):
    with pytest.raises(InputError, match="allowed is 1048576"):
        read_config(written(b"#" * ((1 << 20) + 1)))


def test_settings_of_jobs_are_handed_on(written):
    path = written('[jobs]\nworker = "stub"\nmargin_minutes = 2\nprocesses = 1\n')
    settings = read_config(path).job_settings(systemd=False)
    assert (settings.worker_module, settings.torchrun) == ("live.worker_stub", False)
    assert (settings.margin_ms, settings.processes, settings.systemd) == (120_000, 1, False)
