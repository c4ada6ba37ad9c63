"""Is the promised rate of false alarms kept? PaDiM on real MNIST nines, on new good images of 20 seeds.

For each seed, the nines are divided anew: some to learn from, some held out to find the threshold on, all others new.
The table has, over the seeds, the mean and the range of the share of new nines that reach the threshold beside what was
promised. The true share has a Beta distribution; that of some hundred new images scatters around it, so that their
number is distributed beta-binomially: the last columns have its 90 % interval, and how many seeds were inside. ::

    python -m benchmarks.false_alarms [--seeds N] [--side PIXELS] [--write]
"""

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.stats import betabinom

from anomaly_api.parameters import PadimParameters
from anomaly_api.status import FalseAlarms
from anomaly_runner.data.images import to_input
from anomaly_runner.evaluation.goals import false_alarm_threshold
from anomaly_runner.models.memory_models import build_memory_model
from anomaly_runner.models.threads import TorchThreads
from anomaly_runner.models.weights import use_cache
from anomaly_runner.scoring.torch_predictor import TorchPredictor
from benchmarks.tables import Table, add_write, publish
from hack.demo.digits import GOOD_DIGIT, digit_images
from hack.demo.weights import MODEL, write_efficientnet_lite0

LEARNT = 100
CASES = ((0.1, 50), (0.1, 200), (0.05, 100), (0.05, 400), (0.01, 100), (0.01, 400))
"""Rates that are promised, and the number of images that are held out for it."""
_BATCH = 50
_PARAMETERS = PadimParameters(backbone=MODEL, layers=("blocks.1", "blocks.2", "blocks.4"), n_features=50)


@dataclass(frozen=True)
class Outcome:
    """What a threshold promised, and the number of new good images that reach it."""

    promise: FalseAlarms
    alarms: int
    new: int

    @property
    def found(self) -> float:
        """Share of the new images that are false alarms."""
        return self.alarms / self.new

    @property
    def interval(self) -> tuple[int, int]:
        """Numbers of false alarms between which 90 % of all such experiments lie, at least."""
        places = self.promise.good_images + 1
        above = round(self.promise.expected * places)
        low, high = betabinom.interval(0.9, self.new, above, places - above)
        return int(low), int(high)


def scores_of(inputs: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    """Raw scores of the nines that were not learnt from, in the order that the seed draws."""
    order = np.random.default_rng(seed).permutation(len(inputs))
    threads, side = TorchThreads(torch.device("cpu")), inputs.shape[-1]
    torch.manual_seed(seed)
    model = build_memory_model(_PARAMETERS, (side, side), threads, None, seed=seed).eval()
    model.learn((torch.from_numpy(batch) for batch in batches(inputs[order[:LEARNT]])), threads)
    predictor = TorchPredictor(model, threads, _BATCH)
    return np.concatenate([predictor.run(batch)[0] for batch in batches(inputs[order[LEARNT:]])])


def batches(inputs: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    """The images in batches."""
    return (inputs[start : start + _BATCH] for start in range(0, len(inputs), _BATCH))


def outcome(scores: NDArray[np.float32], rate: float, held_out: int) -> Outcome:
    """Find the threshold on the first scores, and count how many of the others reach it."""
    threshold, promise = false_alarm_threshold(np.sort(scores[:held_out]), rate)
    new = scores[held_out:].astype(np.float64)
    return Outcome(promise, int((new >= threshold).sum()), len(new))


def row(rate: float, held_out: int, outcomes: Sequence[Outcome]) -> list[str]:
    """A line of the table."""
    promise, found = outcomes[0].promise, np.array([one.found for one in outcomes])
    low, high = outcomes[0].interval
    inside = sum(low <= one.alarms <= high for one in outcomes)
    spread = [f"{found.mean():.2%}", f"{found.min():.2%} to {found.max():.2%}"]
    true = f"{promise.low:.2%} to {promise.high:.2%}"
    expected = f"{low / outcomes[0].new:.2%} to {high / outcomes[0].new:.2%}"
    asked = [f"{rate:.0%}", str(held_out), f"{promise.expected:.2%}"]
    return [*asked, *spread, true, expected, f"{inside} of {len(outcomes)}"]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--side", type=int, default=64)
    add_write(parser)
    arguments = parser.parse_args()
    nines = digit_images(GOOD_DIGIT)
    inputs = np.stack([to_input(Image.fromarray(nine), arguments.side, arguments.side, "imagenet") for nine in nines])
    with tempfile.TemporaryDirectory() as cache:
        write_efficientnet_lite0(Path(cache))
        use_cache(Path(cache))
        scores = [scores_of(inputs, seed) for seed in range(arguments.seeds)]
    rows = [row(rate, held_out, [outcome(each, rate, held_out) for each in scores]) for rate, held_out in CASES]
    columns = (
        "Asked",
        "Held out",
        "Promised",
        "Found, mean",
        "range",
        "90 % interval, true",
        "of those found",
        "Inside",
    )
    note = f"{len(nines)} nines, {LEARNT} to learn from, {arguments.seeds} seeds, {arguments.side} px."
    table = Table("false-alarms", columns, rows, ("anomaly-operator", "torch", "timm"), note)
    publish([table], arguments.write)


if __name__ == "__main__":
    main()
