"""Rates of a step: tokens a second, and the share of a device's arithmetic that the model used."""

from typing import Final

PEAK_TFLOPS: Final[dict[str, tuple[float, float, float]]] = {
    "B200": (2250.0, 1125.0, 75.0),
    "H200": (989.4, 494.7, 66.9),
    "H100 PCIe": (756.0, 378.0, 51.0),
    "H100 NVL": (835.0, 417.5, 60.0),
    "H100": (989.4, 494.7, 66.9),
    "H800": (989.4, 494.7, 66.9),
    "H20": (148.0, 74.0, 44.0),
    "A100": (312.0, 156.0, 19.5),
    "A800": (312.0, 156.0, 19.5),
    "L40S": (362.0, 183.0, 91.6),
    "L40": (181.0, 90.5, 90.5),
    "L4": (121.0, 60.0, 30.3),
    "A10G": (70.0, 35.0, 31.2),
    "A10": (125.0, 62.5, 31.2),
    "RTX 4090": (165.2, 82.6, 82.6),
    "RTX 3090": (71.0, 35.6, 35.6),
}
"""Tera-operations a second in bf16, TF32 and fp32, by a part of the card's name, from NVIDIA's data
sheets, without sparsity. The first name that occurs counts."""
_COLUMNS: Final = {"bf16": 0, "tf32": 1, "fp32": 2}


def peak_flops(device: str, arithmetic: str) -> float | None:
    """Operations a second that a card can do at most.

    None for a card that is not in the table, and for a slice of one (MIG).

    Args:
        device: Its name, as CUDA says it, such as `NVIDIA H100 80GB HBM3`.
        arithmetic: Of its matrix products: `bf16`, `tf32` or `fp32`.
    """
    if "MIG" in device:
        return None
    for name, tflops in PEAK_TFLOPS.items():
        if name in device:
            return tflops[_COLUMNS[arithmetic]] * 1e12
    return None


def rates(
    *, tokens: float, operations: float, seconds: float, peak: float | None
) -> dict[str, float]:
    """`tokens_per_s` and `tflops` of a step, and `mfu` where the device's peak is known.

    MFU is PaLM's model FLOPs utilization: operations that the model needs, over those that the
    device could have done (arXiv 2204.02311, section 4.1 and appendix B). A step that took no time
    was not measured.

    Args:
        tokens: That went through the layers.
        operations: See `flops.ModelCost.step`.
        seconds: Of training, without waiting for rows.
        peak: See `peak_flops`, over all devices.
    """
    if seconds <= 0:
        return {}
    metrics = {"tokens_per_s": tokens / seconds, "tflops": operations / seconds / 1e12}
    if peak:
        metrics["mfu"] = operations / seconds / peak
    return metrics
