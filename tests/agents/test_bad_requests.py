"""Each rule on bad input has its answer: A2A's own error, or a dead letter with its reason."""

import json

import pytest

from odradek.agents.binding.requests import LARGEST
from tests.support.agents.conformance_agent import ConformanceAgent

from .conftest import told, value_of

BOMB = b'{"message": {"messageId": "%s", "role": "ROLE_USER", "parts": [{"data": ' + b"[" * 5000
GET = b'{"id": "absent"}'


def message(name, **fields):
    part = fields.pop("part", {"text": "x"})
    sent = {"messageId": name, "role": "ROLE_USER", "parts": [part], **fields}
    return json.dumps({"message": sent}).encode()


def push(url):
    return json.dumps({"taskId": "absent", "id": "p", "url": url}).encode()


# Rule, headers that differ, value (None: a good message), dead letter's reason, error's reason.
RULES = [
    ("no version means 0.3", {"a2a-version": None}, None, "bad_version", None),
    ("version 0.3", {"a2a-version": "0.3"}, None, "bad_version", None),
    ("a later major version", {"a2a-version": "2.0"}, None, "bad_version", None),
    ("no operation", {"a2a-operation": None}, None, "no_operation", None),
    ("an unknown operation", {"a2a-operation": "DropTable"}, None, None, "METHOD_NOT_FOUND"),
    ("a doubled header", {"+a2a-operation": "CancelTask"}, None, "duplicate_header", None),
    ("a doubled header in another case", {"+A2A-Tenant": "x", "a2a-tenant": "y"}, None,
     "duplicate_header", None),
    ("a header that is no UTF-8", {"a2a-tenant": b"\xff"}, None, "bad_header", None),
    ("a deadline without a zone", {"a2a-deadline": "2030-01-01T00:00:00"}, None, "bad_header", None),
    ("replies to another topic", {"a2a-reply-topic": "rl.rewards.v1"}, None, "bad_reply_address", None),
    ("replies to another agent's requests", {"a2a-reply-topic": "a2a.requests.player"}, None,
     "bad_reply_address", None),
    ("replies to a topic that is absent", {"a2a-reply-topic": "a2a.replies.nobody"}, None,
     "bad_reply_address", None),
    ("replies to a partition that is absent", {"a2a-reply-partition": "99"}, None,
     "bad_reply_address", None),
    ("a reply partition below 0", {"a2a-reply-partition": "-1"}, None, "bad_header", None),
    ("no value", {}, b"TOMBSTONE", "tombstone", "INVALID_REQUEST"),
    ("no JSON", {}, b"{", "not_json", "INVALID_REQUEST"),
    ("too large", {}, message("%s", part={"text": "x" * LARGEST}), "too_large", "INVALID_REQUEST"),
    ("a nested bomb", {}, BOMB, "too_deep", "INVALID_REQUEST"),
    ("half a character", {}, message("%s").replace(b'"x"', b'"\\ud800"'), "not_json",
     "INVALID_REQUEST"),
    ("no parts", {}, message("%s", parts=[]), None, "INVALID_PARAMS"),
    ("a part that the card refuses", {}, message("%s", part={"url": "http://x", "mediaType": "image/png"}),
     None, "CONTENT_TYPE_NOT_SUPPORTED"),
    ("a task that is absent", {"a2a-operation": "GetTask"}, GET, None, "TASK_NOT_FOUND"),
    ("a follow-up to a task that is absent", {}, message("%s", taskId="absent"), None,
     "TASK_NOT_FOUND"),
    ("a task without an id", {"a2a-operation": "GetTask"}, b"{}", "bad_schema", "INVALID_REQUEST"),
    ("push where none is served", {"a2a-operation": "CreateTaskPushNotificationConfig"},
     push("http://127.0.0.1/"), None, "PUSH_NOTIFICATION_NOT_SUPPORTED"),
]  # fmt: skip


def request(number, changed, value):
    """Headers and value of the request for a rule."""
    name = f"r{number}"
    headers = {
        "a2a-version": "1.0",
        "a2a-operation": "SendMessage",
        "a2a-correlation-id": name,
        "a2a-reply-topic": "a2a.replies.tests",
        "a2a-reply-partition": "0",
        "content-type": "application/json",
    }
    more = []
    for header, text in changed.items():
        if header.startswith("+"):
            more.append((header[1:], text.encode()))
        else:
            headers[header] = text
    pairs = [
        (header, text if isinstance(text, bytes) else text.encode())
        for header, text in headers.items()
        if text is not None
    ]
    if value == b"TOMBSTONE":
        return [*pairs, *more], None
    body = message(name) if value is None else value.replace(b"%s", name.encode())
    return [*pairs, *more], body


def reasons(reply):
    """A2A's reasons in an error, or the name of JSON-RPC's where A2A has none."""
    error = value_of(reply)["error"]
    return {str(detail.get("reason")) for detail in error.get("details", [])} | {error["status"]}


@pytest.mark.broker
async def test_each_rule_has_its_answer_and_the_host_serves_on(stage):
    """A dead letter, an error, or both where somebody waits for a reply at an allowed address."""
    await stage.host(ConformanceAgent(), training=False)
    prefix = stage.bus.topic_prefix
    for number, (_, changed, value, _, _) in enumerate(RULES):
        topic = changed.get("a2a-reply-topic", "a2a.replies.tests")
        headers, body = request(number, {**changed, "a2a-reply-topic": prefix + topic}, value)
        await stage.request(body, headers, key=f"r{number}")
    headers, body = request("good", {"a2a-reply-topic": f"{prefix}a2a.replies.tests"}, None)
    await stage.request(body, headers, key="rgood")
    wanted = sum(rule[3] is not None for rule in RULES)

    async def answers():
        letters = {
            r.key: dict(r.headers)["dlq-reason"].decode()
            for r in await stage.read("a2a.dlq.player")
        }
        replies = {r.key: r for r in await stage.read("a2a.replies.tests")}
        done = len(letters) >= wanted and "rgood" in replies
        return (letters, replies) if done else None

    letters, replies = await stage.until(answers)
    assert "200" == told(replies.pop("rgood"))["a2a-status"]
    shown = {
        rule: (
            letters.get(f"r{n}"),
            sorted(reasons(replies[f"r{n}"])) if f"r{n}" in replies else None,
        )
        for n, (rule, *_) in enumerate(RULES)
    }
    wrong = {
        rule: shown[rule]
        for rule, _, _, letter, error in RULES
        if letter != shown[rule][0]
        or (error is None) is not (shown[rule][1] is None)
        or (error is not None and error not in shown[rule][1])
    }
    assert {} == wrong
    tasks = {record.key for record in await stage.read("a2a.tasks.player")}
    assert 1 == len(tasks)
