"""The jars of the local broker: pinned, checked, fetched once."""

import hashlib
from pathlib import Path

import pytest

from odradek.infra.app.local_kafka import jars
from odradek.infra.app.local_kafka.errors import JarDiffers, JarsUnavailable, NoDisk
from odradek.infra.app.local_kafka.jars import Jar, cache_dir, fetch_jars, missing, pinned

CONTENT = {"one": b"first jar", "two": b"second jar"}
LIST = tuple(
    Jar("org.example", name, "1.0", hashlib.sha256(content).hexdigest())
    for name, content in CONTENT.items()
)


@pytest.fixture
def repository(monkeypatch: pytest.MonkeyPatch):
    """A list of two jars, and a download that serves them and counts."""
    monkeypatch.setattr(jars, "pinned", lambda: LIST)
    monkeypatch.setattr(jars.time, "sleep", lambda _: None)
    served: list[str] = []

    def download(jar: Jar, folder: Path) -> Path:
        served.append(jar.artifact)
        path = folder / "some.jar"
        path.write_bytes(CONTENT[jar.artifact])
        return path

    download.served = served
    return download


def test_the_package_pins_46_jars_by_sha256():
    """The list that ships has 46 jars, each with a digest, each with a file name of its own."""
    found = pinned()
    assert len(found) == 46
    assert {len(jar.sha256) for jar in found} == {64}
    assert len({jar.file_name for jar in found}) == 46


def test_every_kafka_jar_is_of_the_version_that_we_name():
    """KAFKA_VERSION is what the list holds."""
    versions = {jar.version for jar in pinned() if jar.group == "org.apache.kafka"}
    assert versions == {jars.KAFKA_VERSION}


def test_jars_are_fetched_once(repository, tmp_path):
    """The second call downloads nothing, so it needs no network."""
    expected = [tmp_path / "one-1.0.jar", tmp_path / "two-1.0.jar"]
    assert fetch_jars(tmp_path, download=repository) == expected
    assert fetch_jars(tmp_path, download=repository) == expected
    assert sorted(repository.served) == ["one", "two"]


def test_progress_counts_every_jar(repository, tmp_path):
    """Who draws a bar is told of each jar, up to the last."""
    told: list[tuple[int, int]] = []
    fetch_jars(tmp_path, download=repository, progress=lambda n, of, _: told.append((n, of)))
    assert told == [(1, 2), (2, 2)]


def test_a_corrupted_cached_jar_is_refused(repository, tmp_path):
    """A jar that changed on the disk never runs; the message names the file and what to do."""
    fetch_jars(tmp_path, download=repository)
    (tmp_path / "two-1.0.jar").write_bytes(b"something else")
    with pytest.raises(JarDiffers, match=r"remove .*two-1\.0\.jar and run `odradek kafka fetch`"):
        fetch_jars(tmp_path, download=repository)


def test_a_fetched_jar_that_differs_never_reaches_the_cache(monkeypatch, repository, tmp_path):
    """What a repository sends wrongly is refused, and nothing of it is left."""
    monkeypatch.setitem(CONTENT, "two", b"changed on the way")
    with pytest.raises(JarDiffers, match="Maven repository"):
        fetch_jars(tmp_path, download=repository)
    assert not (tmp_path / "two-1.0.jar").exists()
    assert [path.name for path in tmp_path.iterdir()] in ([], ["one-1.0.jar"])


def test_a_failing_download_is_tried_again(repository, tmp_path):
    """Two failures of one jar are survived."""
    failures = iter([OSError("reset"), RuntimeError("not found")])

    def flaky(jar: Jar, folder: Path) -> Path:
        if jar.artifact == "two" and (error := next(failures, None)) is not None:
            raise error
        return repository(jar, folder)

    assert len(fetch_jars(tmp_path, download=flaky)) == 2


def test_no_network_is_one_line_that_says_what_to_do(repository, tmp_path):
    """The error names the jar and the ways out, and is worth another try later."""

    def offline(jar: Jar, folder: Path) -> Path:
        raise ConnectionError("no route\nto host")

    with pytest.raises(JarsUnavailable, match="ODRADEK_KAFKA_BOOTSTRAP_SERVERS") as caught:
        fetch_jars(tmp_path, download=offline)
    assert caught.value.retriable
    assert "\n" not in str(caught.value)
    assert missing(tmp_path) == LIST


def test_a_cache_that_cannot_be_written_is_one_line(repository, tmp_path):
    """A file where the folder should be."""
    (tmp_path / "file").write_text("")
    with pytest.raises(NoDisk, match="ODRADEK_CACHE_DIR"):
        fetch_jars(tmp_path / "file" / "jars", download=repository)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"ODRADEK_CACHE_DIR": "/own", "XDG_CACHE_HOME": "/xdg"}, "/own"),
        ({"XDG_CACHE_HOME": "/xdg"}, "/xdg/odradek"),
        ({}, "/home/ada/.cache/odradek"),
    ],
)
def test_where_the_cache_is(monkeypatch, variables, expected):
    """Our own variable wins over the desktop's, which wins over the home folder."""
    for name in ("ODRADEK_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/ada")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cache_dir() == Path(expected)
