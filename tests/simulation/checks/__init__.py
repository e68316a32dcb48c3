"""What must hold once a world has come to rest, read from its logs with the code as it is."""

from odradek.schemas.errors import SchemaError
from tests.simulation.checks import episodes, mixing, streams, tasks, training
from tests.simulation.failure import Failure
from tests.simulation.world import World

CHECKS = (
    streams.ghosts,
    streams.unended,
    streams.lost,
    streams.repeated,
    streams.order,
    streams.low_water,
    streams.done_marks,
    streams.held_back,
    streams.conservation,
    episodes.hosts,
    episodes.rewards,
    episodes.revisions,
    episodes.episodes,
    episodes.punctual,
    episodes.resumable,
    episodes.conversations,
    episodes.batches,
    episodes.letters,
    tasks.expected,
    tasks.requests,
    tasks.repeats,
    tasks.credit,
    tasks.given_back,
    tasks.refused,
    tasks.forgotten,
    training.weights,
    training.no_memory,
    training.checkpoints,
    training.remade,
    training.policies,
    training.engines,
    training.adapters,
    training.versions,
    training.fresh,
    training.goes_on,
    mixing.mixed,
    mixing.mixed_offsets,
)
"""Each names what it holds; what it yields is what does not hold."""


def broken(world: World) -> list[Failure]:
    """Everything that does not hold."""
    found = list(world.failures)
    for check in CHECKS:
        with world.reading():
            try:
                found += [Failure(check.__name__, what) for what in check(world)]
            except (LookupError, TypeError, ValueError, SchemaError) as error:
                found.append(Failure("unjudged", f"{check.__name__}: {error!r}"))
    return found
