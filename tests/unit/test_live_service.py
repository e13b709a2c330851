"""The parts put together: what cannot be begun leaves nothing behind, what is shown is durable."""

import asyncio
import gc
import threading
from types import SimpleNamespace

import httpx
import pytest

import live.launching
from live.cli import main
from live.config import Config, policy_of
from live.discovery import discover
from live.gpus import CpuSlots
from live.guard import Guard
from live.intake.signatures import Signed
from live.kept_faults import KeptFaults, KeptGpu
from live.launching import scopes_can_be_had, under_systemd
from live.passing import PassingError
from live.rows import Submission
from live.running import run
from live.service import Service, setting_of
from shared.errors import InputError
from shared.inputs import JobEnded, OfferArrived, OperatorAsked
from shared.offers import Offer

TASK = "6f1f6f2e-3e7c-4f3e-9d7e-0123456789ab"
HOTKEY = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"


def service(folder, http=None, **parts):
    http = {"enabled": True, "port": 0, "metrics_port": None} | (http or {})
    config = Config(data=str(folder), device="cpu", http=http, jobs={"worker": "stub"}, **parts)
    return Service(setting_of(config, policy_of(config, folder), discover("cpu")))


def test_a_spool_folder_that_cannot_be_made_leaves_nothing_begun(tmp_path, recwarn):
    (tmp_path / "file").touch()

    async def story():
        async with service(
            tmp_path / "data", spool={"folder": str(tmp_path / "file" / "spool")}
        ).serving():
            raise AssertionError("it serves")

    with pytest.raises(InputError, match="spool: cannot be made: Not a directory"):
        asyncio.run(story())
    gc.collect()
    assert [str(each.message) for each in recwarn] == []


def test_what_is_being_written_is_not_shown(tmp_path):
    async def story():
        async with service(tmp_path / "data").serving() as served:
            begun, go = threading.Event(), threading.Event()
            append = served.store.append

            def slow(entries, rows):
                begun.set()
                assert go.wait(10)
                append(entries, rows)

            served.store.append = slow
            entry = OfferArrived(Offer(TASK, "m/llama", "ChatTask", 8.0), "v")
            asked = asyncio.create_task(served.daemon.enter(entry))
            await asyncio.to_thread(begun.wait, 10)
            assert served.daemon.machine.slots_in_use == 1
            before = await served.operator["status"]({})
            assert (before["slots_in_use"], before["slots"][0]["state"]) == (0, "free")
            go.set()
            await asked
            after = await served.operator["status"]({})
            assert (after["slots_in_use"], after["slots"][0]["task_id"]) == (1, TASK)
            view = served.daemon.durable()
            await served.daemon.enter(OperatorAsked("drain"))
            assert (view.draining, served.daemon.durable().draining) == (False, True)

    asyncio.run(story())


def test_an_operator_calls_a_gpu_well(tmp_path, capsys, monkeypatch):
    """With the daemon, which answers for its GPUs, and without one, in the file."""
    (tmp_path / "config.toml").write_text(f'data = "{tmp_path / "data"}"\ndevice = "cpu"\n')
    call = ["gpu-ok", "1", "--config", str(tmp_path / "config.toml")]
    kept = KeptFaults(tmp_path / "data")
    kept.numbered(["GPU-a", "GPU-b"])
    kept.put("GPU-b", KeptGpu(reason="GPU 1: Xid 79"))
    assert main(call) == 0
    assert capsys.readouterr().out == "GPU 1: forgotten: GPU 1: Xid 79\n"
    assert KeptFaults(tmp_path / "data").of("GPU-b").reason is None

    async def story():
        async with service(tmp_path / "data").serving():
            return await asyncio.to_thread(main, call)

    monkeypatch.setattr(CpuSlots, "clear", lambda _, gpu: f"GPU {gpu}: Xid 48")
    assert asyncio.run(story()) == 0
    assert capsys.readouterr().out == "GPU 1: forgotten: GPU 1: Xid 48\n"


def test_a_daemon_knows_what_an_earlier_one_knew_of_the_gpus(tmp_path, capsys, monkeypatch):
    (tmp_path / "config.toml").write_text(f'data = "{tmp_path / "data"}"\ndevice = "cuda"\n')
    KeptFaults(tmp_path / "data").put("GPU-b", KeptGpu(reason="GPU 1: Xid 79"))
    monkeypatch.setattr("live.commands.run.logs.set_up", lambda _: None)

    def looks(device, kept):
        raise InputError(f"{device}: {kept.of('GPU-b').reason}")

    monkeypatch.setattr("live.commands.run.discover", looks)
    monkeypatch.setattr("os.umask", lambda _: 0)
    assert main(["--config", str(tmp_path / "config.toml")]) == 2
    assert capsys.readouterr().err == "live: cuda: GPU 1: Xid 79\n"


def test_the_device_in_use_is_told(tmp_path, caplog):
    async def story():
        config = Config(data=str(tmp_path / "data"), http={"port": 0, "metrics_port": None})
        slots = CpuSlots(why="NVML: no library")
        async with Service(setting_of(config, policy_of(config, tmp_path), slots)).serving() as it:
            return it.metrics.render().decode()

    assert 'four_slot_device{device="cpu"} 1.0' in asyncio.run(story())
    assert "jobs run on 8 CPU slots: NVML: no library" in caplog.text


def test_a_part_that_dies_ends_the_daemon_at_once_and_says_so(tmp_path, caplog):
    async def story():
        made = service(tmp_path / "data")

        async def dies():
            await asyncio.sleep(0.1)
            raise ValueError("a fault\nof its own")

        made.supervisor.run = dies
        async with asyncio.timeout(10):
            await run(made)

    with pytest.raises(PassingError, match="watches died: ValueError: a fault of its own"):
        asyncio.run(story())
    assert "watches died: the daemon ends and its jobs go on" in caplog.text


@pytest.mark.parametrize(("endless", "stopped", "dead"), [
    (True, False, True), (False, False, False), (True, True, False),
])  # fmt: skip
def test_an_end_without_an_error_is_a_death_of_what_has_no_end(endless, stopped, dead):
    async def story():
        guard, stop = Guard(), asyncio.Event()
        task = asyncio.create_task(asyncio.sleep(0), name="http server")
        guard.watch([task], stop, endless=endless)
        if stopped:
            stop.set()
        await task
        await asyncio.sleep(0)
        return guard.broken.is_set(), guard.why

    assert asyncio.run(story()) == (dead, "http server died" if dead else "")


def test_a_rank_needs_a_gpu_of_its_own(tmp_path):
    config = Config(data=str(tmp_path), jobs={"processes": 3})
    cards = SimpleNamespace(device="cuda", count=8)
    with pytest.raises(InputError, match=r"jobs.processes: found 3, allowed .* is 1 to 2"):
        setting_of(config, policy_of(config, tmp_path), cards)
    assert setting_of(config, policy_of(config, tmp_path), discover("cpu"))


def test_what_was_offered_of_a_job_is_known_without_a_look_into_the_ledger(tmp_path):
    """To look there is to read all of it, once a job, while a start is waited for."""

    async def story():
        made = service(tmp_path / "data")
        consumer = asyncio.create_task(made.daemon.run())
        await made.daemon.enter(OfferArrived(Offer(TASK, "m/llama", "ChatTask", 8.0), "v"))
        before = made._wanted(TASK)
        await made.daemon.stop()
        await consumer
        made.store.close()
        again = service(tmp_path / "data")
        again.store.lines = None
        after = again._wanted(TASK)
        consumer = asyncio.create_task(again.daemon.run())
        await again.daemon.enter(JobEnded(TASK, "cancelled"))
        gone = again._wanted(TASK)
        await again.daemon.stop()
        await consumer
        again.store.close()
        assert [(each.model, each.task_type) for each in (before, after, gone)] == [
            ("m/llama", "ChatTask"), ("m/llama", "ChatTask"), ("", ""),
        ]  # fmt: skip

    asyncio.run(story())


@pytest.mark.parametrize(
    ("http", "answered"),
    [({}, {"repo": "me/r", "model_hash": None}), ({"protocol": "early"}, "me/r")],
)
def test_a_submission_is_answered_as_the_configured_protocol_has_it(tmp_path, http, answered):
    async def story():
        async with service(tmp_path / "data", http).serving() as served:
            await served.daemon.keep(Submission(TASK, "me/r"))
            url = f"http://127.0.0.1:{served.http.port}/get_latest_model_submission/{TASK}"
            async with httpx.AsyncClient() as client:
                assert (await client.get(url)).json() == answered

    asyncio.run(story())


def test_an_end_is_told_by_the_daemon_s_clock(tmp_path, monkeypatch):
    made = service(tmp_path / "data")
    monkeypatch.setattr(made.supervisor, "ended_ms", lambda _: 5_000_000)
    monkeypatch.setattr(made.clock, "behind_wall_ms", lambda: 7_200, raising=False)
    made.store.close()
    assert made._ended_ms(TASK) == 5_000_000 - 7_200


def test_signed_requests_from_before_a_restart_are_refused(tmp_path):
    told = {"auth": "fiber", "hotkey": HOTKEY, "validators": {HOTKEY: 1.0}}
    since = []
    for _ in range(2):
        made = service(tmp_path / "data", told)
        auth = made._auth()
        assert isinstance(auth, Signed)
        since.append((auth._since_ms, made.clock.now_ms()))
        made.store.close()
    (first, _), (second, now_ms) = since
    assert first == 0  # nobody can have asked a ledger that was just begun
    assert abs(now_ms - second) < 60_000  # one by the wall clock, one by the steady one


@pytest.mark.parametrize(
    ("user", "manager", "expected"), [(0, False, True), (1000, True, True), (1000, False, False)]
)
def test_a_scope_is_asked_for_where_one_can_be_had(tmp_path, monkeypatch, user, manager, expected):
    monkeypatch.setattr(live.launching, "_SYSTEMD", tmp_path)
    monkeypatch.setattr(live.launching, "_systemd_run", lambda: "/bin/systemd-run")
    monkeypatch.setattr(live.launching, "_RUNTIME", tmp_path / "run")
    monkeypatch.setattr("os.geteuid", lambda: user)
    for folder in (tmp_path, tmp_path / "run" / "1000"):  # as told, as a service finds it
        (folder / "systemd").mkdir(parents=True)
        if manager:
            (folder / "systemd" / "private").touch()
    unit = {"INVOCATION_ID": "x"}
    assert under_systemd(unit | {"XDG_RUNTIME_DIR": str(tmp_path)}) is expected
    assert under_systemd(unit) is expected
    assert scopes_can_be_had({}) is expected
    assert under_systemd({}) is False
