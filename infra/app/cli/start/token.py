"""`odradek token`: point any program at the proxy by hand."""

import json
import os
import shlex
from typing import Final
from urllib.parse import quote

import click

from odradek.agents.runners.variables import episode_variables
from odradek.agents.settings import AgentSettings
from odradek.infra.runtime import episode_tokens
from odradek.infra.runtime.environment import direct

LONGEST_H: Final = 24 * 366.0


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
    help="How many tokens of prompts and replies it is good for.",
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
    """Print what an agent host gives a program for EPISODE, so that any program can call the proxy.

    The output is fit for a shell: eval "$(odradek token my-episode)". It sets what OpenAI's,
    Anthropic's and Google's clients read: base URL, token and model name; and NO_PROXY, completed
    with where our proxy is. In fish: odradek token my-episode | source. The token opens this
    episode and no other. ODRADEK_TOKEN_KEYS must be what the proxy has; ODRADEK_PROXY_URL says
    where it is.
    """
    _check(episode, hours, agent, model)
    claims = episode_tokens.Claims(
        sub=episode, agent=agent, model=model, max_calls=calls, max_tokens=budget
    )
    signed = episode_tokens.mint(
        claims, episode_tokens.TokenSettings().secrets(), lifetime_s=hours * 3600
    )
    if len(signed) > episode_tokens.LONGEST:
        raise click.UsageError(
            f"the token would have {len(signed)} characters, and the proxy takes "
            f"{episode_tokens.LONGEST}: give shorter names"
        )
    settings = AgentSettings()
    proxy = settings.proxy_url
    root = f"{proxy}/t/{signed}" if in_path else f"{proxy}/e/{quote(episode, safe='')}"
    variables = episode_variables(episode, root, signed, model or settings.policy)
    variables |= direct(os.environ, root)
    if as_json:
        answer = {"base_url": f"{root}/v1", "token": signed, "variables": variables}
        click.echo(json.dumps(answer))
    else:
        for name, value in variables.items():
            click.echo(f"export {name}={shlex.quote(value)}")


def _check(episode: str, hours: float, *names: str) -> None:
    """Raise UsageError for what no call could be made with."""
    if not 1 <= len(episode) <= 256 or any(sign <= " " or sign in "/\x7f" for sign in episode):
        raise click.UsageError("an episode's name has 1 to 256 characters, no blank and no slash")
    if episode in {".", ".."}:
        raise click.UsageError(f"an episode cannot be called {episode}: clients shorten it")
    try:
        "".join((episode, *names)).encode()
    except UnicodeEncodeError:
        raise click.UsageError("a name is not in UTF-8") from None
    if not 0 < hours <= LONGEST_H:
        raise click.UsageError(f"--hours is above 0 and at most {LONGEST_H:g}, a year")
