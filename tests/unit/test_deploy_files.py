"""The files in deploy/ and their handbook say what the code says."""

import json
import re
import tomllib
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from live.config import Config, policy_of, read_config
from live.disk_need import next_job_bytes
from live.doctor import CHECKS
from live.metrics import Metrics
from shared.decisions import Gate, Policy
from shared.machine import Machine
from shared.presets import ACCURACY_4

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
METRIC = re.compile(r"four_slot_[a-z_]+")
ENDINGS = ("_bucket", "_sum", "_count")


def keys_of(model):
    """Every key of a part, with the keys of the parts within it."""
    for name, field in model.model_fields.items():
        inner = field.annotation
        if hasattr(inner, "model_fields"):
            yield from (f"{name}.{key}" for key in keys_of(inner))
        else:
            yield name


def told_keys(text):
    """Every key that the file sets or shows commented out, under its table."""
    table = ""
    for line in text.splitlines():
        if head := re.fullmatch(r"\[([a-z_.]+)\]", line):
            table = head[1] + "."
            if head[1].endswith(".validators"):
                yield head[1]
        elif key := re.match(r"(?:# )?([a-z_]+) = ", line):
            yield table + key[1]


@pytest.fixture(scope="module")
def rendered():
    """Every metric that a registry has, by the name it is asked for."""
    metrics = Metrics(Machine(Policy(ACCURACY_4)), lambda: 0)
    text = metrics.render().decode()
    names = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    return names | {name + end for name in names for end in ENDINGS}


def rules():
    document = yaml.safe_load((DEPLOY / "alerts.yaml").read_text())
    return [rule for group in document["groups"] for rule in group["rules"]]


def test_the_configuration_has_every_key_and_no_other():
    text = (DEPLOY / "config.toml").read_text()
    assert sorted(told_keys(text)) == sorted(keys_of(Config))


def test_the_configuration_says_the_defaults(monkeypatch):
    assert read_config(DEPLOY / "config.toml") == Config(device="cuda")  # never a silent CPU
    text = (DEPLOY / "config.toml").read_text()
    shown = tomllib.loads(re.sub(r"(?m)^# ([a-z_]+ = )", r"\1", text))
    shown["policy"].pop("box")
    assert Config(**shown)  # what is commented out is allowed too


def test_each_key_has_its_line_of_comment():
    lines = (DEPLOY / "config.toml").read_text().splitlines()
    for before, line in pairwise(lines):
        if re.match(r"(?:# )?[a-z_]+ = ", line):
            assert before.startswith("# "), line


def test_the_dashboard_shows_metrics_that_exist(rendered):
    dashboard = json.loads((DEPLOY / "grafana-dashboard.json").read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    named = {name for expr in asked for name in METRIC.findall(expr)}
    assert len(named) > 15
    assert named <= rendered
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


def test_every_metric_is_on_the_dashboard(rendered):
    text = (DEPLOY / "grafana-dashboard.json").read_text()
    plain = {n for n in rendered if not n.endswith((*ENDINGS, "_created"))}
    assert [name for name in sorted(plain) if name not in text] == []


def test_alerts_ask_for_metrics_that_exist(rendered):
    for rule in rules():
        named = set(METRIC.findall(rule["expr"])) - {"four_slot"}
        assert named <= rendered, rule["alert"]
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}
        assert rule["annotations"]["summary"]


def test_alerts_ask_for_labels_that_exist():
    metrics = Metrics(Machine(Policy(ACCURACY_4)), lambda: 0)
    bounds = set(re.findall(r'slack_seconds_bucket{le="([^"]+)"', metrics.render().decode()))
    exprs = " ".join(rule["expr"] for rule in rules())
    assert set(re.findall(r'slack_seconds_bucket{le="([^"]+)"', exprs)) <= bounds
    gates = {gate.label for gate in Gate}
    board = (DEPLOY / "grafana-dashboard.json").read_text()
    assert set(re.findall(r'gate=\\"([^\\]+)', board)) <= gates


def test_every_alert_and_every_check_has_its_heading():
    text = (ROOT / "docs" / "runbook.md").read_text()
    headings = set(re.findall(r"(?m)^#+ (.+)$", text))
    assert {rule["alert"] for rule in rules()} <= headings
    assert {f"doctor: {name}" for name in CHECKS} <= headings
    alarms = {heading for heading in headings if heading.startswith("FourSlot")}
    assert alarms == {rule["alert"] for rule in rules()}


def test_the_handbook_names_every_key():
    text = (ROOT / "docs" / "live.md").read_text()
    assert [key for key in keys_of(Config) if f"`{key}`" not in text] == []


def unit_file():
    """The unit's settings, of one that is there twice the last."""
    text = (DEPLOY / "four-slot.service").read_text()
    return dict(line.split("=", 1) for line in text.splitlines() if re.match(r"[A-Z]\w+=", line))


def test_the_unit_keeps_jobs_and_gpus():
    told = unit_file()
    assert (told["Type"], told["KillMode"], told["Delegate"]) == ("notify", "process", "yes")
    assert told["Restart"] == "always"
    assert not {"PrivateDevices", "MemoryDenyWriteExecute", "ProtectControlGroups"} & set(told)
    assert int(told["TimeoutStopSec"]) > Config().jobs.stop_grace_s + 10
    assert told["PrivateTmp"] == "no"  # it would go with the daemon, under the jobs
    assert "ProtectHome" not in told  # it hides /run/user, where scopes are asked for
    assert "UnsetEnvironment" not in told


def test_a_daemon_that_cannot_start_is_started_again_without_end():
    """A start on a full disk takes half a second, and disks are full for hours."""
    unit = unit_file()
    interval_s = float(unit.get("StartLimitIntervalSec", 10))
    starts = interval_s / (float(unit["RestartSec"]) + 0.5)
    assert interval_s == 0 or starts < float(unit["StartLimitBurst"])


def test_what_the_daemon_writes_to_is_writable_under_the_unit():
    text = (DEPLOY / "config.toml").read_text()
    suggested = re.findall(r'(?m)^# (?:folder|models) = "(.+)"$', text)
    allowed = [path.lstrip("-") for path in unit_file()["ReadWritePaths"].split()]
    assert len(suggested) == 2
    for folder in [*suggested, unit_file()["WorkingDirectory"]]:
        assert any(Path(folder).is_relative_to(path) for path in allowed), folder


def test_the_runbook_signals_the_daemon_alone():
    """Without a word to whom, ``systemctl kill`` goes to all of the unit's processes: the jobs."""
    text = (ROOT / "docs" / "runbook.md").read_text()
    calls = re.findall(r"`(systemctl kill [^`]+)`", text)
    assert calls
    assert all("--kill-whom=main" in call for call in calls)


def test_the_shipped_configuration_knows_the_room_that_a_job_needs(tmp_path: Path) -> None:
    """Its box declares no task types; what is left of all of them counts as declared."""
    config = read_config(DEPLOY / "config.toml")
    policy = policy_of(config, DEPLOY)
    assert policy.box.task_types is not None
    assert "GrpoTask" not in policy.box.task_types
    assert next_job_bytes(policy, None, config.training.most_model_bytes) > 100 * 10**9
