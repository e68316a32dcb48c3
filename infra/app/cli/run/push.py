"""`odradek push`: agents' events to the webhooks of push notification configs."""

import click

from odradek.infra.app.cli.options import given


@click.command()
@click.argument("agents", nargs=-1, metavar="[AGENT]…")
@click.option("--instance", help="A name of this replica that outlives restarts.")
@click.option("--secret", metavar="URL", help="Print the secret of a webhook, and end.")
def command(agents: tuple[str, ...], instance: str | None, secret: str | None) -> None:
    """Post the events of AGENTs, or of all, to the webhooks that A2A clients have registered.

    Agents take such configs with ODRADEK_AGENT_PUSH=true. An event is posted at least once, in
    order for each task, and signed as Standard Webhooks has it. What a webhook does not take is
    tried again after growing pauses; after the last one it is a dead letter on a2a.dlq.AGENT.

    \b
    export ODRADEK_PUSH_KEYS=$(openssl rand -hex 32)
    odradek push
    odradek push --secret https://example.com/hook    # for whoever receives there

    Needs ODRADEK_KAFKA_BOOTSTRAP_SERVERS. Webhooks must be on the public internet, or in
    ODRADEK_WEBHOOK_HOSTS. Any number of replicas share the work.
    """  # noqa: D301 - click reads the backslash
    from odradek.agents.push.settings import PushSettings
    from odradek.agents.push.signatures import secret_of
    from odradek.infra.bus import BusSettings
    from odradek.infra.runtime import process

    settings = PushSettings(**given(instance=instance))
    if secret:
        for key in settings.signing_keys():
            click.echo(secret_of(key, secret))
        return
    from odradek.agents.push.process import run_push

    process.run("push", run_push(settings, BusSettings(), agents))
