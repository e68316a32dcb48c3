"""Settings of a project that cannot work together, though each process would take its own. Pure."""

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase

from odradek.infra.app.project.project import Project
from odradek.infra.errors import ProjectError
from odradek.schemas.events import Task, Timeouts
from odradek.streams.errors import DeadlinesRefused
from odradek.streams.settings import check_deadlines


def check(project: Project) -> None:
    """Raise ProjectError for the first pair that cannot work, with both names and the reason."""
    for line in contradictions(project):
        raise ProjectError(f"{project.path}: {line}")


def contradictions(project: Project) -> Iterator[str]:
    """Each pair that cannot work, in a line."""
    yield from _of_the_engine(project)
    yield from _of_rewards(project)
    yield from _of_followers(project)
    yield from _of_attempts(project)
    yield from _of_temperatures(project)


def _of_the_engine(project: Project) -> Iterator[str]:
    engine = project.engine
    if engine.url and engine.vllm:
        yield (
            f"engine.url ({engine.url}) is an engine that runs already, so engine.vllm "
            f"({engine.vllm}) would never be started: take one of them out"
        )
    if engine.vllm_flags and not engine.vllm:
        yield (
            "engine.vllm_flags are for vLLM, and there is no engine.vllm: name the Python that "
            "has it"
        )


def _of_rewards(project: Project) -> Iterator[str]:
    components = [reward.component for reward, _ in project.rewards]
    for component in dict.fromkeys(components):
        if components.count(component) > 1:
            yield (
                f"two [[rewards]] judge component {component!r}, and the verdict that comes first "
                "wins: give them names of their own"
            )
        source = f"/reward/{component}"
        allowed = project.value("streams", "sources").get(component)
        if allowed is not None and not any(fnmatchcase(source, pattern) for pattern in allowed):
            yield (
                f"streams.sources lets {list(allowed)} judge {component!r}, but the service in "
                f"[[rewards]] judges as {source}: all its verdicts would be refused"
            )


def _of_followers(project: Project) -> Iterator[str]:
    names = [follower.name for follower, _ in project.followers]
    if names and "trainer" not in project.written:
        yield (
            f"[[trainers]] ({', '.join(names)}) train on what another trainer's weights have "
            "played, and there is no [trainer]: add it, or call one of them [trainer]"
        )
    run = project.value("trainer", "run")
    if run in names:
        yield (
            f"trainer.run and a name of [[trainers]] are both {run!r}, and the ledger could not "
            "tell them apart: name one of them otherwise"
        )


def _of_attempts(project: Project) -> Iterator[str]:
    attempts = project.value("dispatch", "max_attempts")
    try:
        check_deadlines(Timeouts(**project.value("streams", "timeouts")), attempts)
    except DeadlinesRefused as error:
        yield f"streams.timeouts, dispatch.max_attempts: {error}"
    except TypeError as error:  # of a name that is no deadline
        yield f"streams.timeouts: {error}"


def _of_temperatures(project: Project) -> Iterator[str]:
    sampled, assumed = (project.value(name, "temperature") for name in ("proxy", "trainer"))
    if sampled != assumed and project.is_set("trainer", "temperature"):
        yield (
            f"trainer.temperature ({assumed:g}) does not change how replies are sampled, which is "
            f"at proxy.temperature ({sampled:g}): give both the same number, or leave the "
            "trainer's out, which takes each reply's own from the log"
        )


def in_flight(project: Project, tasks: Sequence[Task]) -> str:
    """A line where more rows may be under way than max_staleness lets in, or ""."""
    train = [task.group_size for task in tasks if task.purpose == "train"]
    if "trainer" not in project.written or not train:
        return ""
    groups = project.value("dispatch", "open_groups")
    rows, step = groups * max(train), project.value("trainer", "rows_per_step")
    oldest, most = -(-rows // step), project.value("trainer", "max_staleness")
    if oldest <= most + 1:
        return ""
    return (
        f"dispatch.open_groups ({groups}) groups of {max(train)} are {oldest} steps of "
        f"trainer.rows_per_step ({step}), and trainer.max_staleness is {most}: many rows will be "
        "refused as stale; lower open_groups, or raise one of the others"
    )
