"""One distillation step of the 226M student, 256 px: one pass of the decoder against many.

The plain form takes seven gradients, of each of four losses to theta_C and of three to theta_F; or
five, L_out's to theta_C being one of them, the fewest that Eq. 4 and 5 need through the graph.
Peak memory is what a step of batch 4 needs beyond the weights, each form in a process of its own.
"""

import subprocess
import sys

import torch
from _memory import peak, resident
from _plain import distillation_step, plain_operators
from _ratio import ratio, show

import moebius
from moebius.config import Distill
from moebius.data.latents import LatentSample
from moebius.distill.batch import Noising, NoisyBatch
from moebius.distill.losses import LOSSES
from moebius.distill.perceptual import ELatentLPIPS
from moebius.distill.step import DistillationStep, FrozenTeacher, Student

SIDE = 32


def make_batch(size: int) -> NoisyBatch:
    """Made-up latents of 256 px."""
    mean = torch.randn(size, 4, SIDE, SIDE)
    both = torch.stack([mean, torch.full_like(mean, 0.1)], dim=1)
    mask, category = (mean[:, :1] > 0).float(), torch.arange(size) % 2
    latents = LatentSample(clean=both, masked=both, mask=mask, category=category)
    return Noising(0, "logit_normal", 0.0357)(latents, range(size), torch.device("cpu"))


def main() -> None:
    """Shows the ratio of times at batch 1 and of memory at batch 4; in a child, prints its GiB."""
    student, teacher = moebius.build("lmi_dw_mixffn").train(), moebius.build("pixelhacker").eval()
    metric = ELatentLPIPS("random")
    config = Distill(losses=list(LOSSES), perceptual_augment=False)
    frozen = FrozenTeacher(teacher, "up.0")
    step = DistillationStep(Student(student, "down.2"), student, frozen, config, metric)

    def plain(of_each_loss: bool = True) -> None:
        student.zero_grad(set_to_none=True)
        with plain_operators():
            distillation_step(student, teacher, metric, batch, of_each_loss)[0].backward()

    def fast() -> None:
        student.zero_grad(set_to_none=True)
        step(batch).balanced.total.backward()

    if len(sys.argv) > 1:
        batch = make_batch(4)
        before = resident()
        {"plain": plain, "fast": fast}[sys.argv[1]]()
        print((peak() - before) / 2**30)
        return
    batch = make_batch(1)
    for name, slow in (("seven", plain), ("five", lambda: plain(of_each_loss=False))):
        took = ratio(slow, fast, rounds=2)
        show(f"distillation step, 256 px, to {name} gradients", took, at_least=2)
    held, least = peak_memory("plain"), peak_memory("fast")
    took = held, least, least / held
    show("memory of a distillation step, 256 px, batch 4, to plain", took, at_most=0.6, unit="GiB")


def peak_memory(form: str) -> float:
    """GiB that one form's step takes beyond the weights."""
    command = [sys.executable, __file__, form]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout)


if __name__ == "__main__":
    main()
