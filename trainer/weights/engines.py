"""Loading weights into running engines, over the surface that vLLM's development mode has."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import requests

from odradek.infra.crash import crash_point
from odradek.trainer.errors import EngineDown, EngineRefused

CALL_S: Final = 600.0
"""Longest single call: loading the weights of a large model."""
RESET: Final = {"reset_running_requests": "true", "reset_external": "true"}
"""Without the first, a reset does nothing while any request holds a block, as each that is kept
over the pause does, and answers 200 all the same; the second is for caches outside the engine. The
proxy salts its calls with the version besides, which needs no reset to succeed."""


class Engines:
    """All engines that serve a policy. No URL: a run without engines, as in a replay."""

    def __init__(
        self,
        urls: Sequence[str],
        *,
        timeout_s: float = 120.0,
        tell: Callable[[str], None] = lambda _: None,
        at: Callable[[str], None] = crash_point,
    ) -> None:
        self._urls = tuple(urls)
        self._timeout_s = timeout_s
        self._tell = tell
        self._at = at
        self._session = requests.Session()
        self._session.trust_env = False  # engines are ours: no proxy of the environment between

    def swap(self, folder: Path, version: int) -> None:
        """Have every engine load `folder` and call it `version`.

        Each engine is asked again from the start if it goes away in the middle (its supervisor
        restarts it), which changes nothing where it had already been done.

        Raises:
            EngineDown: One of them did not answer for `timeout_s`.
            EngineRefused: One of them answered with an error.
        """
        for url in self._urls:
            self._patiently(url, folder, version)

    def _patiently(self, url: str, folder: Path, version: int) -> None:
        deadline = time.monotonic() + self._timeout_s
        pause = 0.1
        told = False
        while True:
            try:
                self._swap_one(url, folder, version)
            except EngineDown:
                if time.monotonic() + pause > deadline:
                    raise
                if not told:
                    told = True
                    self._tell(f"engine {url} does not answer: waiting for it")
                time.sleep(pause)
                pause = min(pause * 2, 2.0)
            else:
                return

    def _swap_one(self, url: str, folder: Path, version: int) -> None:
        # mode=keep: requests under way stay and go on with the new weights; the engine's own
        # version spans tell which token came from which. The prefix cache holds keys and values
        # of the old weights, and pausing does not clear it.
        self._post(url, "/pause", params={"mode": "keep"})
        # From here on weights and version may disagree. Dying, or being refused, leaves the engine
        # paused: nothing is sampled under a wrong version, and the next start does all of it again.
        self._post(
            url,
            "/collective_rpc",
            json={"method": "reload_weights", "kwargs": {"weights_path": str(folder)}},
        )
        self._at("reloaded_before_version")
        self._post(url, "/update_weight_version", json={"new_version": str(version)})
        self._post(url, "/reset_prefix_cache", params=RESET)
        self._post(url, "/resume")

    def _post(self, url: str, path: str, **request: Any) -> None:
        try:
            answer = self._session.post(url + path, timeout=(5, CALL_S), **request)
        except (requests.ConnectionError, requests.Timeout) as error:
            raise EngineDown(f"no engine answers at {url}: start it, or correct its URL") from error
        if answer.status_code == 404 and path == "/update_weight_version":
            return  # an engine older than version spans: the proxy infers versions
        if not answer.ok:
            raise EngineRefused(
                f"the engine at {url} answered {answer.status_code} to {path}: "
                f"{answer.text[:200]!r} (vLLM needs VLLM_SERVER_DEV_MODE=1)"
            )
