"""Modal's prices, with their date.

Other reports confirm T4, L4, L40S, A100-80GB, H100, B200, cores and memory. Check the other rows
against Modal's own page before you rely on them.
"""

from collections.abc import Mapping

from pagevec.deploy.modal.gpus import Gpu

AS_OF = "June 2026"
SOURCE = "https://modal.com/pricing"

GPU_SECOND: Mapping[Gpu, float] = {
    "T4": 0.000164,
    "L4": 0.000222,
    "A10": 0.000306,
    "A10G": 0.000306,
    "L40S": 0.000542,
    "A100": 0.000583,
    "A100-40GB": 0.000583,
    "A100-80GB": 0.000694,
    "RTX-PRO-6000": 0.000842,
    "H100": 0.001097,
    "H200": 0.001261,
    "B200": 0.001736,
}
"""Dollars per second of one GPU."""

CORE_SECOND = 0.0000131
"""Dollars per second of one physical core."""

GIB_SECOND = 0.00000222
"""Dollars per second of one GiB of memory."""


def second(gpu: Gpu, cpu: float, memory_mib: int) -> float:
    """Return the dollars per second of a container with one `gpu`, `cpu` cores and memory."""
    return GPU_SECOND[gpu] + cpu * CORE_SECOND + memory_mib / 1024 * GIB_SECOND
