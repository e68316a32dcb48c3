"""Broad excepts: at most one for each process, else in a named helper that says why."""

import ast
from collections import Counter

import pytest

from tests.support.suite import house

BROAD = {"Exception", "BaseException"}

PROCESSES = {
    "agents/attempt/executor.py": "the agent host: a mistake of ours ends it, without a false seal",
    "infra/app/cli/__init__.py": "every verb: an error with a name becomes one line",
    "infra/bus/group.py": "dispatcher, host and stages: aiokafka would swallow what this callback raises",
    "proxy/app.py": "the proxy: a bug in one call must not end the calls of all other episodes",
    "trainer/feed/rollout_worker.py": "the trainer: what its reading thread raises goes to the main thread",
}
"""File: the process whose one broad except it holds, and why."""

HELPERS = {
    "schemas/numbers.py": "`_asked`: a person's number may raise anything",
    "trainer/commit/durable_files.py": "`room`: libraries in Rust raise a bare Exception for a full disk",
}
"""File: its helper with one broad except, and why."""

FOREIGN = {
    "agents/attempt/executor.py": (1, "a reward function of the agent's"),
    "infra/runtime/foreign_code.py": (1, "`answer_of`"),
    "streams/judges/judge.py": (1, "an async reward function"),
    "streams/judges/worker.py": (
        3,
        "a reward function: its import, its verdict, an alarm behind it",
    ),
}
"""File: uses of `ForeignCode`, a broad except by another name, and whose code it is."""


def names(node):
    """Names of the errors that an expression lists."""
    parts = node.elts if isinstance(node, ast.Tuple) else [node]
    return {
        part.attr if isinstance(part, ast.Attribute) else getattr(part, "id", "") for part in parts
    }


def broad(tree):
    """Lines of excepts and suppresses that take (nearly) everything."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler) and (node.type is None or BROAD & names(node.type)):
            yield node.lineno
        if isinstance(node, ast.Call) and names(node.func) == {"suppress"}:
            yield from (node.lineno for each in node.args if BROAD & names(each))


def foreign(tree):
    """Lines where `ForeignCode` is used."""
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and names(node.func) == {"ForeignCode"}
    ]


def counted(find):
    """How often each file has what `find` finds."""
    counts = Counter()
    for path in house.modules():
        if lines := list(find(ast.parse(path.read_text()))):
            counts[path.relative_to(house.ROOT).as_posix()] = len(lines)
    return dict(counts)


def test_every_broad_except_has_its_reason():
    """One a file, in the tables above; clean up and raise again by `ExitStack.pop_all()`."""
    assert dict.fromkeys(sorted({**PROCESSES, **HELPERS}), 1) == dict(
        sorted(counted(broad).items())
    )


def test_foreign_code_is_called_where_a_person_s_code_is():
    """As often as the table says."""
    assert {file: n for file, (n, _) in FOREIGN.items()} == counted(foreign)


@pytest.mark.parametrize(
    "text",
    [
        "try: f()\nexcept: pass",
        "try: f()\nexcept Exception: pass",
        "try: f()\nexcept (KeyError, builtins.BaseException) as e: pass",
        "with suppress(Exception): f()",
        "with contextlib.suppress(KeyError, BaseException): f()",
    ],
)
def test_the_count_sees_each_spelling(text):
    """The check itself."""
    assert 1 == len(list(broad(ast.parse(text))))
