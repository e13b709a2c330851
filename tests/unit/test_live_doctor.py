"""The doctor: each fault is found, told with a remedy, and nothing is changed by looking."""

import hashlib
import json
import socket
import subprocess
import sys
from collections import namedtuple
from types import SimpleNamespace

import pytest

from live import (
    doctor_box,
    doctor_files,
    doctor_gpus,
    doctor_network,
    doctor_software,
    doctor_system,
)
from live.commands.doctor import text_of
from live.config import Config
from live.disk_need import next_job_bytes
from live.doctor import CHECKS, document, examine, faults_in, scene_of
from live.doctor_lines import Line, Scene
from live.gpus import CpuSlots, GpuError, GpuProcess
from live.in_time import in_time
from live.intake.ss58 import address_of
from live.kept_faults import KeptFaults
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


@pytest.mark.parametrize(("fetches", "said"), [(True, "are fetched"), (False, "must be on this")])
def test_where_models_come_from_is_told_as_configured(tmp_path, monkeypatch, fetches, said):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    assert said in looked("hub", tmp_path, training={"fetch_models": fetches})[0].found


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
    free = int(jobs * next_job_bytes(Policy(ACCURACY_4), None, 200_000_000_000))
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
    monkeypatch.setattr(doctor_box, "host_pids", lambda: True)
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


@pytest.mark.parametrize(("device", "level"), [("auto", "fault"), ("cpu", "warning")])
def test_cpu_slots_on_a_box_with_gpus_must_be_meant(tmp_path, monkeypatch, device, level):
    monkeypatch.setattr(doctor_box, "on_the_bus", lambda: 8)
    slots = CpuSlots(why="NVML: no library")
    (line,) = looked("GPUs", tmp_path, gpus=slots, device=device)
    assert line.level == level
    assert "NVML: no library" in line.found


@pytest.mark.usefixtures("driver")
def test_in_a_container_process_ids_name_nobody(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor_box, "host_pids", lambda: False)
    assert {line.level for line in looked("GPUs", tmp_path, gpus=Cards(pids=(2,)))} == {"ok"}


# GPUs: what CUDA needs.


class Modes:
    """What NVML says of the modes of GPU 1 and 3; None where it is not told."""

    NVMLError = OSError
    NVML_COMPUTEMODE_DEFAULT, NVML_COMPUTEMODE_PROHIBITED = 0, 2
    NVML_MEMORY_ERROR_TYPE_UNCORRECTED, NVML_VOLATILE_ECC = 1, 0

    def __init__(self, mig=(0, 0), compute=0, persistent=1, ecc=0):
        self.nvmlDeviceGetHandleByIndex = lambda gpu: gpu
        self.nvmlDeviceGetMigMode = self._told(mig, (0, 0))
        self.nvmlDeviceGetComputeMode = self._told(compute, 0)
        self.nvmlDeviceGetPersistenceMode = self._told(persistent, 1)
        self.nvmlDeviceGetTotalEccErrors = self._told(ecc, 0)

    @staticmethod
    def _told(value, usual):
        def answer(gpu, *_):
            if value is None:
                raise OSError("Not Supported")
            return value if gpu in (1, 3) else usual

        return answer


@pytest.mark.parametrize(
    ("modes", "preset", "level", "said"),
    [
        ({}, "accuracy_4", "ok", "no MIG"),
        (dict.fromkeys(("mig", "compute", "persistent", "ecc")), "accuracy_4", "ok", "no MIG"),
        (
            {"mig": (1, 1)},
            "accuracy_4",
            "fault",
            "MIG is on, so a job gets a part of a GPU or none",
        ),
        ({"compute": 2}, "accuracy_4", "fault", "compute mode prohibited"),
        ({"compute": 3}, "throughput_24", "fault", "compute mode exclusive"),
        ({"compute": 3}, "accuracy_4", "ok", "no MIG"),
        ({"persistent": 0}, "accuracy_4", "warning", "persistence is off"),
        ({"ecc": 2}, "accuracy_4", "fault", "uncorrected ECC errors"),
    ],
)
def test_the_modes_of_gpus(tmp_path, monkeypatch, modes, preset, level, said):
    monkeypatch.setattr(doctor_gpus, "import_module", lambda _: Modes(**modes))
    (line,) = looked("GPU modes", tmp_path, gpus=Cards(), policy={"preset": preset})
    assert line.level == level
    assert said in line.found
    assert line.found.endswith(": GPU 1, 3") is (level != "ok")


@pytest.mark.parametrize(
    ("text", "built_for"),
    [
        ("__version__ = '2.13.0+cpu'\ncuda: Optional[str] = None\nhip = None\n", None),
        ("__version__ = '2.13.0'\ncuda: Optional[str] = '12.8'\n", "12.8"),
        ("cuda = '13.0'\n", "13.0"),
    ],
)
def test_a_build_of_torch_for_the_cpu_is_a_fault(tmp_path, monkeypatch, text, built_for):
    (tmp_path / "version.py").write_text(text)
    there = SimpleNamespace(locate_file=lambda _: tmp_path / "version.py")
    monkeypatch.setattr(doctor_gpus, "distribution", lambda _: there)
    monkeypatch.setattr(doctor_gpus, "UVM", tmp_path)
    (line,) = looked("CUDA", tmp_path, gpus=Cards())
    assert line.level == ("ok" if built_for else "fault")
    assert (built_for or "for the CPU") in line.found


def test_torch_s_own_files_tell_its_build():
    from importlib.metadata import version

    assert (doctor_gpus.torch_cuda() is None) == version("torch").endswith("+cpu")


def test_no_uvm_is_a_fault(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor_gpus, "torch_cuda", lambda: "12.8")
    monkeypatch.setattr(doctor_gpus, "UVM", tmp_path / "nvidia-uvm")
    (line,) = looked("CUDA", tmp_path, gpus=Cards())
    assert (line.level, "nvidia-uvm is missing" in line.found) == ("fault", True)


@pytest.mark.parametrize(("blocks", "level"), [(15_625, "fault"), (250_000, "ok")])
def test_shared_memory_of_a_container_is_too_small(tmp_path, monkeypatch, blocks, level):
    about = SimpleNamespace(f_bavail=blocks, f_frsize=4096)
    monkeypatch.setattr(doctor_gpus.os, "statvfs", lambda _: about)
    assert looked("shared memory", tmp_path, gpus=Cards())[0].level == level
    alone = {"preset": "throughput_24"}  # one rank a job
    assert looked("shared memory", tmp_path, gpus=Cards(), policy=alone) == []


def test_a_box_without_gpus_is_asked_none_of_it(tmp_path):
    for name in doctor_gpus.CHECKS:
        assert looked(name, tmp_path) == []


# What every job needs.


@pytest.mark.parametrize(
    ("training", "level", "on_cpu"),
    [
        ({}, "fault", "hint"),
        ({"hub_datasets": True}, "warning", "hint"),
        ({"data_hosts": ["a.example"]}, "ok", "ok"),
    ],
)
def test_without_a_host_no_dataset_is_fetched(tmp_path, training, level, on_cpu):
    assert looked("data", tmp_path, gpus=Cards(), training=training)[0].level == level
    assert looked("data", tmp_path, gpus="it fails", training=training)[0].level == level
    assert looked("data", tmp_path, training=training)[0].level == on_cpu
    stub = looked("data", tmp_path, gpus=Cards(), training=training, jobs={"worker": "stub"})
    assert stub[0].level == on_cpu


def test_a_worker_that_trains_nothing_is_told(tmp_path):
    stub = {"jobs": {"worker": "stub"}}
    assert looked("worker", tmp_path, gpus=Cards(), **stub)[0].level == "fault"
    assert looked("worker", tmp_path, **stub)[0].level == "warning"
    assert looked("worker", tmp_path, gpus=Cards())[0].level == "ok"


def test_models_that_are_not_fetched_must_be_there(tmp_path):
    training = {"models": str(tmp_path / "models"), "fetch_models": False}

    def level(gpus, **more):
        return looked("models", tmp_path, gpus=gpus, training=training | more)[0].level

    assert (level(Cards()), level(None)) == ("fault", "hint")
    assert level(Cards(), fetch_models=True) == "ok"
    (tmp_path / "models").mkdir()
    assert level(Cards()) == "fault"
    (tmp_path / "models" / "some").touch()
    assert level(Cards()) == "ok"


@pytest.mark.parametrize(
    ("text", "mode", "level"),
    [(None, 0, "fault"), ("", 0o600, "fault"), ("hf_x", 0o644, "warning"), ("hf_x", 0o600, "ok")],
)
def test_the_token_must_be_there(tmp_path, text, mode, level):
    path = tmp_path / "token"
    if text is not None:
        path.write_text(text)
        path.chmod(mode)
    training = {"submit": "hub", "namespace": "me", "token_file": str(path)}
    (line,) = looked("token", tmp_path, training=training)
    assert line.level == level
    assert "hf_x" not in line.found
    assert looked("token", tmp_path)[0].level == "hint"


@pytest.mark.parametrize(
    ("ranks", "preset", "level"),
    [(3, "accuracy_4", "fault"), (2, "accuracy_4", "ok"), (2, "throughput_24", "fault")],
)
def test_a_rank_needs_a_gpu_of_its_own(tmp_path, ranks, preset, level):
    part = {"jobs": {"processes": ranks}, "policy": {"preset": preset}}
    assert looked("ranks", tmp_path, gpus=Cards(), **part)[0].level == level
    assert looked("ranks", tmp_path, **part)[0].level == "ok"


def test_a_variable_that_has_no_effect_is_a_warning(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert looked("environment", tmp_path, gpus=Cards())[0].level == "warning"
    assert looked("environment", tmp_path) == []
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert looked("environment", tmp_path, gpus=Cards()) == []


def test_a_fault_that_is_remembered_is_told(tmp_path, monkeypatch):
    """The doctor looks with the eyes of the next daemon, and writes nothing."""
    seen = []
    monkeypatch.setattr(
        "live.doctor.discover", lambda device, kept: seen.append((device, kept)) or CpuSlots()
    )
    scene_of(Config(data=str(tmp_path), device="auto"), tmp_path)
    ((device, kept),) = seen
    assert (device, isinstance(kept, KeptFaults)) == ("auto", True)
    kept.numbered(["GPU-a"])
    assert list(tmp_path.iterdir()) == []


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
