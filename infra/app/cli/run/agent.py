"""`odradek agent`: host an agent."""

import click

from odradek.agents.harnesses import HARNESSES
from odradek.infra.app.cli.options import given


@click.command()
@click.argument("target", required=False)
@click.option("--name", help="The agent's name, as tasks say it.  [ODRADEK_AGENT_NAME]")
@click.option("--command", "program", help="A program in place of TARGET; {task_file} is replaced.")
@click.option(
    "--harness",
    type=click.Choice(list(HARNESSES)),
    help="A coding agent in place of TARGET, set up for each run.",
)
@click.option("--a2a-url", help="An A2A agent behind HTTP in place of TARGET: where its card is.")
@click.option("--concurrency", type=click.IntRange(min=1), help="Runs at once.  [8]")
@click.option(
    "--instance",
    help="A name of this replica that outlives restarts, so that it comes back to its partitions.",
)
def command(
    target: str | None,
    name: str | None,
    program: str | None,
    harness: str | None,
    a2a_url: str | None,
    concurrency: int | None,
    instance: str | None,
) -> None:
    """Host an agent: play the samples that its topic asks for.

    TARGET is an async function or an A2A AgentExecutor, as module:name; the module may stand in
    this folder. With --command, any program is the agent: it finds its model through
    OPENAI_BASE_URL and OPENAI_API_KEY (and their ANTHROPIC_ and GEMINI_ kin), its task in the file
    {task_file} and in ODRADEK_TASK_FILE, and may leave rewards in ODRADEK_REWARD_FILE as
    {"component": value}. Exit code 0 means completed.

    With --harness, an installed coding agent plays: its prompt is the task's input (text, or an
    object with "prompt"), its configuration lies in the run's own folder, and it asks nobody but
    the proxy. It runs each command that the model writes, with the rights of this process: host it
    in a container.

    With --a2a-url, an A2A agent behind HTTP plays, in any language: its messages say where its
    model is (docs/write-an-agent.md).

    \b
    odradek agent agent:play --name hilo --concurrency 32
    odradek agent --name coder --command "python solve.py {task_file}"
    odradek agent --name coder --harness claude-code

    Needs ODRADEK_KAFKA_BOOTSTRAP_SERVERS, ODRADEK_PROXY_URL, and the proxy's ODRADEK_TOKEN_KEYS.
    More replicas share the work; give each an --instance of its own.
    """  # noqa: D301 - click reads the backslash
    from odradek.agents.host.host import run
    from odradek.agents.runners import load
    from odradek.agents.settings import AgentSettings
    from odradek.infra.bus import BusSettings
    from odradek.infra.runtime import process

    settings = AgentSettings(**given(name=name, concurrency=concurrency, instance=instance))
    executor = load(target, program, harness, a2a_url)
    process.run("agent", run(settings, BusSettings(), executor))
