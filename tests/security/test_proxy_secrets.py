"""Credentials and what agents say stay where they belong; what is no HTTP is refused quietly."""

import asyncio
import logging
import os
import subprocess
import sys

import pytest

from tests.support.suite.child_processes import python_path

pytestmark = pytest.mark.processes

CHAT = "/v1/chat/completions"
PROGRAM = """
import asyncio, json, logging, sys

logging.basicConfig(level=logging.DEBUG)

from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from tests.support.proxy.proxy_bench import KEY, Bench
from tests.support.engines.stub_engine import StubEngine, listening

from odradek.infra.runtime import telemetry
from odradek.infra.bus import MemoryAppender
from odradek.proxy.app import Proxy
from odradek.proxy.server import serving
from odradek.proxy.settings import ProxySettings


async def main():
    spans = InMemorySpanExporter()
    telemetry.setup("proxy", spans)
    engine, log = StubEngine(), MemoryAppender()
    async with listening(engine.app()) as engine.url:
        settings = ProxySettings(port=0, engine_url=engine.url, engine_key="canary-engine-key")
        proxy = Proxy(settings, log, keys=[KEY])
        async with serving(proxy) as url:
            bench = Bench(engine, log, proxy, url)
            token = bench.token("e1")
            secret = token.rsplit(".", 1)[1]
            body = {"messages": [{"role": "user", "content": "canary-prompt"}]}
            for mode in ("ok", "error", "garbage", "drop"):
                engine.mode = mode
                for path, headers in (
                    ("/v1/chat/completions", {"Authorization": f"Bearer {token}"}),
                    ("/v1/chat/completions", {"x-api-key": token, "Cookie": "canary-cookie"}),
                    (f"/t/{token}/v1/chat/completions", {"Authorization": "Bearer canary-other"}),
                    ("/v1/chat/completions", {"Authorization": f"Bearer {token}x"}),
                ):
                    await bench.post(path, body, headers=headers)
            await bench.seal("e1", error="x")
    told = "".join(span.to_json() for span in spans.get_finished_spans())
    assert "odradek.episode_id" in told
    for word in (secret, "canary-engine-key", "canary-cookie", "canary-other"):
        assert word not in told, f"{word} in a span"
        for record in log.records:
            assert word.encode() not in record.value + repr(record.headers).encode(), word
    assert "canary-prompt" not in told
    print(secret)


asyncio.run(main())
"""


def test_no_credential_reaches_the_log_a_span_or_a_log_line():
    """Canaries in each place that a client or the engine can put one, on good and bad answers.

    A process of its own, since tracing is set up once; its log is read at level DEBUG.
    """
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": python_path()},
    )
    assert 0 == done.returncode, done.stderr[-2000:]
    secret = done.stdout.strip()
    assert secret
    for word in (secret, "canary"):
        assert word not in done.stderr


RAW = {
    "two lengths": "POST {path} HTTP/1.1\r\nHost: x\r\n{auth}Content-Length: 2\r\nContent-Length: 3\r\n\r\n{{}}",
    "length and chunks": "POST {path} HTTP/1.1\r\nHost: x\r\n{auth}Content-Length: 2\r\n"
    "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "bad chunk": "POST {path} HTTP/1.1\r\nHost: x\r\n{auth}Transfer-Encoding: chunked\r\n\r\nzz\r\ncanary\r\n",
    "bare line feeds": "POST {path} HTTP/1.1\nHost: x\ncanary\n\n",
    "a blank in a name": "POST {path} HTTP/1.1\r\nHost: x\r\ncanary : x\r\n\r\n",
    "NUL": "POST {path} HTTP/1.1\r\nHost: x\r\nX: canary\0\r\n\r\n",
    "no version": "POST {path}canary\r\n\r\n",
    "TLS": "\x16\x03\x01\x02\x00canary",
    "long line": "POST {path}?" + "canary" * 20000 + " HTTP/1.1\r\nHost: x\r\n\r\n",
    "many headers": "POST {path} HTTP/1.1\r\n" + "X: canary\r\n" * 20000 + "\r\n",
}


@pytest.mark.parametrize("name", list(RAW))
async def test_what_is_no_http_is_refused_and_not_repeated(bench, engine, caplog, name):
    """400 or a closed connection; no engine is asked, and no log line holds the bytes."""
    caplog.set_level(logging.INFO)
    auth = f"Authorization: Bearer {bench.token()}\r\nContent-Type: application/json\r\n"
    raw = RAW[name].replace("{path}", CHAT).replace("{auth}", auth).replace("{{}}", "{}")
    host, port = bench.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(raw.encode("latin-1"))
        writer.write_eof()
        answer = await asyncio.wait_for(reader.read(), 60)
    except ConnectionError:
        answer = b""
    finally:
        writer.close()
    assert not answer or answer.split()[1] in {b"400", b"413", b"414", b"431"}, answer[:100]
    assert not engine.calls
    assert "canary" not in caplog.text
