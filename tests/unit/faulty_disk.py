"""A disk that refuses writes or forgets what was not synced: a SQLite VFS for tests."""

from pathlib import Path

import apsw

NAME = "faulty"


class FaultyDisk(apsw.VFS):
    """Passes everything on, counts what changes a file, and fails when told to.

    fails: the numbers of the changes to fail. how: ``full``, ``ioerr`` or ``torn`` (half a write,
    then an error). before_sync: called with this disk before every sync.
    """

    def __init__(self):
        super().__init__(NAME, "")
        self.changes = 0
        self.fails = range(0)
        self.how = "ioerr"
        self.failed = []
        self.durable = {}
        self.pending = {}
        self.before_sync = None

    def xOpen(self, name, flags):  # noqa: N802
        return FaultyFile(self, name, flags)

    def xDelete(self, name, sync_folder):  # noqa: N802
        super().xDelete(name, sync_folder)
        self.durable.pop(name, None)
        self.pending.pop(name, None)

    def refuse(self, what):
        """Count a change; raise when it is one that fails."""
        number, self.changes = self.changes, self.changes + 1
        if number in self.fails:
            self.failed.append(what)
            raise apsw.FullError("full") if self.how == "full" else apsw.IOError("failed")

    def image(self, folder, torn=False):
        """What would be there after a power loss now, in a folder; torn: some unsynced writes."""
        for name, content in self.durable.items():
            kept = bytearray(content)
            writes = self.pending.get(name, [])
            for number, (data, offset) in enumerate(writes if torn else []):
                part = data if number < len(writes) // 2 else data[: len(data) // 2]
                kept[len(kept) : offset] = b"\x00" * max(offset - len(kept), 0)
                kept[offset : offset + len(part)] = part
            (folder / Path(name).name).write_bytes(kept)


class FaultyFile(apsw.VFSFile):
    def __init__(self, disk, name, flags):
        self.disk = disk
        self.name = name.filename() if isinstance(name, apsw.URIFilename) else name
        super().__init__("", name, flags)

    def excepthook(self, *_):
        """A checkpoint that fails is no error: SQLite tries again later."""

    def xWrite(self, data, offset):  # noqa: N802
        try:
            self.disk.refuse("write")
        except apsw.Error:
            if self.disk.how == "torn":
                super().xWrite(bytes(data)[: len(data) // 2], offset)
            raise
        super().xWrite(data, offset)
        self.disk.pending.setdefault(self.name, []).append((bytes(data), offset))

    def xTruncate(self, size):  # noqa: N802
        self.disk.refuse("truncate")
        super().xTruncate(size)

    def xSync(self, flags):  # noqa: N802
        if self.disk.before_sync:
            self.disk.before_sync(self.disk)
        self.disk.refuse("sync")
        super().xSync(flags)
        self.disk.durable[self.name] = Path(self.name).read_bytes()
        self.disk.pending[self.name] = []
