"""vLLM, from 0.30 on: the surface has its words, so nothing is translated.

The small engine has the same words. An engine that is not recognized is spoken to as vLLM is.
"""

from collections.abc import Mapping
from typing import Final

from odradek.proxy.engines.adapter import NativeAdapter
from odradek.schemas.http.engine import Capability


class VllmAdapter(NativeAdapter):
    """Implements `EngineAdapter`."""

    name = "vLLM"
    advice: Mapping[Capability, str] = {
        Capability.LOGPROBS: (
            "start vLLM with --logprobs-mode processed_logprobs (`odradek engine vllm` does)"
        ),
        Capability.TOKEN_IDS: "use vLLM 0.30 or later",
    }


VLLM: Final = VllmAdapter()
