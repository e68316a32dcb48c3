"""`odradek engine`: the small engine, vLLM with the right flags, or what any engine must answer."""

import asyncio
from typing import Any

import click

from odradek.infra.app.cli.options import WholeSentences, given
from odradek.infra.runtime.imports import large_imports


class _Default(WholeSentences):
    """Runs `serve` where no other subcommand is named."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put `serve` before options that belong to it."""
        if args and args[0] not in self.commands and args[0] not in {"-h", "--help"}:
            args = ["serve", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_Default)
def command() -> None:
    """Run an inference engine with token ids, log probabilities and weight versions.

    `serve` (the default) is a small Hugging Face server for two cores and for tests; `vllm` starts
    your vLLM from its own environment with the flags that training needs. `contract` prints what
    the proxy and the trainer ask of any engine.
    """


@command.command()
@click.option("--model", help="Folder of the model: safetensors and a tokenizer.")
@click.option("--host", help="Address to listen on.  [127.0.0.1]")
@click.option("--port", type=int, help="Port to listen on; 0 takes a free one.  [8000]")
@click.option("--policy", help="Serve the newest weights of this policy (rl.policies.v1).")
@click.option("--seed", type=int, help="Seed of the sampling.")
def serve(**options: Any) -> None:
    """Serve a model over vLLM's HTTP surface. Settings: ODRADEK_ENGINE_*."""
    from odradek.infra.bus import BusSettings

    with large_imports():
        from odradek.trainer.engine.process import serve as run
        from odradek.trainer.engine.settings import EngineSettings

    asyncio.run(run(EngineSettings(**given(**options)), BusSettings()))


@command.command(context_settings={"ignore_unknown_options": True})
@click.option("--model", help="Folder, or a name on the Hugging Face hub.")
@click.option("--host", help="Address to listen on.  [127.0.0.1]")
@click.option("--port", type=int, help="Port to listen on.  [8000]")
@click.option("--policy", help="Load the newest weights of this policy (rl.policies.v1) first.")
@click.option(
    "--python",
    default="python",
    show_default=True,
    help="Python of the environment in which vLLM is installed: it needs another torch than ours.",
)
@click.argument("flags", nargs=-1, type=click.UNPROCESSED)
def vllm(python: str, flags: tuple[str, ...], **options: Any) -> None:
    """Start vLLM so that it can be trained on, and wait until it serves.

    FLAGS go to vLLM as they are, for instance --max-model-len 4096 --tensor-parallel-size 2.

    \b
      python -m venv vllm && vllm/bin/pip install vllm
      odradek engine vllm --python vllm/bin/python --model Qwen/Qwen3-0.6B
    """  # noqa: D301 - \b is click's sign for "do not wrap"
    from odradek.infra.bus import BusSettings
    from odradek.trainer.engine.settings import EngineSettings
    from odradek.trainer.engine.vllm import run

    run(EngineSettings(**given(**options)), BusSettings(), python=python, flags=flags)


@command.command()
@click.option("--json", "as_json", is_flag=True, help="As an OpenAPI 3.1 document.")
def contract(*, as_json: bool) -> None:
    """Print the routes, fields and capabilities that an engine must have, in Markdown."""
    from importlib.metadata import version

    import msgspec

    from odradek.schemas.http.contract import document, markdown

    if as_json:
        openapi = msgspec.json.encode(document(version=version("odradek")))
        click.echo(msgspec.json.format(openapi, indent=2).decode())
    else:
        click.echo(markdown(), nl=False)
