"""Where a trainer may run, and the line it ends with elsewhere."""

import pytest

from odradek.infra.bus import BusSettings
from odradek.trainer.errors import BadSettings
from odradek.trainer.placement import refuse_launchers, visible

LAUNCHED = {
    "torchrun": {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2"},
    "torchrun, one process": {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"},
    "torchrun, another rank": {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2"},
    "two machines of one process": {"RANK": "1", "WORLD_SIZE": "2"},
    "mpirun": {"OMPI_COMM_WORLD_SIZE": "4"},
    "mpich": {"PMI_SIZE": "2"},
    "mvapich": {"MV2_COMM_WORLD_SIZE": "2"},
    "no number": {"WORLD_SIZE": "two"},
    "accelerate with FSDP": {"ACCELERATE_USE_FSDP": "true"},
    "accelerate with DeepSpeed": {"ACCELERATE_USE_DEEPSPEED": "True"},
    "accelerate with Megatron": {"ACCELERATE_USE_MEGATRON_LM": "1"},
    "accelerate in bf16": {"ACCELERATE_MIXED_PRECISION": "bf16"},
}
ALONE = {
    "nobody": {},
    "a cluster's job of one": {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "here"},
    "accelerate of one": {"ACCELERATE_MIXED_PRECISION": "no", "ACCELERATE_USE_FSDP": "false"},
    "empty": {"WORLD_SIZE": "", "LOCAL_RANK": "", "ACCELERATE_MIXED_PRECISION": ""},
    "no local rank": {"LOCAL_RANK": "-1"},
}


@pytest.mark.parametrize("by", LAUNCHED)
def test_a_trainer_that_a_launcher_started_is_refused_with_what_to_do(by):
    """Several of them would train each batch several times, or wait for each other for ever."""
    with pytest.raises(BadSettings, match="start `odradek train` itself, once"):
        refuse_launchers(LAUNCHED[by])


@pytest.mark.parametrize("by", ALONE)
def test_a_trainer_alone_is_not(by):
    """A launcher's variables that say one process are no launcher of several."""
    refuse_launchers(ALONE[by])


@pytest.mark.parametrize("by", ["torchrun", "accelerate in bf16"])
def test_it_is_refused_before_anything_is_asked_of_kafka(by, monkeypatch, tmp_path):
    """The first line that the process says."""
    process = pytest.importorskip("odradek.trainer.process")
    from odradek.trainer.settings import TrainerSettings

    for name, value in LAUNCHED[by].items():
        monkeypatch.setenv(name, value)
    with pytest.raises(BadSettings, match="itself, once"):
        process.run(
            TrainerSettings(model="m", output_dir=tmp_path / "run"),
            BusSettings(bootstrap_servers="127.0.0.1:1"),
        )
    assert [] == list(tmp_path.iterdir())


CHOSEN = [
    ("auto", 0, {}, None),
    ("auto", 1, {}, None),
    ("cpu", 8, {}, None),
    ("cuda", 1, {}, None),
    ("cuda:0", 1, {}, "0"),
    ("cuda:1", 2, {}, "1"),
    ("cuda:1", 2, {"CUDA_VISIBLE_DEVICES": "4, 6"}, "6"),
    ("cuda:0", 1, {"CUDA_VISIBLE_DEVICES": "GPU-5f"}, "GPU-5f"),
    ("cuda:2", 4, {"CUDA_VISIBLE_DEVICES": ""}, "2"),
]
"""(device, GPUs that torch sees, environment, what CUDA_VISIBLE_DEVICES becomes)."""


@pytest.mark.parametrize(("device", "gpus", "environ", "expected"), CHOSEN)
def test_a_trainer_gets_the_gpu_that_is_named(device, gpus, environ, expected):
    """A number counts the GPUs that are visible."""
    assert expected == visible(device, gpus, environ)


REFUSED = [
    ("auto", 2, "torch sees 2 GPUs, but a trainer uses one: name it with device = cuda:1"),
    ("cuda", 8, "torch sees 8 GPUs"),
    ("cuda", 0, "torch sees no GPU"),
    ("cuda:0", 0, "torch sees no GPU"),
    ("cuda:2", 2, "cuda:0 to cuda:1"),
]


@pytest.mark.parametrize(("device", "gpus", "says"), REFUSED)
def test_a_device_that_is_not_there_or_could_be_any_is_refused(device, gpus, says):
    """Torch would take all GPUs at once, the engine's among them."""
    with pytest.raises(BadSettings, match=says):
        visible(device, gpus, {})
