"""A client of gateways: one message, and its stream over however many connections it takes."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import msgspec

from tests.chaos.verification.stream_checks import Stream

TRY_S = 20.0
"""How long one try may take; the next goes to another gateway."""
PAUSE_S = 0.5
ENDS = frozenset({"TASK_STATE_COMPLETED", "TASK_STATE_FAILED"})


class StreamClient:
    """Sends a message and reads its stream to the end, whichever gateways die meanwhile.

    Args:
        number: Which gateway it asks first.
        message: The message's id and its text.
        gateways: Addresses of the agent at each gateway, ending in `/v1`.
    """

    def __init__(self, number: int, message: str, gateways: Sequence[str]) -> None:
        self.message = message
        self._first = number
        self._gateways = gateways
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.begun: list[int] = []
        """For each connection, how many events it had seen before."""

    @property
    def over(self) -> bool:
        """Whether it has seen the end of its task."""
        return bool(self.events) and _state(self.events[-1][1]) in ENDS

    async def run(self, http: httpx.AsyncClient, journal: Path) -> None:
        """Send the message again, with the last id, until the task's end was seen; write it down."""
        part = {"text": self.message}
        body = {"message": {"messageId": self.message, "role": "ROLE_USER", "parts": [part]}}
        while not self.over:
            gateway = self._gateways[(self._first + len(self.begun)) % len(self._gateways)]
            self.begun.append(len(self.events))
            headers = {"A2A-Version": "1.0"}
            if self.events:
                headers["Last-Event-ID"] = self.events[-1][0]
            try:
                async with (
                    asyncio.timeout(TRY_S),
                    http.stream(
                        "POST", f"{gateway}/message:stream", json=body, headers=headers
                    ) as answer,
                ):
                    await self._read(answer)
            except (httpx.HTTPError, TimeoutError):
                await asyncio.sleep(PAUSE_S)
        with journal.open("ab", buffering=0) as file:
            file.write(msgspec.json.encode(self.seen()) + b"\n")

    def seen(self) -> Stream:
        """What it has seen of its task."""
        first = self.events[0][1].get("task", {}) if self.events else {}
        artifacts = [
            *first.get("artifacts", []),
            *(
                event["artifactUpdate"]["artifact"]
                for _, event in self.events
                if "artifactUpdate" in event
            ),
        ]
        return Stream(
            message=self.message,
            task=first.get("id", ""),
            generations=[int(name.split(".")[2]) for name, _ in self.events],
            words=[part["text"] for artifact in artifacts for part in artifact["parts"]],
            state=_state(self.events[-1][1]) if self.events else "",
            connections=len(self.begun),
        )

    async def _read(self, answer: httpx.Response) -> None:
        name = ""
        async for line in answer.aiter_lines():
            field, _, text = line.partition(": ")
            if field == "id":
                name = text
            elif field == "data" and name:
                self.events.append((name, msgspec.json.decode(text)))
                name = ""


def _state(event: dict[str, Any]) -> str:
    """The state that an event shows; "" where it shows none."""
    shown = event.get("statusUpdate") or event.get("task") or {}
    return str(shown.get("status", {}).get("state", ""))
