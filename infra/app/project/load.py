"""Reading odradek.toml: every value with where it came from, every mistake in one line."""

import difflib
import json
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ValidationError
from pydantic_settings import BaseSettings

from odradek.infra.app.project.compatibility import check
from odradek.infra.app.project.project import LEVEL, Project, ProjectSection, SettingValue
from odradek.infra.app.project.sections import KINDS, SectionKind, secret, variable
from odradek.infra.app.project.text import read_text
from odradek.infra.app.variables import former_key
from odradek.infra.errors import ProjectError

FILE: Final = "odradek.toml"


def find(folder: Path) -> Path:
    """The project file of a folder. Raises ProjectError."""
    path = folder if folder.is_file() else folder / FILE
    if not path.is_file():
        raise ProjectError(
            f"there is no {FILE} in {folder}: `odradek init my-project` writes a project"
        )
    return path


def load(folder: Path, environ: Mapping[str, str] | None = None) -> Project:
    """The project of a folder (or of a file).

    Environment variables win over the file, the file over the defaults.

    Raises:
        ProjectError: For a file that is not there or no TOML, an unknown section or key (naming
            the nearest known one), a value of the wrong kind, or settings that cannot work
            together.
    """
    # An empty variable is what is left where a script clears one: it counts as none.
    environ = {k: v for k, v in (os.environ if environ is None else environ).items() if v}
    path = find(folder)
    try:
        text = tomllib.loads(read_text(path))
    except tomllib.TOMLDecodeError as error:
        raise ProjectError(f"{path} is no TOML: {error}") from error
    for name in text:
        _require_known(path, "section", f"[{name}]", name, KINDS)
    entries = {
        name: tuple(
            _entry(path, name, kind, _inherited(kind, text) | table, environ)
            for table in _tables(path, name, kind, text.get(name))
        )
        for name, kind in KINDS.items()
    }
    for section in ("agents", "trainers"):
        names = [entry.own.name for entry in entries[section]]  # type: ignore[union-attr] # both have names
        if len(set(names)) < len(names):
            raise ProjectError(f"{path}: two {section} share a name")
    project = Project(
        folder=path.parent.resolve(), path=path, entries=entries, written=frozenset(text)
    )
    check(project)
    return project


def _inherited(kind: SectionKind, text: Mapping[str, Any]) -> dict[str, Any]:
    """What a section takes from another one, before its own keys."""
    table = text.get(kind.base, {})
    if not isinstance(table, dict):  # which is refused at its own place
        return {}
    return {key: value for key, value in table.items() if key in kind.process_keys()}


def _tables(path: Path, name: str, kind: SectionKind, content: Any) -> list[dict[str, Any]]:
    if content is None:
        return [] if kind.many else [{}]
    written = f"[[{name}]]" if kind.many else f"[{name}]"
    tables = content if kind.many and isinstance(content, list) else [content]
    if kind.many != isinstance(content, list) or not all(isinstance(t, dict) for t in tables):
        raise ProjectError(f"{path}: {name} is written as {written}")
    return tables


def _require_known(path: Path, noun: str, written: str, name: str, names: Any) -> None:
    if name in names:
        return
    near = difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(sorted(names))}"
    raise ProjectError(f"{path}: unknown {noun} {written}: {hint}")


def _entry(
    path: Path, name: str, kind: SectionKind, table: dict[str, Any], environ: Mapping[str, str]
) -> ProjectSection:
    for key in table:
        if former := former_key(name, key):
            raise ProjectError(f"{path}: {name}.{key} {former}")
        if key in kind.withheld:
            raise ProjectError(f"{path}: {name}.{key} is decided by `odradek up`, not by the file")
        _require_known(path, "key", f"{name}.{key}", key, kind.keys())
    own_keys, process_keys = kind.own_keys(), kind.process_keys()
    own = _own(path, name, kind, {k: v for k, v in table.items() if k in own_keys}, environ)
    values = [] if kind.own is None or own is None else _own_values(path, name, own, table, environ)
    settings = kind.settings()
    if settings is not None:
        process_table = {key: value for key, value in table.items() if key in process_keys}
        values += _process_values(path, name, settings, process_table, process_keys, environ)
    return ProjectSection(own=own, values=tuple(values))


def _own_variable(section: str, key: str) -> str:
    return f"ODRADEK_{section}_{key}".upper()


def _own(
    path: Path, name: str, kind: SectionKind, table: dict[str, Any], environ: Mapping[str, str]
) -> BaseModel | None:
    if kind.own is None:
        return None
    if not kind.many:  # a variable cannot tell one of many apart
        for key in kind.own.model_fields:
            table = {**table, key: environ.get(_own_variable(name, key), table.get(key, _ABSENT))}
        table = {key: value for key, value in table.items() if value is not _ABSENT}
    try:
        return kind.own.model_validate(table)
    except ValidationError as error:
        raise _mistake(path, name, error) from None


_ABSENT: Final = object()


def _own_values(
    path: Path, name: str, own: BaseModel, table: dict[str, Any], environ: Mapping[str, str]
) -> list[SettingValue]:
    many = KINDS[name].many
    values = []
    for key in type(own).model_fields:
        env = _own_variable(name, key)
        from_environment = not many and env in environ
        origin = env if from_environment else path.name if key in table else "default"
        values.append(SettingValue(key, getattr(own, key), origin, "", False))
    return values


def _process_values(
    path: Path,
    name: str,
    settings: type[BaseSettings],
    table: dict[str, Any],
    keys: set[str],
    environ: Mapping[str, str],
) -> list[SettingValue]:
    """Hold the values against the process' own settings class, as it will at its start."""
    variables = {key: variable(settings, key) for key in settings.model_fields if key in keys}
    from_environment = {key: environ[env] for key, env in variables.items() if env in environ}
    table = {key: value for key, value in table.items() if value != ""}  # as of a variable
    texts = {**table, **from_environment}
    try:
        instance = settings.model_validate({key: _typed(value) for key, value in texts.items()})
    except ValidationError as error:
        raise _mistake(path, name, error) from None
    level = str(texts.get("level", ""))
    of_level = getattr(settings, "presets", {}).get(level, {})
    values = []
    for key, env in variables.items():
        origin = f"{LEVEL}{level}" if key in of_level else "default"
        origin = env if key in from_environment else path.name if key in table else origin
        values.append(SettingValue(key, getattr(instance, key), origin, env, secret(settings, key)))
    return values


def _typed(value: Any) -> Any:
    """Lists and tables of a variable are JSON, as in every settings class."""
    if isinstance(value, str) and value[:1] in {"[", "{"}:
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def _mistake(path: Path, name: str, error: ValidationError) -> ProjectError:
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join([name, *(str(part) for part in first["loc"])])
    if not where.isprintable():
        where = ascii(where)
    return ProjectError(f"{path}: {where}: {first['msg'].removeprefix('Value error, ')}")
