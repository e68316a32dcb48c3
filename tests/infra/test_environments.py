"""Where people run it: HTTP proxies, locales, homes, empty variables, editors, addresses."""

import os
import subprocess
import sys
import tempfile
import urllib.request

import httpx
import pytest
import requests
from pydantic_settings import BaseSettings

from odradek.agents.push.settings import PushSettings
from odradek.agents.settings import GatewaySettings
from odradek.agents.trust.settings import TrustSettings
from odradek.infra.app.console.settings import ConsoleSettings
from odradek.infra.app.local_kafka import jars
from odradek.infra.app.local_kafka.errors import NoDisk
from odradek.infra.app.project import load
from odradek.infra.app.project.sections import KINDS, variable
from odradek.infra.app.project.tasks import read
from odradek.infra.archive import ArchiveSettings
from odradek.infra.errors import ProjectError
from odradek.infra.runtime.addresses import on_loopback
from odradek.infra.runtime.environment import direct, unusable
from odradek.infra.runtime.episode_tokens import TokenSettings
from odradek.infra.runtime.reward_signatures import JudgeSettings
from odradek.schemas.events import parsed

pytestmark = pytest.mark.processes

ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
OWN = ["127.0.0.1", "localhost", "::1"]


@pytest.mark.parametrize(
    ("environ", "urls", "expected"),
    [
        ({}, (), OWN),
        ({"NO_PROXY": "a, .corp"}, (), ["a", ".corp", *OWN]),
        ({"no_proxy": "a"}, (), ["a", *OWN]),
        ({"NO_PROXY": "a", "no_proxy": "b"}, (), ["a", "b", *OWN]),
        ({"NO_PROXY": "localhost,,"}, (), ["localhost", "127.0.0.1", "::1"]),
        ({"NO_PROXY": "*"}, (), ["*"]),
        ({"NO_PROXY": "a", "no_proxy": " * "}, (), ["*"]),
        ({}, ("http://proxy-box:8400/e/x/v1",), [*OWN, "proxy-box"]),
        ({}, ("http://[fd00::1]:8400/v1",), [*OWN, "fd00::1"]),
        ({"ODRADEK_PROXY_URL": "https://p"}, (), [*OWN, "p"]),
        ({"ODRADEK_ENGINE_URL": "http://e1:1, http://e2"}, (), [*OWN, "e1", "e2"]),
        ({"ODRADEK_ENGINE_URL": "http://e1:1/v1"}, (), [*OWN, "e1"]),
        ({"ODRADEK_ENGINE_URL": "http://[broken"}, (), OWN),
        ({"ODRADEK_ENGINE_URL": ""}, (), OWN),
        ({"NO_PROXY": "[::1],[fd00::1]"}, (), ["::1", "fd00::1", "127.0.0.1", "localhost"]),
    ],
)
def test_our_own_hosts_are_reached_directly(environ, urls, expected):
    """In both spellings, beside what the user has excepted already."""
    whole = ",".join(expected)
    assert {"NO_PROXY": whole, "no_proxy": whole} == direct(environ, *urls)


GIVEN = [
    "", "a", ".corp", "*.corp", "*corp", "10.0.0.0/8", "192.168.*", "a:80", "http://a", "a b", "a;b",
    "[::1]", "::1", "fd00::2", "[fd00::2]", "[fd00::2]:80", "fd00::/8", "::1/128", "fe80::1%eth0",
    "prüf.corp", "<local>", '"a"', "[", "a]", "::", ":", "host:", "http://[fd00::2]", "a::b:1",
]  # fmt: skip


HOSTS = ["127.0.0.1", "localhost", "[::1]", "engine-box", "[fd00::1]"]


@pytest.mark.parametrize("given", GIVEN)
def test_clients_that_agents_use_take_the_list(monkeypatch, given):
    """Httpx (OpenAI's and Anthropic's SDKs), requests and urllib go straight to our hosts.

    Whatever the user has excepted beside them, and in whatever spelling.
    """
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    listed = direct({"NO_PROXY": given}, "http://engine-box:8000", "http://[fd00::1]:1")
    for name, value in listed.items():
        monkeypatch.setenv(name, value)

    bare = given.removeprefix("[").removesuffix("]") if given.startswith("[") else given
    assert bare in listed["NO_PROXY"]
    with httpx.Client(verify=False) as client:
        assert client._transport is not client._transport_for_url(httpx.URL("http://elsewhere"))
        for host in HOSTS:
            url = f"http://{host}:8000/v1"
            assert client._transport is client._transport_for_url(httpx.URL(url))
            assert requests.utils.should_bypass_proxies(url, None)
            assert urllib.request.proxy_bypass(host.strip("[]"))


PROXIES = [
    "http://proxy:3128", "https://proxy", "proxy:3128", "proxy", "HTTP://proxy", "//proxy", "DIRECT",
    "http://user:word@proxy:1", "http://u:p@ss@proxy", "http://[fd00::1]:1", "", " ", " http://proxy ",
    "socks5://proxy:1080", "socks5h://proxy", "SOCKS5://proxy", "socks://127.0.0.1:1080/",
    "socks4://proxy", "socks4a://proxy", "ftp://proxy", "http://[::1", "http://proxy:port", "p:x",
    "http://proxy\n", "://proxy",
]  # fmt: skip


@pytest.mark.parametrize("url", PROXIES)
def test_a_proxy_that_sdks_refuse_is_taken_away(monkeypatch, url):
    """Httpx would raise at the first line of an agent: where it does not, the variable stays."""
    for name in [key for key in os.environ if key.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
        with monkeypatch.context() as patch:
            patch.setenv(name, url)
            try:
                httpx.Client(verify=False).close()
            except (ValueError, ImportError, httpx.InvalidURL):
                assert [name] == unusable(os.environ)
            else:
                assert [] == unusable(os.environ)


def test_what_is_taken_away_is_said(tmp_path):
    """In a line of the outermost verb, without the address, which may hold a password."""
    script = (
        "import os, sys; from odradek.infra.app.cli import main\ntry: main()\n"
        "except SystemExit: pass\nprint([k for k in os.environ if k.lower() == 'all_proxy'])"
    )
    environ = {
        **os.environ,
        "all_proxy": "socks://me:secret@127.0.0.1:9/",
        "HTTP_PROXY": "http://p",
    }
    done = subprocess.run(
        [sys.executable, "-c", script, "init", "p"],
        env=environ,
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert "[]" == done.stdout.splitlines()[-1]
    (line,) = done.stderr.splitlines()
    assert line.startswith("odradek: all_proxy is left out")
    assert "secret" not in line


def test_a_verb_completes_what_it_starts(tmp_path):
    """A process of ours, and so all that it starts, reaches loopback and its servers directly."""
    script = "import os, sys; from odradek.infra.app.cli import main\ntry: main()\nexcept SystemExit: pass\nprint(os.environ['no_proxy'])"
    environ = {**os.environ, "HTTP_PROXY": "http://127.0.0.1:9", "ODRADEK_PROXY_URL": "http://p:1"}
    environ.pop("NO_PROXY", None)
    environ.pop("no_proxy", None)
    done = subprocess.run(
        [sys.executable, "-c", script, "config"],
        env=environ,
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert ",".join([*OWN, "p"]) == done.stdout.splitlines()[-1], done.stderr


@pytest.mark.parametrize(
    ("environ", "folder"),
    [
        (ASCII, "prüf, a:b #1 %41 鼎"),
        (ASCII, "-x"),
        (ASCII, "a\nb"),
        ({"LC_ALL": "C"}, "prüf, a:b #1 %41 鼎"),
        ({**ASCII, "LC_ALL": "no_SUCH.locale"}, "prüf, a:b #1 %41 鼎"),
        ({"LC_ALL": "C.UTF-8", "PYTHONUTF8": "0"}, "prüf, a:b #1 %41 鼎"),
    ],
    ids=["ascii", "ascii-dash", "ascii-line", "C", "unknown", "utf-8"],
)
def test_a_folder_keeps_its_name_in_any_locale(tmp_path, environ, folder):
    """`init` makes it, says how to enter it, and `config` reads what lies there."""
    environ = {**os.environ, "PYTHONIOENCODING": "utf-8", **environ}
    odradek = [sys.executable, "-m", "odradek.infra.app.cli"]
    made = subprocess.run(
        [*odradek, "init", "--", folder],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        encoding="utf-8",
    )
    assert [tmp_path / folder] == list(tmp_path.iterdir()), made.stderr
    step = made.stdout.rpartition("next: ")[2].removesuffix(" && odradek up\n")
    went = subprocess.run(["sh", "-c", f"{step} && pwd"], cwd=tmp_path, capture_output=True)
    assert os.fsencode(tmp_path / folder) + b"\n" == went.stdout
    told = subprocess.run(
        [*odradek, "config"], cwd=tmp_path / folder, env=environ, capture_output=True
    )
    assert 0 == told.returncode, told.stderr
    assert b"odradek.toml" in told.stdout


def settings_classes() -> list[type[BaseSettings]]:
    """Every settings class of ours that reads the environment."""
    return [
        *dict.fromkeys(found for kind in KINDS.values() if (found := kind.settings())),
        ConsoleSettings,
        GatewaySettings,
        TrustSettings,
        PushSettings,
        TokenSettings,
        JudgeSettings,
        ArchiveSettings,
    ]


def test_the_table_holds_every_settings_class():
    """A settings class that is not in the table would not be tried."""

    def below(kind):
        for each in kind.__subclasses__():
            yield each
            yield from below(each)

    ours = {kind for kind in below(BaseSettings) if kind.__module__.startswith("odradek.")}
    assert ours <= set(settings_classes())


@pytest.mark.parametrize("kind", settings_classes(), ids=lambda kind: kind.__name__)
def test_an_empty_variable_counts_as_none(monkeypatch, kind):
    """Compose files and CI set variables to nothing; that is no value of any setting."""
    for key in kind.model_fields:
        monkeypatch.delenv(variable(kind, key), raising=False)
    expected = kind()
    for key in kind.model_fields:
        monkeypatch.setenv(variable(kind, key), "")
    assert expected == kind()


def test_an_empty_variable_does_not_hide_the_file(tmp_path):
    """Nor does an empty key of the file hide the default."""
    (tmp_path / "odradek.toml").write_text(
        '[kafka]\ntopic_prefix = "a."\n[engine]\nmodel = "m"\ndtype = ""\n'
    )
    project = load(tmp_path, {"ODRADEK_TOPIC_PREFIX": "", "ODRADEK_ENGINE_MODEL": ""})
    assert "a." == project.value("kafka", "topic_prefix")
    assert "m" == project.engine.model
    assert "float32" == project.value("engine", "dtype")


TEXTS = {
    "plain": lambda text: text.encode(),
    "CRLF": lambda text: text.replace("\n", "\r\n").encode(),
    "a byte order mark": lambda text: b"\xef\xbb\xbf" + text.encode(),
    "both": lambda text: b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode(),
    "no last line end": lambda text: text.rstrip("\n").encode(),
}


@pytest.mark.parametrize("written", TEXTS.values(), ids=TEXTS)
def test_files_of_any_editor_are_read(tmp_path, written):
    """A byte order mark and Windows' line ends are no part of a file."""
    (tmp_path / "odradek.toml").write_bytes(written('[[agents]]\nname = "h"\ncommand = "true"\n'))
    (tmp_path / "tasks.jsonl").write_bytes(
        written('{"agent": "h", "input": "ü"}\n\n{"agent": "h"}\n')
    )
    assert ["h"] == [agent.name for agent, _ in load(tmp_path, {}).agents]
    assert ["ü", None] == [parsed(task.input) for task in read(tmp_path / "tasks.jsonl")]


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_a_file_in_another_encoding_is_told(tmp_path, encoding):
    """In one line that names the file and what to do."""
    (tmp_path / "odradek.toml").write_text('[[agents]]\nname = "ü"\n', encoding=encoding)
    (tmp_path / "tasks.jsonl").write_text('{"agent": "ü"}', encoding=encoding)
    with pytest.raises(ProjectError, match=r"odradek\.toml is not in UTF-8 .*: save it in that"):
        load(tmp_path, {})
    with pytest.raises(ProjectError, match=r"tasks\.jsonl is not in UTF-8 .*: save it in that"):
        read(tmp_path / "tasks.jsonl")


def nobody(uid):
    raise KeyError(uid)


@pytest.fixture
def own_temporary(monkeypatch, tmp_path):
    """Temporary files of this test's own."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(folder))
    for name in ("ODRADEK_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    return folder / f"odradek-{os.getuid()}"


def test_the_cache_lies_in_the_users_home(monkeypatch, tmp_path, own_temporary):
    """Or where XDG_CACHE_HOME says, if that is a whole path, as its specification asks."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert tmp_path / "home" / ".cache" / "odradek" == jars.cache_dir()
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert tmp_path / "home" / ".cache" / "odradek" == jars.cache_dir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert tmp_path / "xdg" / "odradek" == jars.cache_dir()
    assert not own_temporary.exists()


@pytest.mark.parametrize("home", [None, "", "relative"])
def test_a_user_without_a_home_has_a_cache(monkeypatch, own_temporary, home):
    """Containers run as a number that no passwd file knows."""
    monkeypatch.setattr("pwd.getpwuid", nobody)
    monkeypatch.delenv("HOME", raising=False)
    if home is not None:
        monkeypatch.setenv("HOME", home)
    assert own_temporary == jars.cache_dir()
    assert 0o700 == own_temporary.stat().st_mode & 0o777
    monkeypatch.setenv("ODRADEK_CACHE_DIR", "~/cache")
    with pytest.raises(NoDisk, match="no home: name a whole path"):
        jars.cache_dir()


def test_a_home_that_cannot_be_written_is_not_used(monkeypatch, tmp_path, own_temporary):
    """What has been fetched there already is."""
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert own_temporary == jars.cache_dir()
    (tmp_path / ".cache" / "odradek").mkdir(parents=True)
    assert tmp_path / ".cache" / "odradek" == jars.cache_dir()


@pytest.mark.parametrize("how", ["writable", "link", "file"])
def test_a_cache_that_others_can_change_is_refused(monkeypatch, tmp_path, own_temporary, how):
    """Jars are run: nobody else may put one there."""
    monkeypatch.setattr("pwd.getpwuid", nobody)
    monkeypatch.delenv("HOME", raising=False)
    if how == "writable":
        own_temporary.mkdir()
        own_temporary.chmod(0o777)
    elif how == "link":
        own_temporary.symlink_to(tmp_path)
    else:
        own_temporary.write_text("")
    with pytest.raises(NoDisk, match="ODRADEK_CACHE_DIR"):
        jars.cache_dir()


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True), ("127.9.9.9", True), ("localhost", True), ("LocalHost", True),
        ("::1", True), ("0:0:0:0:0:0:0:1", True), ("::ffff:127.0.0.1", True),
        ("0.0.0.0", False), ("::", False), ("", False), ("10.0.0.1", False), ("fd00::1", False),
        ("localhost.evil.example", False), ("127.0.0.1.evil.example", False),
    ],
)  # fmt: skip
def test_loopback_is_known_in_every_spelling(host, expected):
    """Only there may calls come without a token."""
    assert expected is on_loopback(host)
