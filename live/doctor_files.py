"""The doctor on the disk: data folder, ledger, spool, room."""

import os
import shutil
import stat
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from time import perf_counter

import apsw

from live.admin import SOCKET
from live.clock import wall_ms
from live.disk_need import CPU_JOB_BYTES, next_job_bytes
from live.doctor_lines import Check, Line, Scene, fault, hint, ok, warning
from live.intake.spool_files import DONE, FAILED, TAKEN
from live.ledger_store import PASSING, read_only
from live.passing import PassingError
from live.recovery import Replayed, replayed_lines
from live.service import LEDGER
from live.stamping import take_in
from live.storage_watch import HYSTERESIS
from shared.errors import IllegalTransition, InputError
from shared.inputs import PolicyPut
from shared.units import GB, MS_PER_SECOND

NETWORK = {
    "nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "lustre", "glusterfs", "afs", "beegfs",
    "fuse.sshfs", "fuse.glusterfs", "fuse.s3fs", "fuse.rclone", "gpfs",
}  # fmt: skip
FLEETING = {"tmpfs", "ramfs"}
SLOW_FSYNC_MS = 10.0
_FSYNCS = 30
_PAGE = bytes(4096)


def existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    return next((each for each in (folder, *folder.parents) if each.is_dir()), Path("/"))


def _data(scene: Scene) -> Iterator[Line]:
    folder = scene.config.data_folder
    at = existing(folder)
    if folder.exists() and not folder.is_dir():
        yield fault("data folder", f"{folder} is no folder", "set data to a folder of its own")
    elif not os.access(at, os.W_OK | os.X_OK):
        remedy = f"give {at} to the daemon's user, or set data to another folder"
        yield fault("data folder", f"{at} cannot be written by this user", remedy)
    elif at != folder:
        yield ok("data folder", f"{folder} is made by the first start")
    elif stat.S_IMODE(folder.stat().st_mode) & 0o077:
        mode = stat.S_IMODE(folder.stat().st_mode)
        yield warning("data folder", f"{folder} has mode {mode:04o}", f"chmod 700 {folder}")
    else:
        yield ok("data folder", f"{folder}, writable")


def _filesystem(scene: Scene) -> Iterator[Line]:
    at = existing(scene.config.data_folder)
    kind = filesystem_of(at, Path("/proc/self/mountinfo").read_text())
    if kind in NETWORK:
        remedy = "put data on a local disk: the ledger's log and its lock need one"
        yield fault("filesystem", f"{kind}, over a network", remedy)
    elif kind in FLEETING:
        yield warning("filesystem", f"{kind}: gone after a restart", "put data on a disk")
    elif kind == "overlay":
        remedy = "mount a volume there"
        yield warning("filesystem", "overlay: may be gone with its container", remedy)
    else:
        yield ok("filesystem", f"{kind}, local")


def filesystem_of(folder: Path, mountinfo: str) -> str:
    """The kind of filesystem that a folder is on, by the kernel's list of mounts."""
    best, kind = "", "unknown"
    for line in mountinfo.splitlines():
        about, _, source = line.partition(" - ")
        at = about.split()[4].encode().decode("unicode_escape")
        if folder.resolve().is_relative_to(at) and len(at) >= len(best):
            best, kind = at, source.split()[0]
    return kind


def _fsync(scene: Scene) -> Iterator[Line]:
    """What a commit costs at least."""
    took = fsync_ms(existing(scene.config.data_folder))
    median, worst = statistics.median(took), max(took)
    found = f"{median:.2f} ms (median), {worst:.2f} ms (worst of {len(took)})"
    if median > SLOW_FSYNC_MS:
        remedy = f"put data on a disk that syncs in under {SLOW_FSYNC_MS:g} ms (NVMe)"
        yield warning("fsync", found, remedy)
    else:
        yield ok("fsync", found)


def fsync_ms(folder: Path) -> list[float]:
    """Times of so many synced writes to a file without a name. Raises OSError."""
    took = []
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        for _ in range(_FSYNCS):
            file.write(_PAGE)
            begun = perf_counter()
            os.fsync(file.fileno())
            took.append((perf_counter() - begun) * 1000)
    return took


def _room(scene: Scene) -> Iterator[Line]:
    try:
        policy = scene.policy()
    except InputError:
        return  # told under "policy"
    preset, part = policy.preset, scene.config
    most, ranks = part.training.most_model_bytes, part.jobs.processes
    need = next_job_bytes(policy, ranks, most) if scene.on_gpus else CPU_JOB_BYTES
    free = shutil.disk_usage(existing(scene.config.data_folder)).free
    found = f"{free / GB:.1f} GB free, one job may need {need / GB:.1f} GB"
    if free < need * HYSTERESIS:
        yield fault("free space", f"{found}: every offer is refused", "free some, or move data")
    elif free < need * (preset.cap - 1 + HYSTERESIS):
        at_once = int(free / need - HYSTERESIS) + 1
        remedy = f"free some: offers are refused beyond {at_once} of {preset.cap} jobs"
        yield warning("free space", found, remedy)
    else:
        yield ok("free space", f"{found}, enough for {preset.cap}")


def _spool(scene: Scene) -> Iterator[Line]:
    if not scene.config.spool.enabled:
        yield hint("spool", "off: offers come by HTTP alone")
        return
    root = scene.config.spool_folder
    for folder in (root, *(root / part for part in (TAKEN, DONE, FAILED))):
        at = existing(folder)
        if (folder.exists() and not folder.is_dir()) or not os.access(at, os.W_OK | os.X_OK):
            remedy = f"make {folder} a folder that the daemon's user can write"
            yield fault("spool", f"{folder} cannot be written", remedy)
            return
    made = "" if root.is_dir() else ", made by the first start"
    yield ok("spool", f"{root}{made}; answers in {DONE}/ and {FAILED}/")


CLOCK_AHEAD_S = 120.0


def _ledger(scene: Scene) -> Iterator[Line]:
    path = scene.config.data_folder / LEDGER
    if not path.exists():
        yield ok("ledger", "none yet, the first start begins one")
        return
    try:
        replay = replay_of(path)
    except PassingError as why:
        yield fault("ledger", str(why), "make room on the disk, or see why it fails (dmesg)")
        return
    except InputError as why:
        remedy = "keep the file, restore a backup, and start on that"
        yield fault("ledger", str(why), remedy)
        return
    if replay is None:
        yield ok("ledger", f"{path} is empty")
        return
    yield ok("ledger", f"{path}: {replay.entries} entries agree with their replay")
    ahead_s = (replay.last_ms - wall_ms()) / MS_PER_SECOND
    if ahead_s > CLOCK_AHEAD_S:
        found = f"its last entry is {ahead_s:,.0f} s ahead of the wall clock"
        remedy = "see to the clock (timedatectl); until it is there, times go on from that entry"
        yield fault("ledger clock", found, remedy)
    yield from _policy_of(scene, replay)


def replay_of(path: Path) -> Replayed | None:
    """Replay a ledger without leaving a trace of it. Raises InputError."""
    with closing(_opened(path)) as source:
        lines = source.execute("SELECT seq, at_ms, line FROM ledger ORDER BY seq")
        try:
            return replayed_lines(lines, path)
        except PASSING as why:
            raise PassingError(f"{path}: cannot be read now: {why}") from None
        except apsw.Error as why:
            raise InputError(f"{path}: cannot be read: {why}") from None


def _opened(path: Path) -> apsw.Connection:
    """A reader. Where no log lies beside the file, none must lie there afterwards."""
    log = path.with_name(f"{path.name}-wal")
    if log.exists():
        return read_only(path)
    flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
    try:
        connection = apsw.Connection(f"{path.absolute().as_uri()}?immutable=1", flags=flags)
        connection.execute("SELECT seq, at_ms, line FROM ledger LIMIT 0")
    except PASSING as why:
        raise PassingError(f"{path}: cannot be read now: {why}") from None
    except apsw.Error as why:
        raise InputError(f"{path}: found no ledger, {why}") from None
    return read_only(path) if log.exists() else connection  # a daemon has just begun


def _policy_of(scene: Scene, replay: Replayed) -> Iterator[Line]:
    """Whether the next start changes the policy, and whether it may."""
    try:
        policy = scene.policy()
    except InputError:
        return  # told under "policy"
    held = replay.recorder.machine.policy
    if held == policy:
        yield ok("ledger policy", f"{held.preset.name}, as configured")
        return
    found = f"the ledger's is {held.preset.name}, {held.preset.cap} slots; the configured one"
    try:
        list(take_in(replay.recorder, PolicyPut(policy), replay.last_ms))
    except IllegalTransition as why:
        remedy = "configure the ledger's policy, or a data folder of its own"
        yield fault("ledger policy", f"{found} cannot be put in force: {why}", remedy)
        return
    remedy = "nothing if that is meant; else mend the configuration before the next start"
    yield warning("ledger policy", f"{found} is put in force by the next start", remedy)


def _admin(scene: Scene) -> Iterator[Line]:
    path = scene.config.data_folder / SOCKET
    if scene.daemon is None and lock_held(scene.config.data_folder / f"{LEDGER}.lock"):
        remedy = "see its log; restart it when it stays silent"
        yield fault("daemon", "one holds the ledger and does not answer", remedy)
    elif scene.daemon is None:
        yield hint("daemon", "none is running on this data folder")
    else:
        where = scene.daemon["http"] or "no http"
        yield ok("daemon", f"running: {scene.daemon['preset']}, {where}")
    if not path.exists():
        return
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o177:
        yield fault("admin socket", f"{path} has mode {mode:04o}", f"chmod 600 {path}")
    elif scene.daemon is not None:
        yield ok("admin socket", f"{path}, mode {mode:04o}")


def lock_held(path: Path) -> bool:
    """Whether somebody holds the lock, by the kernel's list: looking must not keep one out."""
    try:
        node = path.stat().st_ino
        locks = Path("/proc/locks").read_text()
    except OSError:
        return False
    rows = (line.split() for line in locks.splitlines())
    return any("FLOCK" in row and any(part.endswith(f":{node}") for part in row) for row in rows)


CHECKS: dict[str, Check] = {
    "data folder": _data,
    "filesystem": _filesystem,
    "fsync": _fsync,
    "free space": _room,
    "spool": _spool,
    "ledger": _ledger,
    "daemon": _admin,
}
