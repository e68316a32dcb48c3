"""`odradek subscribe`: an agent's events to a webhook."""

import time

import click

from odradek.infra.app.cli.options import given
from odradek.infra.client.subscribe import Since, start_at


@click.command()
@click.argument("agent")
@click.option("--to", "url", required=True, metavar="URL", help="The webhook.")
@click.option(
    "--state",
    "states",
    multiple=True,
    help="Only events with this task state, such as completed; may be given again.",
)
@click.option(
    "--group",
    help="Names the subscription: its progress is kept by this name.  [made from the URL]",
)
@click.option(
    "--since",
    default="end",
    show_default=True,
    help="Where a new subscription begins: beginning, end, an offset, or a time ago such as -1h.",
)
@click.option("--token", default="", help="Sent along as X-A2A-Notification-Token.")
@click.option("--instance", help="A name of this replica that outlives restarts.")
def command(
    agent: str,
    url: str,
    states: tuple[str, ...],
    group: str | None,
    since: str,
    token: str,
    instance: str | None,
) -> None:
    """Post the events of AGENT to a webhook: signed, in order for each task, at least once.

    What the webhook does not take is tried again after growing pauses, and is a dead letter on
    a2a.dlq.AGENT in the end. A subscription that runs again goes on where it was.

    \b
    odradek subscribe hilo --to https://example.com/hook --state completed --group billing

    Needs ODRADEK_KAFKA_BOOTSTRAP_SERVERS. The webhook must be on the public internet, or in
    ODRADEK_WEBHOOK_HOSTS. `odradek push --secret URL` prints what its receiver checks signatures
    with.
    """  # noqa: D301 - click reads the backslash
    from odradek.agents.errors import WebhookRefused
    from odradek.agents.push.process import WebhookSubscription, run_subscription
    from odradek.agents.push.sender import PostTarget
    from odradek.agents.push.settings import PushSettings
    from odradek.agents.push.signatures import name_of
    from odradek.agents.subscriptions.event import state_name
    from odradek.infra.bus import BusSettings
    from odradek.infra.runtime import process

    name = group or name_of(url)
    place: Since = int(since) if since.isdigit() else since

    async def work() -> None:
        subscription = WebhookSubscription(
            PushSettings(**given(instance=instance)),
            BusSettings(),
            agent,
            group=name,
            target=PostTarget(id=name, url=url, token=token),
            states=[state_name(state) for state in states],
            begin=start_at(place, time.time()),
        )
        await run_subscription(subscription, name)

    try:
        process.run("subscribe", work())
    except WebhookRefused as error:
        raise click.UsageError(f"--to: the webhook is refused: {error}") from None
