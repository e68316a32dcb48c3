"""Errors of dispatcher and agent hosts.

AgentsError
├── RequestRefused           a request that no attempt will be made at: dead letter or error reply
│   ├── BadRequestHeader     reserved headers that are doubled, absent or make no sense
│   ├── BadRequestBody       a value that is no A2A request
│   └── AssertionRefused     nobody signed it who may, or something else was signed
├── SealError                the proxy did not end an episode
│   ├── SealUnavailable      retriable: it did not answer in time
│   └── SealRefused          it answered no: credentials or addresses are wrong
├── AskError                 an agent that was asked gave no answer
│   ├── AskRefused           it was not asked: there is no such agent, or it would ask in a circle
│   ├── AskTimeout           no answer came in time
│   ├── AskFailed            the agent failed, refused the message, or asks a question in return
│   └── AskLost              retriable: what it runs on was lost
├── NoAnswer                 an agent's question to which its task has no answer
├── IllegalTransition        a run was to go where its state does not lead: a mistake of ours
├── UnknownAddress           an address of an agent that is none on Kafka
├── InvalidPosition          a text that names no place among an agent's events
├── UnknownState             a word that is no state of A2A's tasks
├── WebhookRefused           an address of a webhook that may not be called
├── GatewayRefusal           a request that the gateway's door does not let in
│   ├── Unauthenticated      it brings no credentials, or none that are valid here
│   ├── TooManyRequests      retriable: its principal asks too often
│   └── KeysUnavailable      retriable: what would tell whose token it is cannot be fetched
├── AddressTaken             the gateway cannot listen where it was told to
├── BadCertificate           TLS cannot be served with the files that were named
└── RunnerError              an agent that cannot be started as it was named
"""

from typing import ClassVar

from odradek.schemas.events import Outcome


class AgentsError(Exception):
    """Something around agents; its text is one line that says what to do."""

    retriable: ClassVar[bool] = False


class RequestRefused(AgentsError):
    """A request that is not carried out.

    Attributes:
        reason: A short word, fit for a header and for counting.
        detail: What exactly is wrong, for people.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


class BadRequestHeader(RequestRefused):
    """Reserved headers that are doubled, absent or make no sense."""


class BadRequestBody(RequestRefused):
    """The value is not an A2A request."""


class AssertionRefused(RequestRefused):
    """The request is not signed, or not by who may, or not as it is."""


class SealError(AgentsError):
    """The proxy did not end an episode."""


class SealUnavailable(SealError):
    """The proxy did not answer, or could not reach the log, within the wait."""

    retriable = True


class SealRefused(SealError):
    """The proxy answered no; asking again would not help."""


class AskError(AgentsError):
    """An agent that was asked gave no answer.

    Attributes:
        agent: Who was asked.
        episode_id: Of what the agent did, where that is in the log; else "".
    """

    def __init__(self, agent: str, detail: str, episode_id: str = "") -> None:
        super().__init__(f"{agent}: {detail}")
        self.agent = agent
        self.episode_id = episode_id


class AskRefused(AskError):
    """It was not asked: there is no such agent, or agents would ask each other in a circle."""


class AskTimeout(AskError):
    """No answer came in time."""


class AskFailed(AskError):
    """The agent failed, refused the message, or asks a question in return."""


class AskLost(AskError):
    """What the agent runs on was lost. Who lets it pass is lost itself, and tried anew."""

    retriable = True


class NoAnswer(AgentsError):
    """A task has no answer to its agent's question.

    Attributes:
        outcome: With which the attempt ends.
    """

    def __init__(self, outcome: Outcome, detail: str) -> None:
        super().__init__(detail)
        self.outcome = outcome


class IllegalTransition(AgentsError):
    """A run was to go where its state does not lead."""


class RunnerError(AgentsError):
    """An agent that cannot be started as it was named."""


class UnknownAddress(AgentsError):
    """An address of an agent that is none on Kafka."""


class AddressTaken(AgentsError):
    """The gateway cannot listen where it was told to."""


class BadCertificate(AgentsError):
    """TLS cannot be served with the files that were named."""


class WebhookRefused(AgentsError):
    """A webhook that may not be called.

    Attributes:
        reason: A short word, fit for a header and for counting.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class InvalidPosition(AgentsError):
    """A text that names no place among an agent's events."""


class UnknownState(AgentsError):
    """A word that is no state of A2A's tasks."""


class GatewayRefusal(AgentsError):
    """A request that the gateway's door does not let in."""


class Unauthenticated(GatewayRefusal):
    """A request without credentials, or with some that are not valid here.

    Args:
        message: Why, without a word of the credentials.
        missing: There are none.
    """

    def __init__(self, message: str, *, missing: bool = False) -> None:
        super().__init__(message)
        self.missing = missing


class TooManyRequests(GatewayRefusal):
    """A principal that asks too often.

    Args:
        wait_s: After how many seconds it may ask again.
    """

    retriable = True

    def __init__(self, wait_s: int) -> None:
        super().__init__(f"too many requests: ask again in {wait_s} s")
        self.wait_s = wait_s


class KeysUnavailable(GatewayRefusal):
    """The keys of tokens cannot be fetched."""

    retriable = True
