"""Which tool call a piece of a reply belongs to, however an engine numbers and names its calls.

OpenAI's servers give each call an index, count from 0, and send id and name once, in the call's
first piece. Others give every call the index 0, begin at 1, leave index or id out, repeat id and
name in each piece, make an id anew for each, or send arguments as an object. What comes out here is
OpenAI's way, so clients, the log and the translators read the same. ollama#15457, litellm#5231
"""

import hashlib
from typing import Any

import msgspec
from msgspec import Struct


class Piece(Struct):
    """What a piece of a stream says of a call."""

    index: int | None
    """As the engine counts; None where it does not."""
    id: str
    name: str
    arguments: str
    typed: bool
    """Whether it says what kind of tool it is, as first pieces do."""


class Call(Struct):
    """A call that has begun."""

    index: int | None
    ids: set[str]
    """Those that the engine gave it."""
    name: str
    arguments: list[str]

    @property
    def complete(self) -> bool:
        """Whether its arguments are a whole JSON object."""
        if not self.arguments or not self.arguments[-1].rstrip().endswith("}"):
            return False
        try:
            return isinstance(msgspec.json.decode("".join(self.arguments)), dict)
        except (msgspec.MsgspecError, RecursionError):
            return False

    def is_followed_by(self, piece: Piece) -> bool:
        """Whether a piece without an id begins another call of the same index."""
        if not piece.name or not self.name:
            return False
        if piece.name == self.name:
            return bool(piece.arguments) and self.complete
        # A name may come in pieces, but not once its arguments have begun.
        return piece.typed or bool(self.arguments)


class ToolCalls:
    """The calls of one choice of a stream.

    Args:
        seed: What the ids of calls without one are made of.
    """

    def __init__(self, seed: str) -> None:
        self._seed = seed
        self._calls: list[Call] = []
        self._early = ""
        """An id that came before the name and the arguments of its call."""

    def mended(self, pieces: list[Any]) -> list[Any]:
        """The pieces of one chunk, in OpenAI's way; the list itself where they are that already."""
        found = []
        same = True
        for place, piece in enumerate(pieces):
            told = self._mended(piece, place if len(pieces) > 1 else None)
            if told is None:
                same = False
                continue
            same = same and told == piece and type(piece.get("index")) is int
            found.append(told)
        return pieces if same else found

    def _mended(self, given: Any, place: int | None) -> dict[str, Any] | None:
        if not isinstance(given, dict):
            return None
        function = given.get("function")
        if not isinstance(function, dict):
            if any(isinstance(value, dict) for value in given.values()):
                return given  # another kind of tool than functions
            function = {}
        piece = read(given, function, place)
        if not piece.id and piece.name and self._early:
            piece.id, self._early = self._early, ""
        at = self._place(piece)
        if at is None:
            return self._begun(given, function, piece)
        call = self._calls[at]
        other = bool(call.ids) and piece.id not in call.ids
        if piece.id and other and not piece.name and not piece.arguments:
            self._early = piece.id
            return None
        return _added(given, function, piece, call, at)

    def _begun(self, given: dict[str, Any], function: Any, piece: Piece) -> dict[str, Any]:
        """The first piece of a call."""
        at = len(self._calls)
        ids = {piece.id} if piece.id else set()
        arguments = [piece.arguments] if piece.arguments else []
        self._calls.append(Call(piece.index, ids, piece.name, arguments))
        told = {
            **given,
            "index": at,
            "id": piece.id or made_up(self._seed, at),
            "type": given.get("type") or "function",
            "function": {**function, "name": piece.name},
        }
        return _spelt(told, piece)

    def _place(self, piece: Piece) -> int | None:
        """Which call the piece goes on with; None for a new one."""
        at = self._latest(piece.index)
        if piece.id:
            return self._named(piece, at)
        if at is None:
            # Arguments without a name can only be those of a call that is there.
            last = len(self._calls) - 1
            goes_on = last >= 0 and not piece.name and not self._calls[last].complete
            return last if goes_on else None
        return None if self._calls[at].is_followed_by(piece) else at

    def _named(self, piece: Piece, at: int | None) -> int | None:
        """The same for a piece with an id."""
        known = [place for place, call in enumerate(self._calls) if piece.id in call.ids]
        for place in reversed(known):
            if piece.index is None or self._calls[place].index in {None, piece.index}:
                return place
        if known and not piece.name:
            return known[-1]
        if at is None:
            return None
        # Another id is another call, unless the call was still without one, or an engine makes the
        # id anew for each piece: then no name comes with it, and the arguments go on.
        call = self._calls[at]
        if not call.ids:
            return at if piece.name in {"", call.name} and not call.complete else None
        return None if piece.name or (piece.arguments and call.complete) else at

    def _latest(self, index: int | None) -> int | None:
        """The newest call with this index; without one, the newest of all."""
        for place in range(len(self._calls) - 1, -1, -1):
            if index is None or self._calls[place].index == index:
                return place
        return None


def read(given: dict[str, Any], function: dict[str, Any], place: int | None) -> Piece:
    """What a piece says; `place` counts where the engine does not."""
    index = whole_number(given.get("index"))
    named, name = given.get("id"), function.get("name")
    return Piece(
        index=place if index is None else index,
        id=named if isinstance(named, str) else "",
        name=name if isinstance(name, str) else "",
        arguments=text_of(function.get("arguments")),
        typed=bool(given.get("type")),
    )


def _added(
    given: dict[str, Any], function: dict[str, Any], piece: Piece, call: Call, at: int
) -> dict[str, Any]:
    """A further piece of a call: its id was said, and so was a name that is repeated."""
    told = {**given, "index": at}
    if not piece.typed:
        told.pop("type", None)  # clients take null for another type
    if piece.id:
        told.pop("id", None)
        call.ids.add(piece.id)
    if piece.name and piece.name == call.name:
        function = {name: value for name, value in function.items() if name != "name"}
    else:
        call.name += piece.name
    if piece.arguments:
        call.arguments.append(piece.arguments)
    if "function" in given:
        told["function"] = function
    return _spelt(told, piece)


def _spelt(told: dict[str, Any], piece: Piece) -> dict[str, Any]:
    """The same, its arguments text."""
    function = told.get("function") or {}
    if not isinstance(function.get("arguments"), str | None):
        told["function"] = {**function, "arguments": piece.arguments}
    return told


def whole_calls(calls: list[Any], seed: str) -> list[Any]:
    """The calls of a whole message, in OpenAI's way."""
    told = []
    for place, call in enumerate(one for one in calls if isinstance(one, dict)):
        named = call.get("id")
        id_ = named if isinstance(named, str) and named else made_up(seed, place)
        made = {**call, "id": id_, "type": call.get("type") or "function"}
        if "index" in call:
            made["index"] = place
        function = call.get("function")
        if isinstance(function, dict) or made["type"] == "function":
            function = function if isinstance(function, dict) else {}
            piece = read(call, function, None)
            made["function"] = {**function, "name": piece.name, "arguments": piece.arguments}
        told.append(made)
    return told


def made_up(seed: str, place: int) -> str:
    """An id for a call that has none; a repeat of the reply has the same."""
    return "call_" + hashlib.sha256(f"{seed}:{place}".encode()).hexdigest()[:24]


def text_of(arguments: Any) -> str:
    """A call's arguments as text."""
    if arguments is None or isinstance(arguments, str):
        return arguments or ""
    return msgspec.json.encode(arguments).decode()


def whole_number(value: Any) -> int | None:
    """A number that counts something, however it is written; None for anything else."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 16:
        return int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        return None
    return value
