"""The `odradek` command: a table of verbs, each in a module that is imported when it is called."""

import difflib
import importlib
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Final

import click

from odradek.infra.app import variables
from odradek.infra.runtime import environment, logs
from odradek.streams.stages import STAGES

__all__ = ["GROUPS", "VERBS", "Verbs", "explain", "main", "needs"]

PACKAGE: Final = "odradek.infra.app.cli"

GROUPS: Final[dict[str, tuple[str, dict[str, str]]]] = {
    "start": (
        "Begin",
        {
            "init": "Write a new project: agent.py, rewards.py, tasks.jsonl, odradek.toml.",
            "up": "Run everything that a project's odradek.toml names.",
            "demo": "Watch a small model learn through the log, with a report.",
            "kafka": "Start, stop or ask about a local Kafka broker.",
            "topics": "Create, list, describe or plan the topics.",
            "archive": "Archive topics in a folder or an S3 store, for later replays.",
            "tasks": "Publish tasks from a file of JSON lines.",
            "import": "Put recorded conversations into the log, as imported episodes.",
            "keys": "Make keys: of producers, of the gateway's clients, of people who judge.",
            "token": "Print base URL and credential of an episode, for any program.",
        },
    ),
    "run": (
        "Processes",
        {
            "dispatch": "Run the dispatcher: tasks become A2A requests.",
            "agent": "Run an agent host: a function, a program or an A2A executor.",
            "push": "Post agents' events to the webhooks of A2A's push notification configs.",
            "gateway": "Serve agents on the bus over HTTP, for any A2A client.",
            "proxy": "Run the proxy that records every model call.",
            "engine": "Run an inference engine: the small one, or vLLM.",
            **{verb: stage.about for verb, stage in STAGES.items()},
            "reward": "Run a reward function over conversations.",
            "sample": "Run the sampler: old batches are drawn again, among fresh ones.",
            "train": "Run the trainer: batches become weights.",
            "evaluate": "Play evaluation tasks every n optimizer steps: pass@k and intervals.",
            "replay": "Write past batches again, to train on them once more.",
            "rescore": "Run a reward function over all conversations that there are.",
        },
    ),
    "judge": (
        "Judge",
        {
            "judge": "Judge episodes by hand: rewards of a person, blind or in pairs.",
            "introspect": "Show how an agent plays: times, errors, tools, tokens; what to mend.",
        },
    ),
    "watch": (
        "Watch a run",
        {
            "console": "Show the log as pages in a browser: runs, steps, episodes and tokens.",
            "lag": "Say how many records each process has still to do.",
            "metrics": "List the metrics of all processes, and how to export them.",
            "alarms": "List what is wrong with a run, as rules for Prometheus.",
        },
    ),
    "look": (
        "Look and measure",
        {
            "config": "Print what settings hold and where each came from.",
            "agents": "List the agents, who is there now, and their cards.",
            "show": "Show what the trainer saw in a step, a batch, an episode, a task or a turn.",
            "find": "Search what was said, or token ids, with the filters of replay.",
            "query": "Ask the topics in SQL: a table of turns, episodes, steps and more.",
            "diff": "Name the first difference between two steps, or two runs.",
            "tail": "Print a topic readably, from an offset or a time.",
            "subscribe": "Post an agent's events to a webhook of yours.",
            "dlq": "List, show or send again dead letters.",
            "verify": "Count conservation from the topics: nothing lost, nothing twice.",
            "export": "Write a run's steps to a file, TensorBoard or another tool.",
            "bench": "Measure proxy, streams or trainer.",
        },
    ),
}
"""Folder of a group of verbs: (its title, {verb: short help})."""

MODULES: Final = {"import": "imports"}
"""Verbs whose names are words of Python's, and their modules."""

VERBS: Final[dict[str, tuple[str, str, str]]] = {
    **{
        verb: (f"{PACKAGE}.{folder}.{MODULES.get(verb, verb)}", "command", about)
        for folder, (_, verbs) in GROUPS.items()
        for verb, about in verbs.items()
    },
    **{
        verb: (f"{PACKAGE}.run.stage", verb, about)
        for verb, about in GROUPS["run"][1].items()
        if verb in {*STAGES, "sample"}
    },
}
"""Verb: (module, name of its click command there, short help)."""

EXTRAS: Final = {
    **dict.fromkeys(("torch", "transformers", "trl", "accelerate", "datasets"), "trainer"),
    **dict.fromkeys(("openai", "matplotlib"), "demo"),
    **dict.fromkeys(("starlette", "sse_starlette", "uvicorn", "limits"), "a2a"),
    "grpc": "a2a-grpc",
    "peft": "lora",
    "pyarrow": "archive",
}
"""Modules that an extra of the package brings."""


class Verbs(click.Group):
    """A group that knows its verbs by a table and imports one when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """All verbs, in the order of the table."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """Import a verb."""
        if cmd_name not in VERBS:
            return None
        module, attribute, _ = VERBS[cmd_name]
        try:
            return getattr(importlib.import_module(module), attribute)  # type: ignore[no-any-return] # by the table
        except ModuleNotFoundError as error:
            if error.name == module:
                raise click.ClickException(
                    f"this installation has no `odradek {cmd_name}`"
                ) from error
            raise click.ClickException(needs(error)) from error

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb, or say which is meant."""
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], VERBS, n=1)
            hint = f"did you mean `{near[0]}`?" if near else "`odradek --help` lists them"
            raise click.UsageError(f"there is no verb {args[0]!r}: {hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's signature
        """List the verbs by group, importing none."""
        for title, verbs in GROUPS.values():
            with formatter.section(title):
                formatter.write_dl(list(verbs.items()))

    def invoke(self, ctx: click.Context) -> None:
        """Run the verb; as in any click program, what it returns is not its exit code."""
        super().invoke(ctx)

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run the command line. A mistake is one line and exit code 2; ctrl-C is quiet, and 130."""
        run: Callable[[], Any] = partial(
            super().main, args, prog_name, complete_var, standalone_mode=False, **extra
        )
        if not standalone_mode:
            return run()
        if args is None:
            for notice in environment.settle():
                click.echo(f"odradek: {notice}", err=True)
        try:
            sys.exit(run() or 0)
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            sys.exit(2)
        except click.Abort:
            sys.exit(130)
        # Where exceptions end, for every verb: what has a name gets its line, the rest a traceback.
        except Exception as error:
            line = explain(error)
            if line is None:
                raise
            if logs.wants_context():
                logging.getLogger("odradek").error("%s", line)  # noqa: TRY400 - the line says all
            else:
                click.echo(f"odradek: {line}", err=True)
            sys.exit(2)


def explain(error: BaseException) -> str | None:
    """What to tell a person about an error, or None for a bug, whose traceback is wanted.

    Errors of ours carry `retriable`, which is how they are known without importing their trees;
    so do Kafka clients' errors, whose class names are part of the message.
    """
    for leaf in _leaves(error):
        kind = type(leaf)
        if isinstance(leaf, click.ClickException):
            ctx = getattr(leaf, "ctx", None)
            hint = f" (`{ctx.command_path} --help` tells more)" if ctx else ""
            return leaf.format_message() + hint
        if hasattr(kind, "retriable"):
            is_ours = kind.__module__.startswith("odradek.")
            return str(leaf) if is_ours and str(leaf) else f"{kind.__name__}: {leaf}"
        if isinstance(leaf, OSError) and leaf.filename:
            return f"{leaf.filename}: {leaf.strerror}"
        if kind.__module__.startswith("pydantic") and hasattr(leaf, "errors"):
            return _settings_mistake(leaf)
        if isinstance(leaf, ModuleNotFoundError) and _extra(leaf):
            return needs(leaf)
    return None


def needs(error: ModuleNotFoundError) -> str:
    """How to install what is missing."""
    extra = _extra(error)
    if extra is None:
        return f"the Python module {error.name!r} is not installed"
    return f"this needs {error.name}: pip install 'odradek[{extra}]'"


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """The errors inside exception groups, or the error itself."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _extra(error: ModuleNotFoundError) -> str | None:
    return EXTRAS.get((error.name or "").partition(".")[0])


def _settings_mistake(error: Any) -> str:
    """One line for the first of a settings class' mistakes; values are left out, for secrets."""
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    if not where.isprintable():
        where = ascii(where)
    return f"{error.title}: {where}: {first['msg'].removeprefix('Value error, ')}"


@click.group(
    cls=Verbs,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="odradek", prog_name="odradek")
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"], case_sensitive=False),
    default="info",
    show_default=True,
    envvar="ODRADEK_LOG_LEVEL",
    help="How much the processes say on standard error.",
)
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"], case_sensitive=False),
    default="text",
    show_default=True,
    envvar="ODRADEK_LOG_FORMAT",
    help="In which form: for people, or a JSON object a line with the ids of traces.",
)
def main(log_level: str, log_format: str) -> None:
    """Reinforcement learning for agents, with Apache Kafka as the training loop.

    Where Kafka is: ODRADEK_KAFKA_BOOTSTRAP_SERVERS, or `odradek kafka start` for one of your own.
    Each verb explains itself: `odradek VERB --help`.
    """
    logs.configure(log_level.lower(), "json" if log_format.lower() == "json" else "text")
    for line in variables.renamed(os.environ):
        raise click.ClickException(line)
    for line in variables.removed(os.environ):
        logging.getLogger("odradek").warning("%s", line)
