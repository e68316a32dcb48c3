"""The jars that make a Kafka broker: pinned by SHA-256, fetched once, checked before use.

`kafka-jars.txt` beside this file lists coordinate and digest of each. They come from Maven
Central through jgo, one by one: resolved transitively, Maven's nearest-wins rule would pick other
versions than Kafka's own release ships. Repositories in the user's jgo settings (section
`[repositories]` of `~/.config/jgo.conf`) are asked first, so a company's mirror serves as well.
"""

import hashlib
import os
import pwd
import shutil
import stat
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from typing import Final

from msgspec import Struct

from odradek.infra.app.local_kafka.errors import JarDiffers, JarsUnavailable, NoDisk

KAFKA_VERSION: Final = "4.3.1"
THREADS: Final = 8
TRIES: Final = 3

Progress = Callable[[int, int, str], None]
"""Called with how many jars are in place, how many there are, and the name of the last one."""

Download = Callable[["Jar", Path], Path]
"""Fetches a jar into a folder and returns where it lies; raises what its library raises."""


class Jar(Struct, frozen=True):
    """One pinned jar."""

    group: str
    artifact: str
    version: str
    sha256: str

    @property
    def file_name(self) -> str:
        """The jar's name in the cache folder."""
        return f"{self.artifact}-{self.version}.jar"


def cache_dir() -> Path:
    """The cache folder, for files that can be fetched again.

    `ODRADEK_CACHE_DIR`, else `odradek` in the user's cache folder (XDG base directory rules), else,
    for users who have no home or may not write there, a folder of theirs among temporary files.

    Raises NoDisk where that folder is open to others.
    """
    home = _home_dir()
    if configured := os.environ.get("ODRADEK_CACHE_DIR"):
        if configured.startswith("~") and home is None:
            raise NoDisk(
                f"ODRADEK_CACHE_DIR={configured}: this user has no home: name a whole path"
            )
        return Path(configured).expanduser().absolute()
    xdg = Path(os.environ.get("XDG_CACHE_HOME", ""))
    users = xdg if xdg.is_absolute() else home / ".cache" if home else None
    if users is not None and _usable(users / "odradek"):
        return users / "odradek"
    return _among_temporary_files()


def _home_dir() -> Path | None:
    """The user's home; None without one, as in containers whose user is a mere number."""
    try:
        home = Path(os.environ.get("HOME") or pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:
        return None
    return home if home.is_absolute() else None


def _usable(folder: Path) -> bool:
    """Whether a folder is there, or can be made."""
    with suppress(OSError):
        if folder.is_dir():
            return True
        above = next(parent for parent in folder.parents if parent.exists())
        return above.is_dir() and os.access(above, os.W_OK | os.X_OK)
    return False


def _among_temporary_files() -> Path:
    folder = Path(tempfile.gettempdir()) / f"odradek-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        state = folder.lstat()
    except OSError as error:
        raise NoDisk(f"cannot write {folder}: {error.strerror}; set ODRADEK_CACHE_DIR") from error
    # Jars are checked before they are used: between the two nobody else may change them.
    if state.st_uid != os.getuid() or stat.S_IMODE(state.st_mode) & 0o022 or folder.is_symlink():
        raise NoDisk(f"{folder} is open to other users: remove it, or set ODRADEK_CACHE_DIR")
    return folder


def pinned() -> tuple[Jar, ...]:
    """The jars of `kafka-jars.txt`, in its order."""
    text = (
        files("odradek.infra.app.local_kafka")
        .joinpath("kafka-jars.txt")
        .read_text(encoding="ascii")
    )
    rows = (line.split() for line in text.splitlines() if line.strip())
    return tuple(
        Jar(group, artifact, version, digest)
        for coordinate, digest in rows
        for group, artifact, version in [coordinate.split(":")]
    )


def jars_dir() -> Path:
    """Where the jars of this Kafka version are kept."""
    return cache_dir() / "jars" / f"kafka-{KAFKA_VERSION}"


def missing(folder: Path | None = None) -> tuple[Jar, ...]:
    """The pinned jars that are not in the cache yet; asks no network."""
    folder = folder or jars_dir()
    return tuple(jar for jar in pinned() if not (folder / jar.file_name).exists())


def fetch_jars(
    folder: Path | None = None,
    *,
    progress: Progress | None = None,
    download: Download | None = None,
) -> list[Path]:
    """Put every pinned jar into the folder and return their paths, in the order of the list.

    Jars that are there already are only checked, without any network. A jar gets its final name
    after its digest was right, so the folder never holds half a jar, whenever we die, and two
    processes that fetch at once do no harm.

    Raises:
        JarDiffers: A jar, cached or fetched, is not the pinned one.
        JarsUnavailable: A jar could not be fetched.
        NoDisk: The folder cannot be written.
    """
    folder = folder or jars_dir()
    jars = pinned()
    absent = missing(folder)
    for jar in jars:
        if jar not in absent:
            _check(jar, folder / jar.file_name, cached=True)
    if absent:
        _fetch(absent, folder, len(jars), progress, download or _download_with_jgo)
    elif progress:
        progress(len(jars), len(jars), jars[-1].file_name)
    return [folder / jar.file_name for jar in jars]


def _download_with_jgo(jar: Jar, folder: Path) -> Path:
    """Fetch one jar, without what it depends on, into a folder laid out like a Maven repository."""
    from jgo.config import GlobalSettings
    from jgo.constants import MAVEN_CENTRAL_URL
    from jgo.maven import MavenContext

    own = GlobalSettings.load().repositories if _home_dir() else {}
    repositories = own if "central" in own else {**own, "central": MAVEN_CENTRAL_URL}
    # A context of its own for each jar: jgo does not say that its contexts are thread-safe.
    context = MavenContext(repo_cache=folder, remote_repos=repositories, timeout=30)
    component = context.project(jar.group, jar.artifact).at_version(jar.version)
    return Path(component.artifact().resolve())


def _fetch(
    absent: tuple[Jar, ...],
    folder: Path,
    total: int,
    progress: Progress | None,
    download: Download,
) -> None:
    done = total - len(absent)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".fetch-", dir=folder))
    except OSError as error:
        raise NoDisk(f"cannot write {folder}: {error.strerror}; set ODRADEK_CACHE_DIR") from error
    try:
        with ThreadPoolExecutor(THREADS) as pool:
            futures = [pool.submit(_fetch_one, jar, folder, temporary, download) for jar in absent]
            try:
                for future in as_completed(futures):
                    done += 1
                    name = future.result()
                    if progress:
                        progress(done, total, name)
            finally:
                pool.shutdown(wait=True, cancel_futures=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _fetch_one(jar: Jar, folder: Path, temporary: Path, download: Download) -> str:
    for attempt in range(1, TRIES + 1):
        with tempfile.TemporaryDirectory(dir=temporary) as own:
            try:
                path = download(jar, Path(own))
            # jgo raises RuntimeError for "not found" and requests' errors, which are OSErrors.
            except (OSError, RuntimeError, AssertionError) as error:
                if attempt == TRIES:
                    raise JarsUnavailable(_unavailable(jar, error)) from error
                time.sleep(0.5 * attempt)
                continue
            _check(jar, path, cached=False)
            path.replace(folder / jar.file_name)
            return jar.file_name
    raise AssertionError("unreachable")


def _check(jar: Jar, path: Path, *, cached: bool) -> None:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest == jar.sha256:
        return
    if cached:
        advice = f"remove {path} and run `odradek kafka fetch`"
    else:
        advice = "your Maven repository or a proxy on the way changed it: fetch from elsewhere"
    raise JarDiffers(
        f"{jar.file_name} has SHA-256 {digest[:16]}…, pinned is {jar.sha256[:16]}…: {advice}"
    )


def _unavailable(jar: Jar, error: Exception) -> str:
    reason = "no space left on the disk" if getattr(error, "errno", None) == 28 else ""
    with suppress(IndexError):
        reason = reason or f"{type(error).__name__}: {str(error).splitlines()[0][:160]}"
    return (
        f"cannot fetch {jar.group}:{jar.artifact}:{jar.version} ({reason}); "
        "check the network or name your mirror in ~/.config/jgo.conf, [repositories], "
        "or use your own Kafka: ODRADEK_KAFKA_BOOTSTRAP_SERVERS"
    )
