"""What an agent says is data: it chooses no address, no file, no code, no model and no route."""

import ast
import asyncio
import json
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote

import pytest
from msgspec import Raw

import odradek.proxy
from odradek.proxy.dialects import blocklist
from odradek.proxy.errors import Unsupported
from odradek.proxy.settings import ProxySettings

CHAT = "/v1/chat/completions"
NAMES = [
    "..",
    "../../etc/passwd",
    "..%2f..%2fetc%2fpasswd",
    "....//",
    "/etc/passwd",
    "\\\\host\\share",
    "C:\\Windows\\win.ini",
    "con",
    "~root",
    "$(id)",
    "`id`",
    "a;b",
    "a\nb",
    "a\r\nX: y",
    "a\0b",
    "%00",
    "{episode}",
    "__class__",
    "' OR 1=1 --",
    "<script>",
    "é\u202e\u2028",
    "x" * 300,
    "*",
    "seal",
]
"""Path corpus: as an episode, a model, an agent's or a tool's name."""


def addresses(port):
    """SSRF corpus: loopback in all spellings, metadata services, odd schemes."""
    return [
        f"http://127.0.0.1:{port}/",
        f"http://localhost:{port}/",
        f"http://127.1:{port}/",
        f"http://2130706433:{port}/",
        f"http://0x7f000001:{port}/",
        f"http://0177.0.0.1:{port}/",
        f"http://[::1]:{port}/",
        f"http://[::ffff:127.0.0.1]:{port}/",
        f"http://good.example@127.0.0.1:{port}/",
        f"http://127.0.0.1:{port}#@good.example/",
        f"//127.0.0.1:{port}/",
        "http://169.254.169.254/latest/meta-data/",
        "http://[fd00:ec2::254]/",
        "http://10.0.0.1/",
        "file:///etc/passwd",
        "gopher://127.0.0.1:9092/_x",
        "data:image/png;base64,AAAA",
    ]


@asynccontextmanager
async def trap():
    """A port that nobody should reach, and what reached it."""
    reached = []

    async def note(reader, writer):
        reached.append(await reader.readline())
        writer.close()

    server = await asyncio.start_server(note, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], reached


def said(url):
    """A request in which every field that somebody might follow holds an address."""
    return {
        "model": url,
        "api_base": url,
        "base_url": url,
        "api_key": "sk-of-the-agent",
        "webhook_url": url,
        "metadata": {"callback": url},
        "mcp_servers": [{"url": url, "command": "touch", "args": ["owned"]}],
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": url},
                    {"type": "image_url", "image_url": {"url": url}},
                    {"type": "file", "file": {"file_id": url}},
                ],
            }
        ],
    }


async def test_no_address_in_a_request_is_followed(bench, engine):
    """Images by reference and all else go to the engine as they are; the engine key goes nowhere."""
    async with trap() as (port, reached):
        for number, url in enumerate(addresses(port)):
            status, _, _ = await bench.post(
                f"/e/e{number}{CHAT}",
                said(url),
                token=bench.token(f"e{number}"),
                headers={"Forwarded": f"host={url}", "X-Api-Base": url, "Referer": url},
            )
            assert status in {200, 500}  # the stub's template knows no parts
        assert not reached
    assert [call["messages"] for call in engine.calls] == [
        said(url)["messages"] for url in addresses(port)
    ]


async def test_a_client_set_api_base_does_not_get_the_engines_key(make, engine):
    """CVE-2024-6587: the key goes to the engine that the settings name, whatever the request says."""
    async with trap() as (port, reached), make(engine_key="sk-engine-secret") as bench:
        body = said(f"http://127.0.0.1:{port}/") | {"messages": [{"role": "user", "content": "x"}]}
        status, headers, answer = await bench.post(CHAT, body, token=bench.token())
        assert status == 200
        assert not reached
        assert engine.headers[0]["Authorization"] == "Bearer sk-engine-secret"
        assert b"sk-engine-secret" not in answer + str(headers).encode()
        for record in bench.log.records:
            assert b"sk-engine-secret" not in record.value


@pytest.mark.parametrize("name", NAMES)
async def test_an_episodes_name_is_a_name_and_nothing_else(bench, engine, name):
    """Refused, or recorded under exactly this name; never a path, a header or a pattern."""
    path = f"/e/{quote(name, safe='')}{CHAT}"
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
    status, headers, answer = await bench.post(path, body, token=bench.token(name))
    assert status in {200, 400, 401, 404}
    assert "X" not in headers
    assert b"root:" not in answer
    assert {record.key for record in bench.log.records} == ({name} if status == 200 else set())
    assert (status == 200) == bool(engine.calls)


@pytest.mark.parametrize("name", NAMES)
async def test_names_inside_a_request_choose_nothing(bench, engine, name, tmp_path, monkeypatch):
    """Model, agent, tool and function names are passed on and recorded."""
    monkeypatch.chdir(tmp_path)
    tool = {"type": "function", "function": {"name": name, "parameters": {}}}
    body = {
        "model": name,
        "tools": [tool],
        "user": name,
        "messages": [{"role": "user", "content": name, "name": name}],
    }
    status, _, _ = await bench.post(CHAT, body, token=bench.token(agent=name))
    assert status == 200
    (turn,) = bench.turns()
    assert (name, name) == (turn.model, turn.agent)
    assert engine.calls[0]["tools"] == [tool]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"prompt_embeds": "AAAA"}, "prompt_embeds"),
        ({"kv_transfer_params": {"remote_host": "10.0.0.1"}}, "kv_transfer_params"),
        ({"logits_processors": ["os.system"]}, "logits_processors"),
        ({"chat_template": "{% for x in range(10**9) %}{% endfor %}"}, "chat_template"),
        ({"chat_template_kwargs": {"tokenize": True}}, "chat_template_kwargs.tokenize"),
        ({"chat_template_kwargs": {"chat_template": "x"}}, "chat_template_kwargs.chat_template"),
        ({"chat_template_kwargs": [1]}, "chat_template_kwargs"),
        ({"messages": [{"role": "user", "content": [{"type": "image_embeds"}]}]}, "messages[0]"),
        (
            {"messages": [
                {"role": "user", "content": "x"},
                {"role": "user", "content": [{"type": "audio_embeds"}]},
            ]},
            "messages[1]",
        ),
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", [CHAT, "/v1/messages", "/v1/responses", "/v1/completions"])
async def test_what_would_reach_the_engines_innards_is_refused(bench, engine, path, more, field):
    """CVE-2025-62164 (tensors), CVE-2025-62426 (the template's arguments), and their like."""
    plain = {"role": "user", "content": "x"}
    body = {"model": "m", "max_tokens": 9, "messages": [plain], "input": "x", **more}
    if path == "/v1/completions":
        body["prompt"] = "x"
    status, _, answer = await bench.post(path, body, token=bench.token())
    if status == 200:  # a dialect that does not pass the field on
        assert not any(name in call for call in engine.calls for name in more if name != "messages")
        return
    assert status == 400
    assert field.split(".")[0].encode() in answer or path == "/v1/messages"
    assert not engine.calls


@pytest.mark.parametrize(
    "name",
    [
        "add_generation_prompt", "chat_template", "continue_final_message", "conversation",
        "max_length", "padding", "return_assistant_tokens_mask", "return_dict", "return_tensors",
        "tokenize", "tokenizer_kwargs", "truncation",
    ],
)  # fmt: skip
def test_no_argument_of_the_rendering_itself_can_be_set(name):
    """Whatever its value; and no arguments at all are none."""
    for value in (None, True, "x"):
        fields = {"chat_template_kwargs": Raw(json.dumps({"x": 1, name: value}).encode())}
        with pytest.raises(Unsupported, match=f"chat_template_kwargs.{name}:"):
            blocklist.refuse(fields)
    blocklist.refuse({"chat_template_kwargs": Raw(b"null")})


async def test_a_template_may_still_be_told_how_to_write(bench, engine):
    """Names of the template's own pass, as does text that merely looks like one of ours."""
    body = {
        "model": "m",
        "chat_template_kwargs": {"enable_thinking": False},
        "chat_template": None,
        "messages": [{"role": "user", "content": "image_embeds \u00e9"}],
    }
    assert (await bench.post(CHAT, body, token=bench.token()))[0] == 200
    assert engine.calls[0]["chat_template_kwargs"] == {"enable_thinking": False}


async def test_escapes_hide_no_tensor(bench, engine):
    """A name is the same name however it is spelt."""
    body = b'{"model":"m","messages":[{"role":"user","content":[{"type":"image\\u005fembeds"}]}]}'
    assert (await bench.post(CHAT, body, token=bench.token()))[0] == 400
    assert not engine.calls


FORBIDDEN = {
    "subprocess", "pickle", "marshal", "shelve", "ctypes", "pty", "multiprocessing", "yaml", "torch",
}  # fmt: skip
CALLS = {"eval", "exec", "compile", "__import__", "system", "popen", "create_subprocess_exec",
         "create_subprocess_shell", "import_module"}  # fmt: skip


def test_the_proxy_can_run_nothing():
    """CVE-2026-42271: no command of a caller's. There is no code that starts one, or unpickles."""
    files = list(Path(odradek.proxy.__file__).resolve().parent.rglob("*.py"))
    assert len(files) > 20
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                assert not {name.name.split(".")[0] for name in node.names} & FORBIDDEN, file
            elif isinstance(node, ast.ImportFrom):
                assert (node.module or "").split(".")[0] not in FORBIDDEN, file
            elif isinstance(node, ast.Call):
                called = getattr(node.func, "attr", getattr(node.func, "id", ""))
                bare = isinstance(node.func, ast.Name) or called != "compile"
                assert not (bare and called in CALLS), f"{file}:{node.lineno}"


def test_settings_are_printed_masked():
    """Keys and the addresses' credentials are in no log."""
    settings = ProxySettings(engine_key="sk-engine-secret")
    assert "sk-engine-secret" not in repr(settings) + str(settings) + settings.model_dump_json()
    assert json.loads(settings.model_dump_json())["engine_key"] == "**********"


def test_it_listens_on_loopback_unless_told():
    """127.0.0.1, and tokens are wanted."""
    settings = ProxySettings()
    assert ("127.0.0.1", "required", False) == (settings.host, settings.auth, settings.unattributed)
