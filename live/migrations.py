"""The ledger file's schema, version by version, in ``PRAGMA user_version``.

Version 0 is an empty file, or what ``sim replay --ledger`` writes: the ledger table alone.
"""

import apsw

from shared.errors import InputError

LEDGER = "CREATE TABLE ledger(seq INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, line TEXT NOT NULL)"
_COLUMNS = ["seq", "at_ms", "line"]

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        LEDGER.replace("TABLE", "TABLE IF NOT EXISTS"),
        """CREATE TABLE nonces(hotkey TEXT NOT NULL, nonce TEXT NOT NULL,
        expires_ms INTEGER NOT NULL, PRIMARY KEY(hotkey, nonce)) WITHOUT ROWID""",
        "CREATE INDEX nonces_by_expiry ON nonces(expires_ms)",
        """CREATE TABLE starts(seq INTEGER PRIMARY KEY, task_id TEXT NOT NULL,
        payload TEXT NOT NULL)""",
        "CREATE INDEX starts_by_task ON starts(task_id, seq)",
        "CREATE TABLE submissions(task_id TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
        "CREATE TABLE jobs(seq INTEGER PRIMARY KEY, task_id TEXT NOT NULL, dir TEXT NOT NULL)",
        "CREATE INDEX jobs_by_task ON jobs(task_id, seq)",
    ),
    (
        """CREATE TABLE training(seq INTEGER PRIMARY KEY, task_id TEXT NOT NULL,
        payload TEXT NOT NULL)""",
    ),
)
"""``MIGRATIONS[n]`` turns a file of version n into one of version n + 1."""

VERSION = len(MIGRATIONS)


def version_of(connection: apsw.Connection) -> int:
    """The schema version of an open file. Raises InputError when it holds no ledger of ours."""
    version: int = connection.pragma("user_version")
    if version > VERSION:
        raise InputError(
            f"found a ledger of schema version {version}, allowed is {VERSION} or older: "
            "it was written by a newer release"
        )
    tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_schema")]
    if not tables and version == 0:
        return 0
    columns = [row[1] for row in connection.execute("PRAGMA table_info(ledger)")]
    if columns != _COLUMNS:
        raise InputError("found no ledger, allowed is a file with the table ledger")
    return version


def migrate(connection: apsw.Connection) -> None:
    """Bring an open file to ``VERSION``, each step whole or not at all. Raises InputError."""
    for version in range(version_of(connection), VERSION):
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statement in MIGRATIONS[version]:
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {version + 1}")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
