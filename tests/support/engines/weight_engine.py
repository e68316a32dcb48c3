"""An engine without a model: it takes weights as vLLM does and notes what it would sample with."""

import json
import socket
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

from odradek.schemas.http import engine as surface
from odradek.trainer.adapters.shape import ADAPTER_WEIGHTS
from odradek.trainer.commit.durable_files import sha256_of
from odradek.trainer.commit.tensor_files import WEIGHTS


class WeightEngine:
    """Version and weights in force, and every pair of them that could have sampled a token."""

    def __init__(self) -> None:
        self.version = 0
        self.weights = "of the start"
        self.paused = False
        self.served: list[tuple[int, str]] = [(0, self.weights)]
        self.adapters: dict[str, str] = {}
        """Of each adapter that it has, by name, the digest of its matrices."""

    @property
    def models(self) -> dict[str, Any]:
        """What it lists."""
        return {"data": [{"id": name} for name in ("policy", *self.adapters)]}

    def post(self, path: str, body: dict[str, Any]) -> None:
        """One call of the trainer."""
        if path == surface.PAUSE.path:
            self.paused = True
        elif path == surface.LOAD.path:
            self.weights = sha256_of(Path(body["kwargs"]["weights_path"]) / WEIGHTS)
        elif path == surface.NAME.path:
            self.version = int(body["new_version"])
        elif path == surface.RESUME.path:
            self.paused = False
        elif path == surface.LOAD_ADAPTER.path:
            digest = sha256_of(Path(body["lora_path"]) / ADAPTER_WEIGHTS)
            self.adapters[body["lora_name"]] = self.weights = digest
            self.version = int(body["lora_name"].rpartition("-v")[2])
        elif path == surface.UNLOAD_ADAPTER.path:
            del self.adapters[body["lora_name"]]
        now = (self.version, self.weights)
        if not self.paused and now != self.served[-1]:
            self.served.append(now)


class WeightServer:
    """A `WeightEngine` on a port of loopback, for a trainer in another process.

    Args:
        port: To come back on; 0 takes a free one.
        tells: Whether it has the route that says what it serves.
    """

    def __init__(self, *, port: int = 0, tells: bool = True) -> None:
        self.engine = engine = WeightEngine()
        self.asked: list[str] = []
        """Every call of POST, with its query."""
        self.behaves: dict[str, str] = {}
        """By route: it "dies", "hangs" or "refuses" there."""
        self.answers: dict[str, Any] = {}
        """By route: what it says there; nothing elsewhere."""
        self.freed = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                outer.asked.append(self.path)
                route = self.path.partition("?")[0]
                how = outer.behaves.get(route)
                if how == "hangs":
                    outer.freed.wait()
                if how == "dies":
                    outer.die()
                if how in {"hangs", "dies"}:
                    self.close_connection = True
                    return
                if how != "refuses":
                    engine.post(route, json.loads(body or b"{}"))
                said = outer.answers.get(route, {})
                self._answer(said, 500 if how == "refuses" else 200)

            def do_GET(self) -> None:
                if outer.behaves.get("GET") == "hangs":
                    outer.freed.wait()
                if self.path == surface.MODELS.path:
                    self._answer(engine.models, 200)
                elif self.path == surface.VERSION.path and not tells:
                    self._answer({}, 404)
                else:
                    label = str(engine.version) if engine.version else "default"
                    self._answer({"weight_version": label}, 200)

            def _answer(self, body: Any, status: int) -> None:
                data = json.dumps(body).encode()
                with suppress(ConnectionError):
                    self.send_response(status)
                    self.send_header("Content-Length", str(len(data)))
                    self.end_headers()
                    self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def die(self) -> None:
        """Listen no more: whoever connects is refused."""
        with suppress(OSError):
            self._server.socket.shutdown(socket.SHUT_RDWR)
        self._server.socket.close()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.freed.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=5)
