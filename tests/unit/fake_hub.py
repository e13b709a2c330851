"""A model hub of one process: what huggingface_hub asks of one, and the faults of a real one."""

import hashlib
import json
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "c" * 40


class FakeHub:
    """repos: name to files. faults: path prefix to statuses, answered one by one before it works.

    cut: bytes after which the next download of a file breaks off. lost: a name that a commit drops.
    """

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, bytes]] = {}
        self.gated: set[str] = set()
        self.faults: dict[str, list[int]] = {}
        self.cut: dict[str, int] = {}
        self.lost = ""
        self.objects: dict[str, bytes] = {}
        self.asked: Counter[str] = Counter()
        self.tokens: set[str] = set()
        self.ranges: list[str] = []
        hub = self

        class Handler(_Handler):
            owner = hub

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    owner: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, status: int, body: Any = b"", **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _begin(self) -> list[str] | None:
        hub = self.owner
        path = self.path.split("?")[0]
        hub.asked[f"{self.command} {path}"] += 1
        hub.tokens.add(self.headers.get("Authorization", ""))
        for prefix, statuses in hub.faults.items():
            if path.startswith(prefix) and statuses:
                self._body()
                self._answer(statuses.pop(0), {"error": "a fault"})
                return None
        return path.strip("/").split("/")

    def _body(self) -> bytes:
        length = self.headers.get("Content-Length")
        if length is not None:
            return self.rfile.read(int(length))
        body = b""
        if self.headers.get("Transfer-Encoding") != "chunked":
            return body
        while size := int(self.rfile.readline() or b"0", 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        parts = self._begin()
        if parts is None:
            return None
        if parts[0] == "datasets":
            parts = parts[1:]
        if parts[:2] in (["api", "models"], ["api", "datasets"]):
            return self._info("/".join(parts[2:4]), parts[4:])
        repo, name = "/".join(parts[:2]), "/".join(parts[4:])
        files = self.owner.repos.get(repo, {})
        if name not in files:
            return self._answer(404, b"", X_Error_Code="EntryNotFound")
        self._file(name, files[name])
        return None

    def _info(self, repo: str, more: list[str]) -> None:
        hub = self.owner
        if repo in hub.gated:
            return self._answer(403, {"error": "gated"}, X_Error_Code="GatedRepo")
        if repo not in hub.repos:
            return self._answer(404, {"error": "none"}, X_Error_Code="RepoNotFound")
        files = hub.repos[repo]
        if more[:1] == ["tree"]:
            tree = [
                {"type": "file", "path": n, "size": len(b), "oid": hashlib.sha1(b).hexdigest()}
                for n, b in files.items()
            ]
            return self._answer(200, tree)
        siblings = [{"rfilename": n, "size": len(b)} for n, b in files.items()]
        self._answer(200, {"id": repo, "sha": COMMIT, "siblings": siblings})
        return None

    def _file(self, name: str, content: bytes) -> None:
        hub = self.owner
        asked = self.headers.get("Range")
        start = int(asked.removeprefix("bytes=").split("-")[0]) if asked else 0
        part = content[start:]
        headers = {
            "ETag": f'"{hashlib.sha256(content).hexdigest()}"',
            "X_Repo_Commit": COMMIT,
            "Accept_Ranges": "bytes",
            "Content_Length": str(len(part)),
        }
        if asked:
            headers["Content_Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            if self.command == "GET":
                hub.ranges.append(asked)
        if self.command == "GET" and name in hub.cut and len(part) > hub.cut[name]:
            self.send_response(206 if asked else 200)
            for key, value in headers.items():
                self.send_header(key.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(part[: hub.cut.pop(name)])
            self.close_connection = True
            return
        self._answer(206 if asked else 200, part, **headers)

    def do_POST(self) -> None:
        parts = self._begin()
        if parts is None:
            return None
        hub, body = self.owner, self._body()
        if parts == ["api", "repos", "create"]:
            told = json.loads(body)
            repo = (
                f"{told['organization']}/{told['name']}"
                if told.get("organization")
                else told["name"]
            )
            hub.repos.setdefault(repo, {})
            return self._answer(200, {"url": f"{hub.address}/{repo}", "name": repo})
        if "preupload" in parts:
            names = [each["path"] for each in json.loads(body)["files"]]
            modes = [
                {"path": n, "uploadMode": "lfs" if n.endswith("tensors") else "regular",
                 "shouldIgnore": False}
                for n in names
            ]  # fmt: skip
            return self._answer(200, {"files": modes})
        if parts[-2:] == ["objects", "batch"]:
            objects = [
                {"oid": each["oid"], "size": each["size"],
                 "actions": {"upload": {"href": f"{hub.address}/lfs/{each['oid']}"}}}
                for each in json.loads(body)["objects"]
            ]  # fmt: skip
            return self._answer(200, {"objects": objects, "transfer": "basic"})
        if "commit" in parts:
            self._commit("/".join(parts[2:4]), body)
            return None
        return self._answer(200, {})

    def _commit(self, repo: str, body: bytes) -> None:
        import base64

        hub = self.owner
        for line in body.splitlines():
            told = json.loads(line)
            value = told.get("value", {})
            if told["key"] == "file":
                hub.repos[repo][value["path"]] = base64.b64decode(value["content"])
            elif told["key"] == "lfsFile":
                hub.repos[repo][value["path"]] = hub.objects[value["oid"]]
        hub.repos[repo].pop(hub.lost, None)
        url = f"{hub.address}/{repo}/commit/{COMMIT}"
        self._answer(200, {"commitUrl": url, "commitOid": COMMIT, "hookOutput": ""})

    def do_PUT(self) -> None:
        parts = self._begin()
        if parts is not None:
            self.owner.objects[parts[-1]] = self._body()
            self._answer(200)
