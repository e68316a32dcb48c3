"""Rates of a step: tokens a second, and the share of a device's arithmetic that the model used."""

import re
from typing import Final

PEAK_TFLOPS: Final[dict[str, tuple[float, float, float]]] = {
    "GB200": (2500.0, 1250.0, 80.0),
    "B200": (2250.0, 1100.0, 75.0),
    "H200 NVL": (835.5, 417.5, 60.0),
    "H200": (989.4, 494.7, 66.9),
    "H100 PCIe": (756.5, 378.0, 51.0),
    "H100": (989.4, 494.7, 66.9),
    "A100": (312.0, 156.0, 19.5),
    "L40S": (362.05, 183.0, 91.6),
    "L40": (181.05, 90.5, 90.5),
    "L4": (121.0, 60.0, 30.3),
    "A10": (125.0, 62.5, 31.2),
    "RTX 4090": (165.2, 82.6, 82.6),
    "RTX 3090": (71.0, 35.6, 35.6),
}
"""Tera-operations a second in bf16, TF32 and fp32, without sparsity, by words of the card's name.
The first whose words are all there counts. A rate that NVIDIA prints with sparsity only is halved.

* GB200: GB200 NVL72 data sheet, of its 72 GPUs one. B200: HGX B200 data sheet, of its 8 GPUs one.
* H100: H100 Tensor Core GPU architecture white paper, SXM5. H100 PCIe: H100 data sheet.
* H200 NVL: H200 data sheet. H200: the same, which rounds the rates of H100.
* A100: A100 data sheet, the same for SXM and PCIe. A10: A10 data sheet.
* L40S, L40, L4: their data sheets.
* RTX 4090: Ada GPU architecture white paper, appendix A; RTX 3090: GA102 white paper, appendix A.
  Their bf16 is that which adds up in fp32.
"""
_COLUMNS: Final = {"bf16": 0, "tf32": 1, "fp32": 2}
_VARIANTS: Final = frozenset({"NVL", "Ti", "D", "Laptop", "MIG"})
"""Words that make another card of one, or a slice of it."""
_VIRTUAL: Final = re.compile(r"-\d+[ABCQ]\b")
"""A slice for a virtual machine, such as `NVIDIA A100-10C`."""


def peak_flops(device: str, arithmetic: str) -> float | None:
    """Operations a second that a card can do at most.

    None for a card that is not in the table, also where it shares the number of one that is (a
    laptop's), and for a slice of a card (MIG, vGPU).

    Args:
        device: Its name, as CUDA says it, such as `NVIDIA H100 80GB HBM3`.
        arithmetic: Of its matrix products: `bf16`, `tf32` or `fp32`.
    """
    words = set(re.split(r"[\s-]+", device))
    if _VIRTUAL.search(device):
        return None
    for name, tflops in PEAK_TFLOPS.items():
        if words >= set(name.split()) and words & _VARIANTS <= set(name.split()):
            return tflops[_COLUMNS[arithmetic]] * 1e12
    return None


def rates(
    *, tokens: float, operations: float, seconds: float, peak: float | None
) -> dict[str, float]:
    """`tokens_per_s` and `tflops` of a step, and `mfu` where the device's peak is known.

    MFU is PaLM's model FLOPs utilization: operations that the model needs, over those that the
    device could have done (arXiv 2204.02311, appendix B). A step that took no time
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
