"""Several processes: one network however its steps are dealt, the same samples, and kills that lose nothing."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from memlib import losses, nets, noise, shards
from memlib.denoiser import pair
from memlib.errors import Refused
from memlib.random import keyed, noise_from
from memlib.train import fit

accelerate = pytest.importorskip("accelerate")

ROOT = Path(__file__).parents[1]
RUN = """
import copy, os, sys, time
import torch
from accelerate import Accelerator
from memlib import data, losses, metrics, nets, noise, sample, shards
from memlib.denoiser import pair
from memlib.random import noise_from
from memlib.train import fit

torch.set_num_threads(1)
folder, accumulated, steps, pause = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
accelerator = Accelerator(cpu=True, gradient_accumulation_steps=accumulated)
torch.manual_seed(accelerator.process_index)  # each process starts with weights of its own
net = nets.Preconditioned(nets.ResidualMLP((1, 4, 4), width=16, blocks=1), 0.5)
ema = copy.deepcopy(net)
images = noise.seeded(range(40))(torch.empty(40, 1, 4, 4))

def loss(net, generator):
    x0 = images[torch.randint(40, (8,), generator=generator)]
    sigma = noise.lognormal(8, -0.5, 1.2, generator)
    return losses.denoising(*pair(net, x0, sigma, noise_from(generator))).mean()

for step in fit(net, loss, steps, ema=ema, seed=3, checkpoint=folder + "/training", every=5, accelerator=accelerator):
    time.sleep(pause)
sigmas = noise.karras(5)

def draw(seeds):
    return sample.heun(ema, sample.start(sigmas, seeds, (1, 4, 4)), sigmas)

found = shards.stream(draw, 40, folder + "/samples", key="k", batch=10)
near = found.map(
    lambda shard: {"cosine": metrics.nearest(shard["images"].flatten(1), images.flatten(1))[0]},
    folder + "/near", key="nearest",
)
if accelerator.is_main_process:
    print(accelerator.num_processes, float(near.load("cosine").mean()))
"""


def launched(folder, processes, accumulated=1, steps=12, pause=0.0):
    """Start the run above in so many CPU processes.

    `accelerate launch` starts GPU processes in this way; on CPUs it would want mpirun.
    """
    script = folder.parent / "run.py"
    script.write_text(RUN)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", processes]
    command += [script, folder, accumulated, steps, pause]
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(list(map(str, command)), env=variables, stdout=-1, stderr=-1, text=True)


def finished(process):
    out, error = process.communicate(timeout=240)
    assert process.returncode == 0, error[-3000:]
    return out


def weights(folder):
    return load_file(folder / "training" / "training.safetensors")


def largest(one, other):
    """The largest difference of any weight."""
    assert one.keys() == other.keys()
    return max(float((one[name].double() - other[name].double()).abs().max()) for name in one)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """One process that accumulates six parts a step."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    finished(launched(folder, 1, accumulated=6))
    return folder


@pytest.mark.parametrize(("processes", "accumulated"), [(2, 3), (3, 2)])
def test_a_network_is_the_same_however_its_parts_are_dealt(tmp_path, alone, processes, accumulated):
    out = finished(launched(tmp_path / "run", processes, accumulated))
    assert out.startswith(f"{processes} ")
    assert largest(weights(alone), weights(tmp_path / "run")) < 1e-5


@pytest.mark.parametrize("processes", [2, 3])
def test_samples_and_scores_have_the_same_bits_in_any_number_of_processes(tmp_path, alone, processes):
    """Of one trained network: its checkpoint is complete, so every process loads it and trains nothing."""
    (tmp_path / "run" / "training").mkdir(parents=True)
    (tmp_path / "run" / "training" / "training.safetensors").write_bytes(
        (alone / "training" / "training.safetensors").read_bytes()
    )
    finished(launched(tmp_path / "run", processes, 6 // processes))
    for kind in ("samples", "near"):
        one, several = (
            {path.name: path.read_bytes() for path in sorted((folder / kind).glob("*.safetensors"))}
            for folder in (alone, tmp_path / "run")
        )
        assert len(one) == 4 and one == several


def test_a_killed_process_takes_nothing_with_it(tmp_path, alone):
    """One of two workers is killed in training; the same command again ends in the same network."""
    run = tmp_path / "run"
    process = launched(run, 2, 3, pause=0.3)
    deadline = time.monotonic() + 120
    while not (run / "training" / "training.safetensors").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    workers = subprocess.run(["pgrep", "-f", str(run)], capture_output=True, text=True).stdout.split()
    os.kill(int(workers[-1]), 9)
    process.communicate(timeout=240)
    assert process.returncode != 0
    finished(launched(run, 2, 3))
    assert largest(weights(alone), weights(run)) < 1e-5


def small(net, generator):
    images = noise.seeded(range(40))(torch.empty(40, 1, 4, 4))
    x0 = images[torch.randint(40, (8,), generator=generator)]
    sigma = noise.lognormal(8, -0.5, 1.2, generator)
    return losses.denoising(*pair(net, x0, sigma, noise_from(generator))).mean()


def network():
    torch.manual_seed(0)
    return nets.Preconditioned(nets.ResidualMLP((1, 4, 4), width=16, blocks=1), 0.5)


def test_the_gradient_of_a_step_is_the_mean_over_its_parts():
    """Against Adam by hand on the mean of two losses, whose generators are keyed by 2 k and 2 k + 1."""
    ours, theirs = network(), network()
    for _ in fit(ours, small, 3, lr=1e-2, clip=None, seed=5, accelerator=one_process(2)):
        pass
    adam = torch.optim.Adam(theirs.parameters(), 1e-2)
    for k in range(3):
        adam.param_groups[0]["lr"] = 1e-2 * 0.5 * (1 + torch.cos(torch.tensor(torch.pi * k / 3)).item())
        adam.zero_grad()
        ((small(theirs, keyed(5, 2 * k)) + small(theirs, keyed(5, 2 * k + 1))) / 2).backward()
        adam.step()
    assert largest(ours.state_dict(), theirs.state_dict()) < 1e-5


def test_one_part_is_training_as_without_accelerate():
    plain, same = network(), network()
    for _ in fit(plain, small, 4, seed=1):
        pass
    for _ in fit(same, small, 4, seed=1, accelerator=one_process(1)):
        pass
    assert largest(plain.state_dict(), same.state_dict()) == 0


def test_a_checkpoint_of_other_parts_is_refused(tmp_path):
    for _ in fit(network(), small, 4, checkpoint=tmp_path, accelerator=one_process(2)):
        pass
    with pytest.raises(Refused, match="made with parts=2, not 3"):
        next(fit(network(), small, 4, checkpoint=tmp_path, accelerator=one_process(3)))


def test_a_precision_of_accelerates_own_is_refused():
    accelerate.state.AcceleratorState._reset_state(True)
    with pytest.raises(Refused, match="mixed_precision='bf16'.*precision='bf16'"):
        fit(network(), small, 4, accelerator=accelerate.Accelerator(cpu=True, mixed_precision="bf16"))
    accelerate.state.AcceleratorState._reset_state(True)


def one_process(accumulated):
    accelerate.state.AcceleratorState._reset_state(True)
    return accelerate.Accelerator(cpu=True, gradient_accumulation_steps=accumulated)


def test_shards_are_what_a_single_call_makes(tmp_path, alone):
    stored = shards.Shards(alone / "samples")
    assert len(stored) == 40 and stored.load().isfinite().all()
