"""`odradek token`: point any program at the proxy by hand."""

import json
import os
from typing import Final

import click

from odradek.infra import tokens

PROXY_URL: Final = "http://127.0.0.1:8400"


@click.command()
@click.argument("episode")
@click.option("--agent", default="", help="The agent's name, for the record.")
@click.option("--model", default="", help="The model name that calls are made under.")
@click.option("--hours", default=1.0, show_default=True, help="How long the token is good for.")
@click.option("--calls", type=click.IntRange(0), default=0, help="How many calls it is good for.")
@click.option(
    "--tokens",
    "budget",
    type=click.IntRange(0),
    default=0,
    help="How many tokens, prompts and replies, it is good for.",
)
@click.option(
    "--in-path",
    is_flag=True,
    help="Put the token into the address, for clients that can set no key.",
)
@click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")
def command(
    *,
    episode: str,
    agent: str,
    model: str,
    hours: float,
    calls: int,
    budget: int,
    in_path: bool,
    as_json: bool,
) -> None:
    """Print base URL and signed token of EPISODE, so that any program can call the proxy.

    The output is fit for a shell: eval "$(odradek token my-episode)". The token opens this
    episode and no other. ODRADEK_TOKEN_KEYS must be what the proxy has; ODRADEK_PROXY_URL says
    where it is.
    """
    if not episode or "/" in episode or len(episode) > 256:
        raise click.UsageError("an episode's name has 1 to 256 characters and no slash")
    claims = tokens.Claims(
        sub=episode, agent=agent, model=model, max_calls=calls, max_tokens=budget
    )
    signed = tokens.mint(claims, tokens.TokenSettings().secrets(), lifetime_s=hours * 3600)
    proxy = os.environ.get("ODRADEK_PROXY_URL", PROXY_URL).rstrip("/")
    base = f"{proxy}/t/{signed}/v1" if in_path else f"{proxy}/e/{episode}/v1"
    if as_json:
        click.echo(json.dumps({"base_url": base, "token": signed}))
    else:
        click.echo(f"export OPENAI_BASE_URL={base}\nexport OPENAI_API_KEY={signed}")
