"""A program that plays hi-lo. It knows only OPENAI_BASE_URL and OPENAI_API_KEY, and no SDK."""

import json
import os
import random
import sys
from http.client import HTTPConnection
from urllib.parse import urlsplit

from game import HiLo


def ask(connection: HTTPConnection, path: str, messages: list[dict[str, str]]) -> str:
    """The model's reply to the messages."""
    body = {
        "model": os.environ.get("OPENAI_MODEL", "policy"),
        "messages": messages,
        "max_tokens": 4,
    }
    headers = {
        "Authorization": f"Bearer {os.environ['OPENAI_API_KEY']}",
        "Content-Type": "application/json",
    }
    connection.request("POST", path, json.dumps(body), headers)
    answer = connection.getresponse()
    text = answer.read()
    if answer.status >= 500:
        sys.exit(75)  # the model could not be reached: not our doing
    return json.loads(text)["choices"][0]["message"]["content"] or ""


def main(task_file: str) -> None:
    """Play the game of the task file; the score is the reward."""
    with open(task_file) as file:
        game = HiLo(random.choice(json.load(file)["secrets"]))
    base = urlsplit(os.environ["OPENAI_BASE_URL"])
    connection = HTTPConnection(base.netloc, timeout=60)
    messages = game.opening()
    while not game.over:
        messages += game.answer(ask(connection, f"{base.path}/chat/completions", messages))
    with open(os.environ["ODRADEK_REWARD_FILE"], "w") as file:
        json.dump({"game": game.score}, file)


if __name__ == "__main__":
    main(sys.argv[1])
