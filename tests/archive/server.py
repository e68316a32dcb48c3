"""versitygw, an S3 server over a folder: started, stopped, and its files at hand."""

import secrets
import socket
import subprocess
import time
from pathlib import Path
from typing import Final, Self

WAIT_S: Final = 30.0
BUCKET: Final = "archive"


class S3Server:
    """A server of one bucket; a context.

    Args:
        program: The server's.
        folder: Its own, in which its objects are files.
    """

    def __init__(self, program: Path, folder: Path) -> None:
        self.keys = {"access_key": "prover", "secret_key": secrets.token_hex(12)}
        self.objects = folder / "objects"
        self._command = [
            str(program), "--access", self.keys["access_key"], "--secret",
            self.keys["secret_key"], "--quiet", "--port", "",
            "posix", "--sidecar", str(folder / "sidecar"), str(self.objects),
        ]  # fmt: skip
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def variables(self, prefix: str) -> dict[str, str]:
        """What a process needs to use the bucket below a prefix."""
        return {
            "ODRADEK_ARCHIVE": f"s3://{BUCKET}/{prefix}",
            "ODRADEK_ARCHIVE_ENDPOINT_URL": self.url,
            "ODRADEK_ARCHIVE_ACCESS_KEY": self.keys["access_key"],
            "ODRADEK_ARCHIVE_SECRET_KEY": self.keys["secret_key"],
        }

    def __enter__(self) -> Self:
        """Start it, and make its bucket."""
        from pyarrow import fs

        for folder in (self.objects, self._folder / "sidecar"):
            folder.mkdir(parents=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._command[self._command.index("--port") + 1] = f"127.0.0.1:{self.port}"
        with (self._folder / "server.log").open("wb") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        files = fs.S3FileSystem(
            **self.keys, region="us-east-1", scheme="http",
            endpoint_override=f"127.0.0.1:{self.port}", allow_bucket_creation=True,
        )  # fmt: skip
        deadline = time.monotonic() + WAIT_S
        while True:
            try:
                files.create_dir(BUCKET)
            except OSError:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    self.__exit__()
                    raise RuntimeError((self._folder / "server.log").read_text()) from None
                time.sleep(0.1)
            else:
                return self

    def __exit__(self, *raised: object) -> None:
        """End it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
