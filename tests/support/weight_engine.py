"""An engine without a model: it takes weights as vLLM does and notes what it would sample with."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

from odradek.trainer.checkpoint import WEIGHTS, sha256_of


class WeightEngine:
    """Version and weights in force, and every pair of them that could have sampled a token."""

    def __init__(self) -> None:
        self.version = 0
        self.weights = "of the start"
        self.paused = False
        self.served: list[tuple[int, str]] = [(0, self.weights)]

    def post(self, path: str, body: dict[str, Any]) -> None:
        """One call of the trainer."""
        if path == "/pause":
            self.paused = True
        elif path == "/collective_rpc":
            self.weights = sha256_of(Path(body["kwargs"]["weights_path"]) / WEIGHTS)
        elif path == "/update_weight_version":
            self.version = int(body["new_version"])
        elif path == "/resume":
            self.paused = False
        now = (self.version, self.weights)
        if not self.paused and now != self.served[-1]:
            self.served.append(now)


class WeightServer:
    """A `WeightEngine` on a port of loopback, for a trainer in another process."""

    def __init__(self) -> None:
        self.engine = engine = WeightEngine()
        self.asked: list[str] = []
        """Every call, with its query."""
        asked = self.asked

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                asked.append(self.path)
                engine.post(self.path.partition("?")[0], json.loads(body or b"{}"))
                self.send_response(200)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_: Any) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=5)
