"""Train in as many processes as there are cores: `python -m training.train DIRECTORY`.

Every schedule counts steps, so the processes may be paused. A checkpoint is written every few
minutes of computing, and the same command continues from it.
"""

import argparse
import datetime
import os
import random
import time
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as processes
from torch import nn

from training.crops import draw_crop
from training.initial import see_in_waves
from training.losses import Memory, losses, total
from training.model import Reader, as_patches
from training.optimizer import Muon, together
from training.recipe import Stage, stage_at
from training.targets import Batch, make_batch
from training.vocabulary import Vocabulary

# Without these, glibc returns every tensor to the kernel, and a step takes four times as long.
_MALLOC = {
    "MALLOC_MMAP_THRESHOLD_": "4000000000",
    "MALLOC_TRIM_THRESHOLD_": "8000000000",
    "MALLOC_TOP_PAD_": "200000000",
}
_CHECKPOINT_EVERY = 20  # steps
_LOG_EVERY = 20
_ADAM_RATE = 0.5  # of the rate of Muon


def main() -> None:
    """Start one process for each core."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    arguments.directory.mkdir(parents=True, exist_ok=True)
    os.environ.update(_MALLOC, MASTER_ADDR="127.0.0.1", MASTER_PORT="29533", OMP_NUM_THREADS="1")
    context = (arguments.processes, arguments.directory)
    processes.spawn(_train, args=context, nprocs=arguments.processes)


def _train(rank: int, world: int, directory: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", rank=rank, world_size=world, timeout=datetime.timedelta(hours=12)
    )
    torch.manual_seed(0)
    trainer = Trainer(directory, rank, world)
    while trainer.step_once():
        pass


class Trainer:
    """Trains in one process."""

    def __init__(self, directory: Path, rank: int, world: int) -> None:
        self._directory, self._rank, self._world = directory, rank, world
        self._reader = Reader()
        matrices, others = _split(self._reader)
        self._muon = Muon(matrices)
        self._adam = torch.optim.AdamW(others, betas=(0.9, 0.98), weight_decay=0.01)
        self._memory = Memory()
        self._step = 0
        self._seen: dict[str, float] = {}
        self._since = time.process_time()
        self._resume()

    def step_once(self) -> bool:
        """Make a step; return False when all stages are done."""
        try:
            stage, rate = stage_at(self._step)
        except StopIteration:
            self._save()
            return False
        # Each step and process has its own random numbers, so that resuming repeats no crop.
        rng = random.Random(f"{self._step} {self._rank}")
        batch = _draw(rng, stage)
        as_signs = rng.random() < stage.signs
        parts = losses(self._reader, batch, stage.weights, self._memory, as_signs=as_signs)
        total(parts, stage.weights).backward()
        self._update(rate)
        self._step += 1
        self._report(parts, rate)
        if self._step % _CHECKPOINT_EVERY == 0:
            self._save()
        return True

    def _update(self, rate: float) -> None:
        parameters = [p for p in self._reader.parameters() if p.grad is not None]
        together([p.grad for p in parameters])
        for parameter in parameters:
            parameter.grad /= self._world
        nn.utils.clip_grad_norm_(parameters, 1.0)
        self._muon.step(rate)
        for group in self._adam.param_groups:
            group["lr"] = rate * _ADAM_RATE
        self._adam.step()
        self._reader.zero_grad(set_to_none=True)

    def _report(self, parts: dict[str, torch.Tensor], rate: float) -> None:
        for name, value in parts.items():
            self._seen[name] = self._seen.get(name, 0) + value.item() / _LOG_EVERY
        if self._step % _LOG_EVERY == 0 and self._rank == 0:
            figures = " ".join(f"{name}={value:.3f}" for name, value in self._seen.items())
            each = (time.process_time() - self._since) / _LOG_EVERY
            now = datetime.datetime.now().strftime("%H:%M:%S")
            print(f"{now} {self._step} {figures} rate={rate:.1e} cpu={each:.2f}", flush=True)
        if self._step % _LOG_EVERY == 0:
            self._seen, self._since = {}, time.process_time()

    def _save(self) -> None:
        if self._rank != 0:
            return
        state = {
            "step": self._step,
            "reader": self._reader.state_dict(),
            "muon": self._muon.momentum,
            "adam": self._adam.state_dict(),
        }
        draft = self._directory / "draft.pt"
        torch.save(state, draft)
        draft.replace(self._directory / "checkpoint.pt")

    def _start(self) -> None:
        stage, _ = stage_at(0)
        patches = as_patches(_draw(random.Random(0), stage).pixels)
        see_in_waves(self._reader.model.visual.patch_embed.proj.weight, patches)

    def _resume(self) -> None:
        path = self._directory / "checkpoint.pt"
        if not path.exists():
            self._start()
            return
        state = torch.load(path, weights_only=True)
        self._step = state["step"]
        self._reader.load_state_dict(state["reader"])
        self._adam.load_state_dict(state["adam"])
        for kept, loaded in zip(self._muon.momentum, state["muon"], strict=True):
            kept.copy_(loaded)


def _draw(rng: random.Random, stage: Stage) -> Batch:
    word = Vocabulary()
    crops = [
        draw_crop(rng, word, stage.width, stage.height, stage.smallest, stage.largest)
        for _ in range(stage.crops)
    ]
    return make_batch(rng, crops, stage.queries)


def _split(reader: Reader) -> tuple[list[tuple[nn.Parameter, int]], list[nn.Parameter]]:
    matrices, others = [], []
    for name, parameter in reader.named_parameters():
        if parameter.ndim == 2 and (".blocks." in name or ".layers." in name):
            matrices.append((parameter, 3 if "qkv" in name else 1))
        else:
            others.append(parameter)
    return matrices, others


if __name__ == "__main__":
    main()
