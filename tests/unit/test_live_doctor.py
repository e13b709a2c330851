"""The doctor: each fault is found, told with a remedy, and nothing is changed by looking."""

import hashlib
import json
import socket
import subprocess
import sys
from collections import namedtuple
from types import SimpleNamespace

import pytest

from live import doctor_box, doctor_files, doctor_network, doctor_software, doctor_system
from live.commands.doctor import text_of
from live.config import Config
from live.doctor import CHECKS, document, examine, faults_in
from live.doctor_lines import Line, Scene
from live.gpus import CpuSlots, GpuError, GpuProcess
from live.in_time import in_time
from live.intake.ss58 import address_of
from live.ledger_store import LedgerStore
from live.recovery import open_ledger
from live.service import LEDGER
from shared.decisions import Policy
from shared.errors import InputError
from shared.presets import ACCURACY_4, MAXIMUM_2

NOW = 1_700_000_000_000
ALICE, BOB = (address_of(bytes([seed]) * 32) for seed in (1, 2))


class Cards:
    """GPUs that say what they are told to."""

    device = "cuda"

    def __init__(self, count=8, total=85_500_000_000, used=500_000_000, faults=None, pids=()):
        self.count, self._total, self._used = count, total, used
        self._faults, self._pids = faults or {}, pids

    def name(self, gpu):
        return "NVIDIA H100 80GB HBM3"

    def memory_bytes(self, gpu):
        if self._total is None:
            raise GpuError(f"GPU {gpu}: memory: lost")
        return self._total

    def used_bytes(self, gpu):
        return self._used

    def processes(self, gpu):
        return tuple(GpuProcess(pid, None) for pid in self._pids)

    def fault(self, gpu):
        return self._faults.get(gpu)


def scene(folder, gpus=None, daemon=None, **config):
    config.setdefault("data", str(folder / "data"))
    config.setdefault("http", {"port": 0, "metrics_port": 0})
    config.setdefault("training", {"rewards": True})
    return Scene(Config(**config), folder, daemon, CpuSlots() if gpus is None else gpus)


def found(lines, check):
    return next(line for line in lines if line.check == check)


def looked(name, *args, **kwargs):
    return list(CHECKS[name](scene(*args, **kwargs)))


@pytest.fixture
def ledger(tmp_path):
    (tmp_path / "data").mkdir(mode=0o700)
    path = tmp_path / "data" / LEDGER
    open_ledger(path, Policy(ACCURACY_4), NOW).store.close()
    return path


def test_a_laptop_is_no_fault_but_not_for_production(tmp_path):
    lines = examine(scene(tmp_path))
    assert [line for line in lines if line.level == "fault"] == []
    assert found(lines, "GPUs").level == "warning"
    assert "not for production" in found(lines, "GPUs").found
    told = document(lines)
    assert told["ok"]
    assert json.loads(json.dumps(told))["checks"][0]["check"] == "python"


def test_every_fault_and_warning_has_a_remedy_and_one_line(tmp_path):
    lines = examine(scene(tmp_path, gpus=Cards(4, faults={0: "GPU 0: Xid 79"})))
    assert faults_in(lines) >= 2
    for line in lines:
        assert line.remedy or line.level in ("ok", "hint"), line
        assert "\n" not in text_of(line)
    assert not document(lines)["ok"]


def test_text_of_a_strange_name_stays_one_line():
    assert "\n" not in text_of(Line("x", "ok", "a\nb\x1b[0m"))


def test_a_check_that_cannot_look_is_a_fault_and_stops_no_other(tmp_path, monkeypatch):
    def refuses(_):
        raise PermissionError(13, "Permission denied", "/x")
        yield

    monkeypatch.setitem(CHECKS, "fsync", refuses)
    lines = examine(scene(tmp_path))
    assert found(lines, "fsync").level == "fault"
    assert found(lines, "open files")


# Software.


def test_packages_missing_or_too_old_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(
        doctor_software, "requires", lambda _: ["no-such-module>=1", "rich>=9999", "pyyaml"]
    )
    lines = looked("packages", tmp_path)
    assert [line.level for line in lines] == ["fault", "fault"]
    assert lines[0].found == "no-such-module: not importable"
    assert lines[1].found.startswith("rich: found ")


def test_an_old_sqlite_is_a_fault(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor_software.apsw, "sqlite_lib_version", lambda: "3.51.2")
    assert looked("sqlite", tmp_path)[0].level == "fault"
    monkeypatch.setattr(doctor_software.apsw, "sqlite_lib_version", lambda: "3.51.3")
    assert looked("sqlite", tmp_path)[0].level == "ok"


def test_a_token_is_a_warning(tmp_path, monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    assert looked("hub", tmp_path)[0].level == "hint"
    monkeypatch.setenv("HF_TOKEN", "secret")
    (line,) = looked("hub", tmp_path)
    assert line.level == "warning"
    assert "secret" not in line.found


def test_nothing_heavy_is_imported_by_it(tmp_path):
    code = (
        "import sys; from live.config import Config; from live.doctor import *; "
        "from pathlib import Path; "
        "examine(scene_of(Config(data=sys.argv[1], device='cpu'), Path())); "
        "print([m for m in ('torch', 'transformers', 'pandas', 'numpy') if m in sys.modules])"
    )
    call = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(call, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# Files.


MOUNTS = """22 1 254:0 / / rw - ext4 /dev/vda rw
30 22 0:30 / /mnt/net\\040work rw shared:1 - nfs4 host:/x rw
31 22 0:31 / /mnt rw - xfs /dev/vdb rw
"""


@pytest.mark.parametrize(
    ("folder", "kind"), [("/home", "ext4"), ("/mnt/a", "xfs"), ("/mnt/net work/a", "nfs4")]
)
def test_the_filesystem_is_the_deepest_mount(folder, kind):
    from pathlib import Path

    assert doctor_files.filesystem_of(Path(folder), MOUNTS) == kind


@pytest.mark.parametrize(
    ("kind", "level"),
    [("nfs4", "fault"), ("tmpfs", "warning"), ("overlay", "warning"), ("xfs", "ok")],
)
def test_a_network_folder_is_a_fault(tmp_path, monkeypatch, kind, level):
    monkeypatch.setattr(doctor_files, "filesystem_of", lambda *_: kind)
    assert looked("filesystem", tmp_path)[0].level == level


def test_slow_syncs_are_a_warning(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor_files, "fsync_ms", lambda _: [10.1, 10.1, 10.1])
    assert looked("fsync", tmp_path)[0].level == "warning"
    monkeypatch.setattr(doctor_files, "fsync_ms", lambda _: [1.0, 10.0, 90.0])
    assert looked("fsync", tmp_path)[0].level == "ok"


def test_syncs_are_really_measured_and_leave_nothing(tmp_path):
    assert min(doctor_files.fsync_ms(tmp_path)) > 0
    assert list(tmp_path.iterdir()) == []


Usage = namedtuple("Usage", "free")


@pytest.mark.parametrize(
    ("jobs", "level"), [(1.1, "fault"), (1.3, "warning"), (4.1, "warning"), (4.3, "ok")]
)
def test_room_is_counted_in_jobs(tmp_path, monkeypatch, jobs, level):
    free = int(jobs * doctor_files.job_bytes(ACCURACY_4))
    monkeypatch.setattr(doctor_files.shutil, "disk_usage", lambda _: Usage(free))
    assert looked("free space", tmp_path, gpus=Cards())[0].level == level


def test_a_data_folder_that_is_a_file_and_a_spool_below_one(tmp_path):
    (tmp_path / "data").write_text("")
    assert looked("data folder", tmp_path)[0].level == "fault"
    spool = {"folder": str(tmp_path / "data")}
    assert looked("spool", tmp_path, spool=spool)[0].level == "fault"


def test_a_data_folder_that_others_can_read_is_a_warning(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data").chmod(0o755)
    assert looked("data folder", tmp_path)[0].level == "warning"


def prints(folder):
    return {
        each.name: hashlib.sha256(each.read_bytes()).hexdigest()
        for each in sorted(folder.iterdir())
    }


def test_a_ledger_is_replayed_and_nothing_is_left(tmp_path, ledger):
    before = prints(ledger.parent)
    lines = looked("ledger", tmp_path)
    assert [line.level for line in lines] == ["ok", "ok"]
    assert "1 entries agree" in lines[0].found
    assert prints(ledger.parent) == before


def test_a_ledger_ahead_of_the_clock_is_a_fault(tmp_path, ledger, monkeypatch):
    monkeypatch.setattr(doctor_files, "wall_ms", lambda: NOW - 121_000)
    line = found(looked("ledger", tmp_path), "ledger clock")
    assert (line.level, "121 s ahead" in line.found) == ("fault", True)


def test_a_ledger_is_read_beside_its_daemon(tmp_path, ledger):
    store = LedgerStore(ledger)
    try:
        assert [line.level for line in looked("ledger", tmp_path)] == ["ok", "ok"]
        assert doctor_files.lock_held(ledger.with_name(f"{LEDGER}.lock"))
        assert looked("daemon", tmp_path)[0].level == "fault"
    finally:
        store.close()
    assert not doctor_files.lock_held(ledger.with_name(f"{LEDGER}.lock"))
    assert looked("daemon", tmp_path)[0].level == "hint"


def test_a_ledger_that_lies_or_is_none_is_a_fault(tmp_path, ledger):
    import apsw

    connection = apsw.Connection(str(ledger))
    connection.execute("UPDATE ledger SET line = replace(line, '0.95', '0.96')")
    connection.execute("UPDATE ledger SET line = replace(line, 'policy', 'polizy')")
    connection.close()
    assert looked("ledger", tmp_path)[0].level == "fault"
    ledger.write_bytes(b"no database" * 100)
    assert looked("ledger", tmp_path)[0].level == "fault"


def test_a_change_of_policy_is_told_before_it_happens(tmp_path, ledger):
    held, line = looked("ledger", tmp_path, policy={"preset": MAXIMUM_2.name})
    assert held.level == "ok"
    assert (line.check, line.level) == ("ledger policy", "warning")


def test_an_open_admin_socket_is_a_fault(tmp_path):
    (tmp_path / "data").mkdir()
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(tmp_path / "data" / "admin.sock"))
    (tmp_path / "data" / "admin.sock").chmod(0o666)
    lines = looked("daemon", tmp_path)
    assert found(lines, "admin socket").level == "fault"


# Box.


@pytest.fixture
def driver(monkeypatch):
    nvml = SimpleNamespace(nvmlSystemGetDriverVersion=lambda: "580.1", NVMLError=OSError)
    monkeypatch.setattr(doctor_box, "import_module", lambda _: nvml)


@pytest.mark.usefixtures("driver")
@pytest.mark.parametrize(
    ("cards", "said"),
    [
        (Cards(faults={3: "GPU 3: Xid 79"}), "Xid 79"),
        (Cards(total=40_000_000_000), "80 GB are counted on"),
        (Cards(total=None), "lost"),
        (Cards(pids=(2,)), "processes of no job: 2"),
        (Cards(used=5_000_000_000), "though no job is on it"),
        (Cards(count=7), "7 of the 8"),
    ],
)
def test_what_is_wrong_with_gpus_is_a_fault(tmp_path, cards, said):
    lines = looked("GPUs", tmp_path, gpus=cards)
    assert any(line.level == "fault" and said in line.found for line in lines)


@pytest.mark.usefixtures("driver")
def test_good_gpus_are_told_one_by_one(tmp_path):
    lines = looked("GPUs", tmp_path, gpus=Cards())
    assert {line.level for line in lines} == {"ok"}
    assert [line.check for line in lines] == ["driver", "GPUs", *(f"GPU {n}" for n in range(8))]
    assert "580.1" in lines[0].found


@pytest.mark.usefixtures("driver")
def test_the_memory_of_a_running_job_is_no_fault(tmp_path):
    slots = [{"slot": 0, "gpus": list(range(8)), "task_id": "t"}]
    cards = Cards(used=70_000_000_000, pids=(2,))
    lines = looked("GPUs", tmp_path, gpus=cards, daemon={"slots": slots})
    assert {line.level for line in lines} == {"ok", "warning"}


def test_no_gpus_where_they_are_asked_for_is_a_fault(tmp_path):
    assert looked("GPUs", tmp_path, gpus="NVML shows no GPU")[0].level == "fault"


@pytest.mark.parametrize(
    ("box", "level"),
    [
        ("task_types: [DpoTask]\nshortest_row: 512", "ok"),
        ("task_types: [DpoTask]", "warning"),
        ("{}", "warning"),
        ("task_types: [DpoTusk]", "fault"),
    ],
)
def test_a_box_declares_what_can_be_trained(tmp_path, box, level):
    (tmp_path / "box.yaml").write_text(box)
    lines = looked("policy", tmp_path, policy={"box": "box.yaml"})
    assert found(lines, "box").level == level


def test_images_are_declared_only_where_they_can_be_trained(tmp_path, monkeypatch):
    (tmp_path / "box.yaml").write_text("task_types: [DpoTask, ImageTask]\nshortest_row: 512")
    box = {"box": "box.yaml"}
    assert found(looked("policy", tmp_path, policy=box), "box").level == "ok"
    monkeypatch.setattr("live.worker.find_spec", lambda _: None)
    line = found(looked("policy", tmp_path, policy=box), "policy")
    assert (line.level, "diffusers" in line.found) == ("fault", True)


def test_a_wrong_box_and_an_unknown_preset_are_one_fault(tmp_path):
    for policy in ({"box": "none.yaml"}, {"preset": "none"}):
        lines = examine(scene(tmp_path, policy=policy))
        assert [line.check for line in lines if line.level == "fault"] == ["policy"]


# Network.


def fiber(**http):
    known = {"auth": "fiber", "host": "0.0.0.0", "hotkey": ALICE, "validators": {BOB: 10.0}}
    return {"port": 0, "metrics_port": 0, **known, **http}


@pytest.mark.parametrize(
    ("http", "level"),
    [
        (fiber(), "ok"),
        (fiber(hotkey=ALICE[:-1]), "fault"),
        (fiber(validators={"x": 1.0}), "fault"),
        (fiber(min_stake=11.0), "fault"),
        (fiber(validators={ALICE: 1.0, BOB: 1.0}), "warning"),
        ({"enabled": False, "metrics_port": 0}, "hint"),
    ],
)
def test_who_may_ask(tmp_path, http, level):
    assert looked("auth", tmp_path, http=http)[0].level == level


def test_a_taken_port_is_a_fault_unless_it_is_ours(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        http = {"port": port, "metrics_port": 0}
        assert looked("ports", tmp_path, http=http)[0].level == "fault"
        ours = {"http": f"127.0.0.1:{port}", "slots": []}
        assert looked("ports", tmp_path, http=http, daemon=ours)[0].level == "ok"
    assert looked("ports", tmp_path, http=http)[0].level == "ok"


def test_metrics_are_ours_when_they_answer_as_ours(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor_network, "_is_metrics", lambda port: port == 9)
    ours = {"http": None, "slots": []}
    lines = looked("ports", tmp_path, http={"enabled": False, "metrics_port": 9}, daemon=ours)
    assert lines[0].found == "127.0.0.1:9 is our daemon's"


# System.


@pytest.mark.parametrize(
    ("synchronised", "http", "level"),
    [
        (True, None, "ok"),
        (None, None, "warning"),
        (False, None, "warning"),
        (False, fiber(), "fault"),
    ],
)
def test_the_clock(tmp_path, monkeypatch, synchronised, http, level):
    monkeypatch.setattr(doctor_system, "clock_synchronised", lambda: synchronised)
    more = {} if http is None else {"http": http}
    assert looked("clock", tmp_path, **more)[0].level == level


def test_the_kernel_is_asked_about_its_clock():
    assert doctor_system.clock_synchronised() in (True, False, None)


@pytest.mark.parametrize(("had", "level"), [(True, "ok"), (False, "hint")])
def test_scopes_are_promised_only_where_they_can_be_had(tmp_path, monkeypatch, had, level):
    monkeypatch.setattr(doctor_system, "SYSTEMD", tmp_path)
    monkeypatch.setattr(doctor_system, "scopes_can_be_had", lambda: had)
    assert looked("systemd", tmp_path)[0].level == level


def test_too_few_files_are_a_warning(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor_system.resource, "getrlimit", lambda _: (256, 256))
    assert looked("open files", tmp_path)[0].level == "warning"


def test_a_question_that_hangs_is_given_up_on():
    from threading import Event

    never = Event()
    with pytest.raises(TimeoutError):
        in_time(0.01, never.wait)
    never.set()
    assert in_time(5, lambda: 3) == 3
    with pytest.raises(InputError, match="no"):
        in_time(5, lambda: (_ for _ in ()).throw(InputError("no")))
