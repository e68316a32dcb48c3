"""Which tool call a piece of a reply belongs to, however an engine numbers and names its calls.

OpenAI's servers give each call an index, count from 0, and send id and name once, in the call's
first piece. Others give every call the index 0, begin at 1, leave index or id out, repeat id and
name in each piece, make an id anew for each, give several calls one id, or send arguments as an
object or null. What comes out here has OpenAI's shape, so clients, the log and the translators read
the same. ollama#15457, litellm#5231
"""

import hashlib
from typing import Any, Final

import msgspec
from msgspec import Struct

TEXTS: Final = {"function": "arguments", "custom": "input"}
"""A call's type, and the field of its object that holds the model's text."""


class CallPiece(Struct):
    """A stream's piece of a tool call."""

    kind: str
    """Which of `TEXTS` it is."""
    held: dict[str, Any]
    """Its object with the fields of the function, or of the text tool."""

    index: int | None
    """The engine's index; None if it gives none."""
    id: str
    name: str
    arguments: str
    typed: bool
    """Whether it says what kind of tool it is, as first pieces do."""


class StreamedCall(Struct):
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

    def is_followed_by(self, piece: CallPiece) -> bool:
        """Whether a piece of the same index, its id the same or none, begins another call."""
        if not piece.name or not self.name:
            return False
        if piece.name == self.name:
            return bool(piece.arguments) and self.complete
        if piece.id:
            return self.complete
        # A name may come in pieces, but not once its arguments have begun.
        return piece.typed or bool(self.arguments)

    def is_repeated_by(self, piece: CallPiece) -> bool:
        """Whether a piece says the whole call again, as some gateways do at a call's end."""
        same = bool(self.ids) and (not piece.id or piece.id in self.ids)
        return same and bool(piece.arguments) and piece.arguments == "".join(self.arguments)


class ToolCalls:
    """The calls of one choice of a stream.

    Args:
        seed: What the ids of calls without one are made of.
    """

    def __init__(self, seed: str) -> None:
        self._seed = seed
        self._calls: list[StreamedCall] = []
        self._early = ""
        """An id that came before the name and the arguments of its call."""
        self._again: tuple[int, CallPiece] | None = None
        """A name that was repeated behind a whole call: it begins another, if arguments follow."""
        self._fresh = 0
        """How many calls there were when the chunk came."""

    def mended(self, pieces: list[Any]) -> list[Any]:
        """The pieces of one chunk, in OpenAI's way; the list itself where they are that already."""
        mended_pieces = []
        same = True
        self._fresh = len(self._calls)
        for place, piece in enumerate(pieces):
            mended = self._mended(piece, place if len(pieces) > 1 else None)
            if mended is None:
                same = False
                continue
            same = same and mended == piece and type(piece.get("index")) is int
            mended_pieces.append(mended)
        return pieces if same else mended_pieces

    def _mended(self, raw: Any, place: int | None) -> dict[str, Any] | None:
        if not isinstance(raw, dict):
            return None
        if not any(isinstance(raw.get(kind), dict) for kind in TEXTS) and any(
            isinstance(value, dict) for value in raw.values()
        ):
            return raw  # another kind of tool
        piece = read(raw, place)
        if not piece.id and piece.name and self._early:
            piece.id, self._early = self._early, ""
        at = self._place(piece)
        if at is None:
            return self._begun(raw, piece)
        call = self._calls[at]
        return None if self._is_void(piece, call, at) else _added(raw, piece, call, at)

    def _is_void(self, piece: CallPiece, call: StreamedCall, at: int) -> bool:
        """Whether a piece adds nothing to its call; an id or a name may be for what comes."""
        if piece.name and piece.name == call.name and call.complete:
            if not piece.arguments:
                self._again = at, piece
            return not piece.arguments or call.is_repeated_by(piece)
        other = bool(call.ids) and piece.id not in call.ids
        if piece.id and other and not piece.name and not piece.arguments:
            self._early = piece.id
            return True
        return False

    def _begun(self, raw: dict[str, Any], piece: CallPiece) -> dict[str, Any]:
        """The first piece of a call."""
        at = len(self._calls)
        has_own_id = bool(piece.id) and all(piece.id not in call.ids for call in self._calls)
        ids = {piece.id} if piece.id else set()
        arguments = [piece.arguments] if piece.arguments else []
        self._calls.append(StreamedCall(piece.index, ids, piece.name, arguments))
        id_ = piece.id if has_own_id else _made_up(self._seed, at)
        return {**raw, "index": at, "id": id_, **_typed_tool(raw, piece)}

    def _place(self, piece: CallPiece) -> int | None:
        """Which call the piece goes on with; None for a new one."""
        at = self._latest(piece.index)
        again, self._again = self._again, None
        if again is not None and again[0] == at and piece.arguments:
            # The name belonged to what comes now.
            piece.name, piece.id = again[1].name, piece.id or again[1].id
            return None
        if piece.id:
            return self._named(piece, at)
        if at is None:
            # Arguments without a name can only be those of a call that is there.
            last = len(self._calls) - 1
            goes_on = last >= 0 and not piece.name and not self._calls[last].complete
            return last if goes_on else None
        call = self._calls[at]
        if call.is_repeated_by(piece):
            return at
        # No engine names a call twice in one chunk.
        twice = at >= self._fresh and piece.name == call.name != ""
        return None if twice or call.is_followed_by(piece) else at

    def _named(self, piece: CallPiece, at: int | None) -> int | None:
        """The same for a piece with an id."""
        places = [place for place, call in enumerate(self._calls) if piece.id in call.ids]
        for place in reversed(places):
            call = self._calls[place]
            if piece.index is None or call.index in {None, piece.index}:
                goes_on = call.is_repeated_by(piece) or not call.is_followed_by(piece)
                return place if goes_on else None
        if places and not piece.name:
            return places[-1]
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


def read(raw: dict[str, Any], place: int | None) -> CallPiece:
    """Read a piece; `place` counts if the engine does not."""
    kind = "function"
    if not isinstance(raw.get(kind), dict) and isinstance(raw.get("custom"), dict):
        kind = "custom"
    held = raw.get(kind)
    held = held if isinstance(held, dict) else {}
    index = whole_number(raw.get("index"))
    call_id, name = raw.get("id"), held.get("name")
    return CallPiece(
        kind=kind,
        held=held,
        index=place if index is None else index,
        id=call_id if isinstance(call_id, str) else "",
        name=name if isinstance(name, str) else "",
        arguments=text_of(held.get(TEXTS[kind])),
        typed=bool(raw.get("type")),
    )


def _typed_tool(raw: dict[str, Any], piece: CallPiece) -> dict[str, Any]:
    """The type of a call, and its function or text tool, with all fields."""
    kind = raw.get("type")
    return {
        "type": kind if kind and kind not in TEXTS else piece.kind,
        piece.kind: {**piece.held, "name": piece.name, TEXTS[piece.kind]: piece.arguments},
    }


def _added(raw: dict[str, Any], piece: CallPiece, call: StreamedCall, at: int) -> dict[str, Any]:
    """A further piece of a call, without its id and without a name that is repeated."""
    added = {**raw, "index": at}
    if not piece.typed:
        added.pop("type", None)  # clients take null for another type
    if piece.id:
        added.pop("id", None)
        call.ids.add(piece.id)
    held = piece.held
    if piece.name and piece.name == call.name:
        held = {name: value for name, value in held.items() if name != "name"}
    else:
        call.name += piece.name
    if piece.arguments:
        call.arguments.append(piece.arguments)
    if piece.kind in raw:
        if not isinstance(held.get(TEXTS[piece.kind]), str | None):
            held = {**held, TEXTS[piece.kind]: piece.arguments}
        added[piece.kind] = held
    return added


def whole_calls(calls: list[Any], seed: str) -> list[Any]:
    """The calls of a whole message, in OpenAI's way."""
    whole: list[Any] = []
    ids: set[str] = set()
    for place, call in enumerate(entry for entry in calls if isinstance(entry, dict)):
        piece = read(call, None)
        id_ = piece.id if piece.id and piece.id not in ids else _made_up(seed, place)
        ids.add(id_)
        mended = {**call, "id": id_, "type": call.get("type") or piece.kind}
        if "index" in call:
            mended["index"] = place
        if piece.held or mended["type"] in TEXTS:
            mended |= _typed_tool(call, piece)
        whole.append(mended)
    return whole


def _made_up(seed: str, place: int) -> str:
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
