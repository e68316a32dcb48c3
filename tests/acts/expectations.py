"""What a scenario of ACTS expects of a value: its operators, paths and conditions, without I/O."""

import re
from enum import Enum
from itertools import pairwise


class Absent(Enum):
    """What stands where nothing is; by its name in the names of tests, too."""

    ABSENT = "absent"


ABSENT = Absent.ABSENT
"""In the place of a value that is not there."""
TYPES = {
    "string": str,
    "number": (int, float),
    "boolean": bool,
    "array": list,
    "object": dict,
    "null": type(None),
}
OVER = {
    "TASK_STATE_COMPLETED",
    "TASK_STATE_FAILED",
    "TASK_STATE_CANCELED",
    "TASK_STATE_REJECTED",
}


def _is(value, kind):
    return isinstance(value, TYPES[kind]) and (kind == "boolean" or not isinstance(value, bool))


def _size(value):
    return len(value) if isinstance(value, list) else -1


def _number(value):
    return value if _is(value, "number") else float("nan")


OPERATORS = {
    "type": lambda wanted, value: value is not ABSENT and _is(value, wanted),
    "exists": lambda wanted, value: (value is not ABSENT) == wanted,
    "absent": lambda wanted, value: (value is ABSENT) == wanted,
    "contains": lambda wanted, value: isinstance(value, str) and wanted in value,
    "matches": lambda wanted, value: (
        isinstance(value, str) and re.search(wanted, value) is not None
    ),
    "starts_with": lambda wanted, value: isinstance(value, str) and value.startswith(wanted),
    "ends_with": lambda wanted, value: isinstance(value, str) and value.endswith(wanted),
    "gte": lambda wanted, value: _number(value) >= wanted,
    "lte": lambda wanted, value: _number(value) <= wanted,
    "gt": lambda wanted, value: _number(value) > wanted,
    "lt": lambda wanted, value: _number(value) < wanted,
    "count": lambda wanted, value: _size(value) == wanted,
    "count_gte": lambda wanted, value: _size(value) >= wanted,
    "count_lte": lambda wanted, value: 0 <= _size(value) <= wanted,
    "items": lambda wanted, value: _size(value) >= 0 and not wrong_items(wanted, value),
    "one_of": lambda wanted, value: any(not wrong(each, value) for each in wanted),
    "any_of": lambda wanted, value: any(not wrong(each, value) for each in wanted),
    "all_of": lambda wanted, value: all(not wrong(each, value) for each in wanted),
    "not": lambda wanted, value: bool(wrong(wanted, value)),
}
"""By name, whether a value is as wanted (section 5.1; the suites have `items`, too)."""


def wrong_items(wanted, value):
    """Whether an array is wrong by one assertion for each item, or by a list of them for the first."""
    if isinstance(wanted, list):
        return bool(wrong(wanted, value))
    return any(wrong(wanted, each) for each in value)


def operates(assertion):
    """Whether a map is one of operators, and not of fields: a field may be named `type`, too."""
    return bool(assertion) and all(
        key in OPERATORS and not (key == "type" and isinstance(wanted, dict))
        for key, wanted in assertion.items()
    )


def wrong(assertion, value, where="it"):
    """What is wrong with a value; "" if nothing is."""
    if isinstance(assertion, dict) and operates(assertion):
        failed = [key for key, wanted in assertion.items() if not OPERATORS[key](wanted, value)]
        return f"{where} is {_shown(value)}: {failed[0]} {assertion[failed[0]]}" if failed else ""
    if isinstance(assertion, dict):
        fields = value if isinstance(value, dict) else {}
        found = (
            wrong(each, fields.get(key, ABSENT), f"{where}.{key}")
            for key, each in assertion.items()
        )
        return next(filter(None, found), "")
    if isinstance(assertion, list):
        items = value if isinstance(value, list) else []
        found = (
            wrong(each, items[number] if number < len(items) else ABSENT, f"{where}[{number}]")
            for number, each in enumerate(assertion)
        )
        return next(filter(None, found), "")
    return "" if value == assertion else f"{where} is {_shown(value)}, not {assertion!r}"


def _shown(value):
    return "absent" if value is ABSENT else repr(value)[:80]


def places(path, value):
    """The values at a path such as `task.artifacts[*].parts[0]`."""
    found = [value]
    for name, number in re.findall(r"([\w@$-]+)|\[(\*|\d+)\]", path):
        if name:
            found = [each[name] for each in found if isinstance(each, dict) and name in each]
        elif number == "*":
            found = [item for each in found if isinstance(each, list) for item in each]
        else:
            at = int(number)
            found = [each[at] for each in found if isinstance(each, list) and at < len(each)]
    return found


def holds(condition, value):
    """Whether a condition of a repetition is true (section 9.1)."""
    path, operator, wanted = re.fullmatch(r"(\S+) (==|!=|in) (.+)", condition).groups()
    (found,) = places(path, value) or [ABSENT]
    if operator == "in":
        return found in [each.strip() for each in wanted.strip("[]").split(",")]
    return (str(found) == wanted) == (operator == "==")


def collected(assertion, value):
    """What is wrong by an assertion about a collection (section 5.5); "" if nothing is."""
    for name, count in (("any", any), ("all", all), ("none", lambda each: not any(each))):
        if name in assertion:
            rule = assertion[name]
            good = [not wrong(rule["match"], each) for each in places(rule["path"], value)]
            if not count(good):
                return f"{name} of {rule['path']} is not {rule['match']}"
    if "match" in assertion:
        (place,) = places(assertion.get("path", ""), value) or [ABSENT]
        return wrong(assertion["match"], place, assertion.get("path", "it"))
    return ""


def regress(states):
    """Where states go back (section 7.1); "" if they do not."""
    for before, after in pairwise(states):
        if before in OVER or (after == "TASK_STATE_SUBMITTED" != before):
            return f"{before} is followed by {after}"
    return ""
