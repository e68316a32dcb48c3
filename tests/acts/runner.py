"""Runs the scenarios of ACTS against a subject: each passes, fails with a reason, or is skipped."""

import asyncio
import os
import re
from pathlib import Path
from uuid import uuid4

import httpx
import yaml

from .expectations import collected, holds, places, regress, wrong
from .transports import STREAMS

ALIASES = {"statusUpdate": "status_update", "artifactUpdate": "artifact_update"}


class Failure(Exception):
    """What a scenario expects is not so."""


class Skip(Exception):
    """A scenario is not for this subject, or not for this runner."""


def scenarios(folder):
    """Every scenario below a folder, with the variables of its file."""
    for path in sorted(Path(folder).glob("*.acts.yaml")):
        document = yaml.safe_load(path.read_text())
        for suite in document.get("suites", ()):
            for test in suite["tests"]:
                yield path.name.split(".")[0], test, document.get("variables", {})


async def outcome(subject, test, variables):
    """How a scenario ends: `passed`, `failed` or `skipped`, and why."""
    try:
        await Run(subject, variables).all(test)
    except Skip as why:
        return "skipped", str(why)
    except Failure as why:
        return "failed", str(why)
    except (httpx.HTTPError, TimeoutError) as error:
        return "failed", repr(error)
    return "passed", ""


def states(events):
    """The states that a stream's events show, in their order."""
    found = (
        places("status.state", event) or places("task.status.state", event) for event in events
    )
    return [state for (state, *_) in filter(None, found)]


def flat(event):
    """An event as scenarios speak of it: by its kind, and by the fields of what it holds."""
    (inner,) = list(event.values())[:1] or [{}]
    named = {ALIASES.get(kind, kind): value for kind, value in event.items()}
    return {**(inner if isinstance(inner, dict) else {}), **named}


class Run:
    """One scenario's run, and what its steps have captured.

    Args:
        subject: The agent under test.
        variables: Of the scenario's file.
    """

    def __init__(self, subject, variables):
        self._subject = subject
        self._known = dict(variables)

    async def all(self, test):
        """Run a scenario. Raises Failure or Skip."""
        transports = test.get("transport")
        if transports and self._subject.transport not in transports:
            raise Skip(f"for {', '.join(transports)}")
        if any("client_response" in step for step in test["steps"]):
            raise Skip("about a client")
        if "runner-special" in test.get("tags", ()):
            raise Skip("its steps do not say what a runner has to do")
        wanted = test.get("preconditions", {}).get("capabilities", {})
        shown = (await self._subject.card()).body.get("capabilities", {})
        for name, value in wanted.items():
            if shown.get(name, False) != value:
                raise Skip(f"for an agent with {name}: {str(value).lower()}")
        for step in test["steps"]:
            await self._step(step)
        for assertion in test.get("assertions", ()):
            self._collect(assertion)

    async def _step(self, step):
        if "assertion" in step:
            self._collect(step["assertion"])
            return
        await asyncio.sleep(step.get("delay_ms", 0) / 1000)
        repeat = step.get("repeat", {})
        for _ in range(repeat.get("max_attempts", 10)):
            answer = await self._asked(step)
            if not repeat or holds(repeat["until"], answer.body):
                break
            await asyncio.sleep(repeat.get("delay_ms", 1000) / 1000)
        else:
            raise Failure(f"{step['id']}: never {repeat['until']}")
        self._known[f"{step['id']}.response"] = answer.body
        for name, path in step.get("capture", {}).items():
            found = places(path, answer.body)
            if not found:
                raise Failure(f"{step['id']}: nothing at {path}")
            self._known[f"{step['id']}.{name}"] = found[0]
        self._judge(step, answer)
        for assertion in step.get("assertions", ()):
            self._collect(assertion)

    async def _asked(self, step):
        if "raw" in step:
            return await self._subject.raw(self._filled(step["raw"]))
        return await self._subject.ask(step["operation"], self._filled(step.get("params") or {}))

    def _judge(self, step, answer):
        expected = self._filled({key: step[key] for key in step if key.startswith("expect")})
        error = expected.get("expect_error")
        if error is not None:
            self._refused(error, answer, step["id"])
        elif "raw" not in step and answer.error and "error" not in expected.get("expect", {}):
            raise Failure(f"{step['id']}: {answer.error}: {answer.message}")
        if "expect" in expected:
            self._match(expected["expect"], answer, step)
        if "expect_stream" in expected:
            self._stream(expected["expect_stream"], answer, step["id"])

    def _match(self, expected, answer, step):
        body = {
            key: value
            for key, value in expected.items()
            if key not in ("status", "body", "headers")
        }
        body.update(expected.get("body") or {})
        why = wrong(body, answer.body, step["id"])
        if not why and "raw" in step:
            why = wrong(expected.get("status", 200), answer.status, f"{step['id']}: the status")
        if not why and step.get("operation") in STREAMS and body == {} and not answer.events:
            why = f"{step['id']}: no event"
        if why:
            raise Failure(why)

    def _refused(self, expected, answer, where):
        if not answer.error:
            raise Failure(f"{where}: it is not refused, but {str(answer.body)[:80]}")
        name = expected.get("error_type", expected.get("code"))
        good = name is None or not wrong(name, answer.error) or not wrong(name, answer.number)
        why = "" if good else f"{where}: {answer.error} ({answer.number}), not {name}"
        why = why or ("message" in expected and wrong(expected["message"], answer.message, where))
        if why:
            raise Failure(why)

    def _stream(self, expected, answer, where):
        if answer.error:
            raise Failure(f"{where}: {answer.error}: {answer.message}")
        events = [flat(event) for event in answer.events]
        why = wrong(
            {
                "count_gte": expected.get("min_count", 1),
                "count_lte": expected.get("max_count", 9999),
            },
            events,
            where,
        )
        if "final_event" in expected:
            why = why or wrong(expected["final_event"], events[-1] if events else {}, where)
        if "ordering" in expected:
            why = why or regress(states(answer.events))
        for event in events if "each_event" in expected else ():
            why = why or wrong(expected["each_event"], event, where)
        for number, given in enumerate(expected.get("events", ())):
            rule = {
                key: given[key] for key in given if key not in ("description", "match", "index")
            }
            at = given.get("index", number)
            among = events if given.get("match") == "any_position" else events[at : at + 1]
            if all(wrong(rule, event) for event in among):
                why = why or f"{where}: no event is {rule}"
        if why:
            raise Failure(why)

    def _collect(self, assertion):
        source = self._filled(assertion["source"])
        if why := collected(self._filled(assertion), source):
            raise Failure(why)

    def _filled(self, value):
        """With each `{{…}}` replaced by what it names. Raises Failure."""
        if isinstance(value, dict):
            return {key: self._filled(each) for key, each in value.items()}
        if isinstance(value, list):
            return [self._filled(each) for each in value]
        if not isinstance(value, str):
            return value
        if whole := re.fullmatch(r"\{\{([^{}]+)\}\}", value):
            return self._named(whole[1].strip())
        return re.sub(r"\{\{([^{}]+)\}\}", lambda found: str(self._named(found[1].strip())), value)

    def _named(self, name):
        if name == "$uuid":
            return str(uuid4())
        if name.startswith("env."):
            return os.environ.get(name.removeprefix("env."), "")
        if name not in self._known:
            raise Failure(f"nothing is known as {name}")
        return self._known[name]
