"""TRL's synchronous trainer over the bus, with a deploy that plays in process."""

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

import odradek.trainer
from odradek.infra.client import TaskResult
from odradek.schemas import arrays
from odradek.schemas.events import Sequence, Span, parsed
from odradek.trainer import trl_rollouts
from odradek.trainer.errors import BadSettings, EngineDown
from odradek.trainer.feed.rows import arrays_of
from odradek.trainer.trl_rollouts import PlayedSequence
from odradek.trainer.weights.directory import DirectoryTransfer
from odradek.trainer.weights.engines import Engines
from tests.support.engines.weight_engine import WeightServer
from tests.support.trainer.played_groups import group_of, play

pytestmark = pytest.mark.torch

SECRETS = (1, 2, 3, 1, 2, 3)
PROMPTS = [json.dumps({"secret": secret}) for secret in SECRETS]


class Deploy:
    """Plays tasks in process; `change` makes other results of them."""

    def __init__(self, sampler, tokenizer, change=lambda number, results: results):
        self.sampler, self.tokenizer, self.change = sampler, tokenizer, change
        self.calls = []

    async def __call__(self, tasks, timeout):
        self.calls.append([parsed(task.input)["secret"] for task in tasks])
        games = play(self.sampler, self.tokenizer, self.calls[-1])
        group = group_of(games, offset=len(self.calls), version=1)
        results = [
            TaskResult(task_id=task.task_id, episodes=(episode,), outcome="completed")
            for task, (_, episode) in zip(tasks, group.episodes, strict=True)
        ]
        return self.change(len(self.calls), results)


@pytest.fixture
def plain(sampler, tokenizer, tiny, tmp_path):
    """Make a synchronous trainer: `plain(change, transfer=..., **config)`."""

    def make(change=lambda number, results: results, *, kind=None, frozen=False, **more):
        transfer = None
        if not frozen:
            transfer = DirectoryTransfer(tmp_path / "w", Engines([]), config=None, keep=9)
        deploy = Deploy(sampler, tokenizer, change)
        rollouts = odradek.trainer.rollout_func(
            "hilo", transfer=transfer, frozen=frozen, deploy=deploy
        )
        config = {
            "output_dir": str(tmp_path / "out"), "use_cpu": True, "bf16": False,
            "report_to": "none", "num_generations": 4, "per_device_train_batch_size": 4,
            "max_steps": 3, "learning_rate": 1e-3, "save_strategy": "no", "disable_tqdm": True,
            "gradient_checkpointing": False, "beta": 0.0, "logging_strategy": "no",
        }  # fmt: skip
        made = (kind or odradek.trainer.BusGRPOTrainer)(
            model=str(tiny),
            reward_funcs=odradek.trainer.reward_of,
            rollout_func=rollouts,
            args=GRPOConfig(**config | more),
            train_dataset=Dataset.from_dict({"prompt": PROMPTS}),
            processing_class=tokenizer,
        )
        return made, rollouts, deploy

    return make


def test_a_few_steps_of_plain_grpo_over_the_bus(plain):
    """Rows in order, a failed sample masked, weights pushed before each step."""

    def second_fails(_, results):
        results[1] = TaskResult(task_id=results[1].task_id, outcome="failed", error="broke")
        return results

    trainer, rollouts, deploy = plain(second_fails)
    before = {n: p.detach().clone() for n, p in trainer.model.named_parameters()}
    trainer.train()
    assert 3 == len(deploy.calls)
    assert all(len(call) == 4 and len(set(call)) == 1 for call in deploy.calls)
    assert {"failed": 3, "several": 0, "left_out": 0} == rollouts.counts
    assert 3 == rollouts.transfer.version
    assert any(not torch.equal(p, before[n]) for n, p in trainer.model.named_parameters())


def logprobs_of(model, inputs):
    """Of each completion token, from a forward pass of each row on its own."""
    found = torch.zeros(inputs["completion_ids"].shape)
    for at in range(len(found)):
        prompt = inputs["prompt_ids"][at][inputs["prompt_mask"][at].bool()]
        width = int(inputs["completion_mask"][at].sum())
        ids = torch.cat([prompt, inputs["completion_ids"][at][:width]])
        logits = model(input_ids=ids[None]).logits[0, len(prompt) - 1 : -1]
        found[at, :width] = logits.log_softmax(-1).gather(1, ids[len(prompt) :, None])[:, 0]
    return found


def watched(trainer, *, recorded):
    """Run a trainer; of each micro-batch its loss beside one by hand, and what is out of the clip."""
    seen = []
    compute = trainer._compute_loss

    def spy(model, inputs):
        loss = compute(model, inputs)
        with torch.no_grad():
            mask = inputs["completion_mask"] * inputs["tool_mask"]
            told = recorded(inputs)
            ratio = (logprobs_of(model, inputs) - told).exp()
            worth = inputs["advantages"][:, None]
            near = ratio.clamp(0.8, 1.2)
            each = -torch.min(ratio * worth, near * worth)
            out = ((ratio < 0.8) & (worth < 0)) | ((ratio > 1.2) & (worth > 0))
            seen.append(
                {
                    "loss": float(loss),
                    "by_hand": float((each * mask).sum() / mask.sum()),
                    "clipped": float((out * mask).sum() / mask.sum()),
                    "told": trainer._metrics["train"]["clip_ratio/region_mean"][-1],
                    "far": float((((ratio - 1).abs() > 0.2) * mask).sum() / mask.sum()),
                }
            )
        return loss

    trainer._compute_loss = spy
    trainer.train()
    return seen


def test_the_ratio_is_that_to_what_the_engine_sampled_with(plain):
    """An engine that keeps its weights falls behind, and loss and clip ratio of TRL show how far."""
    made, _, _ = plain(
        frozen=True, max_steps=8, num_generations=6, per_device_train_batch_size=6, epsilon=0.2
    )
    seen = watched(made, recorded=lambda inputs: inputs["sampling_per_token_logps"])
    for step in seen:
        assert step["by_hand"] == pytest.approx(step["loss"], abs=2e-6)
        assert step["clipped"] == pytest.approx(step["told"], abs=1e-6)
    assert seen[0]["far"] == 0.0
    assert max(step["far"] for step in seen) > 0.1
    assert max(step["told"] for step in seen) > 0.0


def test_an_engine_that_gets_the_weights_stays_on_policy(plain, sampler):
    """What is pushed before each call is what the trainer computes with: the ratio is 1."""
    made, rollouts, _ = plain(max_steps=3)
    resume = rollouts.transfer.resume

    def load():
        sampler.model.load_state_dict(made.model.state_dict())
        resume()

    rollouts.transfer.resume = load
    seen = watched(made, recorded=lambda inputs: inputs["sampling_per_token_logps"])
    assert [0.0] * 3 == [step["far"] for step in seen]
    assert [1, 2, 3] == [int(v.name[1:]) for v in sorted((rollouts.transfer._root).iterdir())]


@pytest.mark.parametrize("breaks", ["init_weight_transfer", "send_weights", "resume"])
def test_weights_that_did_not_arrive_are_sent_again(plain, breaks):
    """Whoever catches the error and goes on plays with the weights of this step, or not at all."""
    made, rollouts, deploy = plain(max_steps=1)
    true, left = getattr(rollouts.transfer, breaks), [2]

    def broken(*args):
        left[0] -= 1
        if left[0] >= 0:
            raise EngineDown("no engine answers")
        true(*args)

    setattr(rollouts.transfer, breaks, broken)
    for _ in range(2):
        with pytest.raises(EngineDown):
            rollouts(PROMPTS[:1], made)
    assert [] == deploy.calls
    rollouts(PROMPTS[:1], made)
    rollouts(PROMPTS[:1], made)
    assert 2 == len(deploy.calls)
    newest = rollouts.transfer.version
    assert rollouts.transfer.folder.name == f"v{newest}"
    assert -1 == left[0]


def split(episode):
    """An episode whose history broke: a sequence for each of its replies, two at the least."""
    parts = []
    for sequence in episode.sequences:
        ids = arrays.unpack_ids(sequence.ids).tolist()
        logprobs = iter(arrays.unpack_floats(sequence.logprobs).tolist())
        for span in sequence.spans:
            own = [next(logprobs) for _ in range(span.end - span.start)]
            parts.append(
                Sequence(
                    ids=arrays.pack_ids(ids[: span.end]),
                    spans=(Span(span.start, span.end),),
                    logprobs=arrays.pack_floats(own),
                )
            )
    return msgspec.structs.replace(episode, sequences=tuple(parts * (2 if len(parts) == 1 else 1)))


def broken_at(where):
    """Splits the episodes of these places in a call."""

    def change(_, results):
        for at in where:
            (episode,) = results[at].episodes
            results[at] = msgspec.structs.replace(results[at], episodes=(split(episode),))
        return results

    return change


def gradient(model):
    return torch.cat([p.grad.flatten() for _, p in sorted(model.named_parameters())])


LOSSES = {
    # episodes as lists of per-token means and sums, and the tokens of all
    "grpo": lambda episodes, tokens, n: sum(
        sum(mean for mean, _ in rows) / len(rows) for rows in episodes
    ) / n,
    "dapo": lambda episodes, tokens, n: sum(total for rows in episodes for _, total in rows) / tokens,
    "dr_grpo": lambda episodes, tokens, n: sum(total for rows in episodes for _, total in rows)
    / (n * 256),
    "cispo": lambda episodes, tokens, n: sum(total for rows in episodes for _, total in rows) / tokens,
}  # fmt: skip
"""What a step's loss is by hand, episode by episode."""


@pytest.mark.parametrize("parts", [1, 2, 4])
@pytest.mark.parametrize("loss", LOSSES)
def test_all_sequences_of_an_episode_are_trained_with_its_weight(plain, sampler, loss, parts):
    """One gradient with a sum by hand over every sequence, for each loss, in any micro-batches."""
    changed = {}

    def change(number, results):
        results = broken_at([0, 2])(number, results)
        for at, result in enumerate(results):
            (episode,) = result.episodes
            reward = (1.0, 0.0, 0.5, 0.25)[at]
            changed[at] = msgspec.structs.replace(episode, reward=reward)
            results[at] = msgspec.structs.replace(result, episodes=(changed[at],))
        return results

    trainer, rollouts, _ = plain(
        change, loss_type=loss, max_steps=1, max_grad_norm=0.0, scale_rewards="none",
        per_device_train_batch_size=4 // parts, gradient_accumulation_steps=parts,
        max_completion_length=256, learning_rate=1e-12, epsilon_high=5.0,
    )  # fmt: skip
    grads = []
    step = trainer.create_optimizer
    trainer.create_optimizer = lambda *a: _noting(step(*a), trainer, grads)
    trainer.train()
    assert 2 == rollouts.counts["several"]

    model = sampler.model
    model.zero_grad()
    worth = np.array([changed[at].reward for at in range(4)])
    worth = worth - worth.mean()
    episodes, tokens = [], 0
    for at in range(4):
        rows = []
        for sequence in changed[at].sequences:
            ids, mask, told = map(torch.tensor, arrays_of(sequence))
            logprobs = model(input_ids=ids[None]).logits[0, :-1].log_softmax(-1)
            logprobs = logprobs.gather(1, ids[1:, None])[:, 0][mask[1:]]
            ratio = (logprobs - told[mask]).exp()
            each = -ratio * worth[at]
            if loss == "cispo":
                each = -ratio.detach() * worth[at] * logprobs
            rows.append((each.mean(), each.sum()))
            tokens += len(each)
        episodes.append(rows)
    LOSSES[loss](episodes, tokens, 4).backward()
    by_hand = gradient(model)
    assert (grads[0] - by_hand).norm() / by_hand.norm() < 1e-5


def _noting(optimizer, trainer, grads):
    step = optimizer.step

    def noted(*args, **kwargs):
        grads.append(gradient(trainer.model))
        return step(*args, **kwargs)

    optimizer.step = noted
    return optimizer


def test_a_reference_compares_with_further_sequences_too(plain):
    """With `beta` every row has its KL, and training goes on."""
    trainer, rollouts, _ = plain(broken_at([1]), beta=0.1, max_steps=2)
    trainer.train()
    assert 2 == rollouts.counts["several"]
    assert all(np.isfinite(trainer._metrics["train"]["kl"]))


SEQUENCES = {
    "cooler than the trainer": (lambda s: _spans(s, temperature=0.3), 1),
    "from an altered distribution": (lambda s: _spans(s, altered_by="top_p"), 1),
    "at the trainer's temperature": (lambda s: _spans(s, temperature=1.0), 0),
    "a log probability like minus infinity": (lambda s: _logprob(s, -9999.0), 1),
    "an id beyond the vocabulary": (lambda s: _id(s, 2**20), 1),
    "nothing sampled": (lambda s: msgspec.structs.replace(s, spans=(), logprobs=b""), 1),
}
"""What is changed of a sample's only sequence, and how many are left out then."""


def _spans(sequence, **fields):
    spans = tuple(Span(span.start, span.end, **fields) for span in sequence.spans)
    return msgspec.structs.replace(sequence, spans=spans)


def _id(sequence, value):
    ids = arrays.unpack_ids(sequence.ids).tolist()
    return msgspec.structs.replace(sequence, ids=arrays.pack_ids([*ids[:-1], value]))


def _logprob(sequence, value):
    told = arrays.unpack_floats(sequence.logprobs).tolist()
    return msgspec.structs.replace(sequence, logprobs=arrays.pack_floats([value, *told[1:]]))


@pytest.mark.parametrize("case", SEQUENCES)
def test_what_trl_would_compute_otherwise_is_left_out_and_counted(plain, case):
    """Its reward still counts for the others of the group."""
    change_sequence, left_out = SEQUENCES[case]

    def change(_, results):
        (episode,) = results[0].episodes
        changed = tuple(change_sequence(sequence) for sequence in episode.sequences[:1])
        episode = msgspec.structs.replace(episode, sequences=changed, reward=0.75)
        results[0] = msgspec.structs.replace(results[0], episodes=(episode,))
        return results

    trainer, rollouts, _ = plain(change)
    trainer.model.train()
    found = rollouts(PROMPTS[:1] * 4, trainer)
    assert (left_out, left_out) == (rollouts.counts["left_out"], rollouts.counts["failed"])
    assert 0.75 == found["reward"][0]
    assert (left_out == 0) == any(found["env_mask"][0])


def test_of_a_sequence_only_the_replies_that_trl_computes_are_trained_on(plain):
    """One at another temperature is context for the others."""

    def change(_, results):
        (episode,) = results[0].episodes
        ids = arrays.pack_ids([5, 6, 7, 8, 9, 10])
        spans = (Span(1, 3, temperature=0.5), Span(4, 6, temperature=1.0))
        logprobs = arrays.pack_floats([-1.0, -2.0, -3.0, -4.0])
        whole = Sequence(ids=ids, spans=spans, logprobs=logprobs)
        episode = msgspec.structs.replace(episode, sequences=(whole,))
        results[0] = msgspec.structs.replace(results[0], episodes=(episode,))
        return results

    trainer, rollouts, _ = plain(change)
    found = rollouts(PROMPTS[:1] * 4, trainer)
    assert PlayedSequence([5, 6, 7, 8], [9, 10], [-3.0, -4.0], [1, 1]) == PlayedSequence(
        *(found[name][0] for name in PlayedSequence._fields)
    )


def test_the_first_token_of_a_sequence_is_never_sampled(plain):
    """It has no prediction; TRL's prompts are never empty."""

    def change(_, results):
        ids = arrays.pack_ids([5, 6, 7])
        whole = Sequence(
            ids=ids, spans=(Span(0, 3),), logprobs=arrays.pack_floats([-1.0, -2.0, -3.0])
        )
        (episode,) = results[0].episodes
        episode = msgspec.structs.replace(episode, sequences=(whole,))
        results[0] = msgspec.structs.replace(results[0], episodes=(episode,))
        return results

    trainer, rollouts, _ = plain(change)
    found = rollouts(PROMPTS[:1] * 4, trainer)
    assert PlayedSequence([5], [6, 7], [-2.0, -3.0], [1, 1]) == PlayedSequence(
        *(found[name][0] for name in PlayedSequence._fields)
    )


def test_whether_the_engine_follows_must_be_said():
    """Without weights it samples off policy, and with both nobody knows what is meant."""
    with pytest.raises(BadSettings, match=r"has no transfer: .* or frozen=True to mean it"):
        odradek.trainer.rollout_func("hilo")
    with pytest.raises(BadSettings, match="give one of them"):
        odradek.trainer.rollout_func("hilo", transfer=object(), frozen=True)


def test_a_trainer_that_ignores_what_was_recorded_is_refused(plain):
    """TRL's own takes the ratio as 1, however far engine and policy are apart."""
    trainer, _, _ = plain(kind=GRPOTrainer)
    with pytest.raises(BadSettings, match=r"GRPOTrainer ignores .*BusGRPOTrainer"):
        trainer.train()


@pytest.mark.parametrize("name", ["use_vllm", "mask_truncated_completions"])
def test_what_does_not_go_with_the_bus_is_refused_at_once(plain, name):
    """Before TRL looks for a vLLM server."""
    with pytest.raises(BadSettings, match=f"{name} does not go with"):
        plain(**{name: True})


def test_the_docs_example_trains_as_it_stands(sampler, tokenizer, tiny, tmp_path, monkeypatch):
    """Word for word, but for the model's place, the engine's port and the number of steps."""
    page = Path(__file__).parents[2] / "docs" / "train-on-a-gpu.md"
    (code,) = [
        part.split("```")[0]
        for part in page.read_text().split("```python\n")[1:]
        if "rollout_func" in part.split("```")[0]
    ]
    deploy = Deploy(sampler, tokenizer)
    monkeypatch.setattr(
        trl_rollouts.BusRollouts,
        "deploy",
        property(lambda _: deploy, lambda *_: None),
        raising=False,
    )
    monkeypatch.chdir(tmp_path)
    with WeightServer() as server:
        for said, here in {
            "models/Qwen3-0.6B": str(tiny),
            "http://127.0.0.1:8000": server.url,
            "max_steps=100": "max_steps=2, use_cpu=True, bf16=False, report_to='none', "
            "save_strategy='no', disable_tqdm=True",
        }.items():
            assert said in code
            code = code.replace(said, here)
        names = {"prompts": Dataset.from_dict({"prompt": PROMPTS})}
        exec(code, names)
        names["trainer"].train()
        assert 2 == server.engine.version
    assert 2 == len(deploy.calls)
