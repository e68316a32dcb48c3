"""The abstract operations of ACTS over JSON-RPC and REST, and what they answer without its wrapping."""

import json
import re
from uuid import uuid4

import msgspec
from a2a.utils.errors import A2A_ERROR_MAPPING, JSON_RPC_ERROR_CODE_MAP

VERSION = {"A2A-Version": "1.0"}
STREAMS = {"send_streaming_message", "subscribe_to_task"}
SENDS = {"send_message", "send_streaming_message"}
CARD = "/.well-known/agent-card.json"
METHODS = {
    "send_message": "SendMessage",
    "send_streaming_message": "SendStreamingMessage",
    "get_task": "GetTask",
    "list_tasks": "ListTasks",
    "cancel_task": "CancelTask",
    "subscribe_to_task": "SubscribeToTask",
    "set_push_notification_config": "CreateTaskPushNotificationConfig",
    "get_push_notification_config": "GetTaskPushNotificationConfig",
    "list_push_notification_configs": "ListTaskPushNotificationConfigs",
    "delete_push_notification_config": "DeleteTaskPushNotificationConfig",
    "get_extended_agent_card": "GetExtendedAgentCard",
}
CONFIGS = "/tasks/{taskId}/pushNotificationConfigs"
PATHS = {
    "send_message": ("POST", "/message:send"),
    "send_streaming_message": ("POST", "/message:stream"),
    "get_task": ("GET", "/tasks/{id}"),
    "list_tasks": ("GET", "/tasks"),
    "cancel_task": ("POST", "/tasks/{id}:cancel"),
    "subscribe_to_task": ("GET", "/tasks/{id}:subscribe"),
    "set_push_notification_config": ("POST", CONFIGS),
    "get_push_notification_config": ("GET", f"{CONFIGS}/{{id}}"),
    "list_push_notification_configs": ("GET", CONFIGS),
    "delete_push_notification_config": ("DELETE", f"{CONFIGS}/{{id}}"),
    "get_extended_agent_card": ("GET", "/extendedAgentCard"),
}
CODES = {code: error.__name__ for error, code in JSON_RPC_ERROR_CODE_MAP.items()}
REASONS = {row.reason: error.__name__ for error, row in A2A_ERROR_MAPPING.items()}


class Answer(msgspec.Struct, frozen=True):
    """What an operation answers."""

    status: int
    body: object = None
    """A2A's own object; of an error, `{"error": …}`."""
    error: str = ""
    """The name of A2A's error."""
    number: int = 0
    """Its code, in JSON-RPC or HTTP."""
    message: str = ""
    events: tuple = ()
    headers: dict = {}


def completed(operation, params):
    """Parameters as A2A 1.0 has them: some scenarios put a message's own fields beside it."""
    params = json.loads(json.dumps(params))
    if operation in SENDS:
        message = params.setdefault("message", {})
        message.setdefault("messageId", str(uuid4()))
        for name in ("taskId", "contextId"):
            if name in params:
                message.setdefault(name, params.pop(name))
    params.update(params.pop("pushNotificationConfig", {}))
    return params


async def events_of(answer, unwrap):
    """The events of a stream of server-sent events."""
    return tuple([
        unwrap(json.loads(line.partition(":")[2]))
        async for line in answer.aiter_lines()
        if line.startswith("data:")
    ])  # fmt: skip


def failed(status, error):
    """The answer that an error object is: JSON-RPC's, or REST's."""
    details = error.get("details") or error.get("data") or []
    reasons = [each.get("reason", "") for each in details if isinstance(each, dict)]
    names = [REASONS[reason] for reason in reasons if reason in REASONS]
    name = CODES.get(error.get("code")) or (names[0] if names else "")
    return Answer(
        status=status,
        body={"error": error},
        error=name,
        number=error.get("code", status),
        message=error.get("message", ""),
    )


class Subject:
    """An agent under test, over one transport.

    Args:
        http: An HTTP client.
        transport: `jsonrpc` or `rest`.
        address: The agent's, where its card and its JSON-RPC are.
        rest: Where its REST is.
    """

    def __init__(self, http, transport, address, rest):
        self._http = http
        self.transport = transport
        self._address = address
        self._rest = rest

    async def card(self):
        """The agent's card."""
        answer = await self._http.get(self._address + CARD)
        return Answer(answer.status_code, answer.json(), headers=dict(answer.headers))

    async def ask(self, operation, params):
        """Do an abstract operation."""
        if operation == "get_agent_card":
            if not params.get("extended"):
                return await self.card()
            operation, params = "get_extended_agent_card", {}
        params = completed(operation, params)
        if self.transport == "jsonrpc":
            body = {"jsonrpc": "2.0", "id": "1", "method": METHODS[operation], "params": params}
            return await self._exchange(operation, "POST", self._address, body, {})
        method, path = PATHS[operation]
        for name in re.findall(r"\{(\w+)\}", path):
            path = path.replace(f"{{{name}}}", str(params.pop(name, "")))
        query = params if method == "GET" else {}
        text = {
            key: str(value).lower() if value in (True, False) else value
            for key, value in query.items()
        }
        body = params if method == "POST" else None
        return await self._exchange(operation, method, self._rest + path, body, text)

    async def _exchange(self, operation, method, url, body, query):
        asked = self._http.build_request(method, url, json=body, params=query, headers=VERSION)
        answer = await self._http.send(asked, stream=True)
        try:
            kind = answer.headers.get("content-type", "")
            if kind.startswith("text/event-stream"):
                events = await events_of(answer, self._unwrapped)
                return Answer(answer.status_code, events=events)
            text = await answer.aread()
        finally:
            await answer.aclose()
        return self._read(answer.status_code, json.loads(text) if text else {})

    def _unwrapped(self, event):
        return event.get("result", event)

    def _read(self, status, body):
        if isinstance(body, dict) and "error" in body:
            return failed(status, body["error"])
        return Answer(status, self._unwrapped(body) if self.transport == "jsonrpc" else body)

    async def raw(self, request):
        """Send what a raw step says, to the transport's own root; the body as it comes."""
        root = self._address if self.transport == "jsonrpc" else self._rest
        path = request["path"].rstrip("/")
        if path.startswith("/.well-known"):
            root = self._address
        body = request.get("body")
        content = request.get("body_raw") or (json.dumps(body) if body is not None else None)
        answer = await self._http.request(
            request["method"], root + path, content=content, headers=request.get("headers")
        )
        try:
            value = answer.json()
        except ValueError:
            value = answer.text
        return Answer(answer.status_code, value, headers=dict(answer.headers))
