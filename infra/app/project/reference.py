"""The reference page of all settings, made from the settings classes themselves."""

import importlib
from typing import Any, Final

from pydantic_core import PydanticUndefined
from pydantic_settings import BaseSettings

from odradek.infra.app.project.sections import KINDS, secret, variable

CLASSES: Final = {
    "[kafka]": ("odradek.infra.bus", "BusSettings"),
    "[[agents]]": ("odradek.agents.settings", "AgentSettings"),
    "[dispatch]": ("odradek.agents.settings", "DispatchSettings"),
    "[streams]": ("odradek.streams.settings", "StreamsSettings"),
    "[trainer]": ("odradek.trainer.settings", "TrainerSettings"),
    "[engine]": ("odradek.trainer.engine.settings", "EngineSettings"),
    "[proxy]": ("odradek.proxy.settings", "ProxySettings"),
    "tokens": ("odradek.infra.runtime.episode_tokens", "TokenSettings"),
    "judges": ("odradek.infra.runtime.reward_signatures", "JudgeSettings"),
}
"""Where each part of the page comes from; names in brackets are sections of odradek.toml."""

HEAD: Final = """\
# Settings

Made by `odradek config --reference`; a test holds it against the code. `odradek config` in a
project prints what holds there and where it came from. The environment wins over `odradek.toml`,
and that over the defaults. An unknown key is an error that names the nearest known one.
"""


def page() -> str:
    """The page in Markdown."""
    parts = [HEAD]
    for name, (module, attribute) in CLASSES.items():
        settings: type[BaseSettings] = getattr(importlib.import_module(module), attribute)
        about = (settings.__doc__ or "").strip().split("\n")[0]
        parts.append(f"\n## {name}\n\n{about}\n\n| variable | default | meaning |\n|---|---|---|\n")
        parts += [_row(settings, key) for key in settings.model_fields]
    parts.append(
        "\n## Keys that only odradek.toml has\n\n| key | default | meaning |\n|---|---|---|\n"
    )
    for section, kind in KINDS.items():
        fields = kind.own.model_fields if kind.own else {}
        parts += [
            f"| `{section}.{key}` | {_shown(field.get_default(call_default_factory=True))} "
            f"| {_line(field.description)} |\n"
            for key, field in fields.items()
        ]
    return "".join(parts)


def _row(settings: type[BaseSettings], key: str) -> str:
    field = settings.model_fields[key]
    default = "" if secret(settings, key) else field.get_default(call_default_factory=True)
    return f"| `{variable(settings, key)}` | {_shown(default)} | {_line(field.description)} |\n"


def _shown(value: Any) -> str:
    return "" if value in (None, "", PydanticUndefined) else f"`{value}`"


def _line(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|")
