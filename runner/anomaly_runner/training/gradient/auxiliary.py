"""Auxiliary pictures of a training, drawn so that a training that is taken up again draws on as if never stopped."""

from typing import Any

import numpy as np


class InTurn:
    """EfficientAD's pictures without end: all of them once in each round, in an order known by the round's number.

    Args:
        module: whose trainer knows the step.
        pictures: dataset of (picture, label).
    """

    def __init__(self, module: Any, pictures: Any, seed: int) -> None:
        self._module, self._pictures, self._seed = module, pictures, seed

    def __next__(self) -> list[Any]:
        turn, place = divmod(self._module.trainer.fit_loop.total_batch_idx, len(self._pictures))
        order = np.random.default_rng([self._seed, turn]).permutation(len(self._pictures))
        return [self._pictures[order[place]][0].unsqueeze(0)]


def draw_in_turn(module: Any, seed: int) -> None:
    """Let EfficientAD draw its pictures in such an order; others as they are."""
    prepare = getattr(module, "prepare_imagenette_data", None)
    if prepare is None:
        return

    def prepared(image_size: Any) -> None:
        prepare(image_size)
        module.imagenet_iterator = InTurn(module, module.imagenet_loader.dataset, seed)

    module.prepare_imagenette_data = prepared
