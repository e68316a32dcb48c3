"""Variables that name a program's model: hosts give them, `odradek token` prints them."""

from typing import Final

PRIVATE: Final = (
    "ODRADEK_", "OPENAI_", "ANTHROPIC_", "GEMINI_", "GOOGLE_API_KEY", "GOOGLE_GEMINI_",
    "GOOGLE_GENAI_", "CLAUDE_CODE_USE_",
)  # fmt: skip
"""Beginnings of variables that an agent does not inherit from its host.

The host's keys would open every episode, and a provider's own key or address would send the calls
past the proxy."""


def _model_variables(root: str, key: str, model: str) -> dict[str, str]:
    """Where the model is, in the names that the makers' clients read.

    Args:
        root: The episode's address at the proxy, without `/v1`.
        key: The episode's token.
        model: The name to ask for.
    """
    return {
        "OPENAI_BASE_URL": f"{root}/v1",
        "OPENAI_API_BASE": f"{root}/v1",
        "OPENAI_API_KEY": key,
        "OPENAI_MODEL": model,
        # Anthropic's clients append /v1 themselves. With both variables they send both headers,
        # which name the same token; Claude Code prefers the second.
        "ANTHROPIC_BASE_URL": root,
        "ANTHROPIC_API_KEY": key,
        "ANTHROPIC_AUTH_TOKEN": key,
        "ANTHROPIC_MODEL": model,
        # So do Google's, with /v1beta.
        "GOOGLE_GEMINI_BASE_URL": root,
        "GEMINI_API_KEY": key,
        "GEMINI_MODEL": model,
    }


def episode_variables(episode_id: str, root: str, key: str, model: str) -> dict[str, str]:
    """All that a program is given whose task is not ours: the model, and which episode it is."""
    return {
        **_model_variables(root, key, model),
        "ODRADEK_EPISODE_ID": episode_id,
        "ODRADEK_MODEL": model,
    }
