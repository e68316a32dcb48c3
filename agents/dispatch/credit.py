"""How many groups are out: the dispatcher's credit, as a pure fold."""

from odradek.schemas.events import Purpose


class Credit:
    """Counts groups from the moment they are sent until they are passed.

    A training group is passed when the trainer's ledger says that its batch is behind it: used,
    refused and empty batches alike. So a stopped trainer stops the rollouts, and no batch can be
    staler than the groups that may be out. Evaluation groups, and training groups of a run
    without a trainer, are passed when their batch is closed.

    Batches and steps stand on two topics without a common order, so the fold takes them in any:
    a step may tell of a batch that was not read yet.

    Args:
        open_groups: How many training groups may be out.
        open_evals: How many evaluation groups may be out.
        trainer: Whether a trainer passes batches.
    """

    def __init__(self, *, open_groups: int, open_evals: int, trainer: bool = True) -> None:
        self._limits: dict[str, int] = {"train": open_groups, "eval": open_evals}
        self._trainer = trainer
        self._out: dict[str, Purpose] = {}
        self._batches: dict[str, int] = {}
        self._passed = 0

    def out(self, purpose: Purpose) -> int:
        """How many groups of a purpose are out."""
        return sum(kind == purpose for kind in self._out.values())

    def free(self, purpose: Purpose) -> int:
        """How many more groups of a purpose may go out."""
        return max(self._limits[purpose] - self.out(purpose), 0)

    def counts(self, task_id: str) -> bool:
        """Whether a group is out."""
        return task_id in self._out

    def sent(self, task_id: str, purpose: Purpose) -> None:
        """A group went out."""
        self._out[task_id] = purpose

    def forget(self, task_id: str) -> None:
        """A group is another dispatcher's now."""
        self._out.pop(task_id, None)
        self._batches.pop(task_id, None)

    def batch(self, offset: int, task_id: str) -> list[str]:
        """Note that a group was closed at an offset of the batches; return what it passes.

        The first batch of a group is its own; a batch that repeats it counts for nothing.
        """
        purpose = self._out.get(task_id)
        if purpose is None or task_id in self._batches:
            return []
        if purpose == "eval" or not self._trainer or offset < self._passed:
            return self._pass(task_id)
        self._batches[task_id] = offset
        return []

    def step(self, position: int) -> list[str]:
        """The trainer passed every batch before `position`; return the groups among them."""
        self._passed = max(self._passed, position)
        behind = [task for task, offset in self._batches.items() if offset < self._passed]
        return [task for task_id in behind for task in self._pass(task_id)]

    def batch_of(self, task_id: str) -> int | None:
        """Where the batch of a group that is out stands, once it is closed."""
        return self._batches.get(task_id)

    def _pass(self, task_id: str) -> list[str]:
        self.forget(task_id)
        return [task_id]
