"""EfficientAD's ImageNet pictures in a reproducible order, which a resumed training continues where it stopped."""

from typing import Any

import numpy as np


class ReproducibleImages:
    """Endless iterator over pictures: every round shows each picture once, in an order seeded by the round's number.

    It keeps no position of its own: the batch index of the module's trainer selects the next picture.

    Args:
        module: Lightning module that the pictures are for.
        pictures: dataset of (picture (3, H, W), label).
    """

    def __init__(self, module: Any, pictures: Any, seed: int) -> None:
        self._module, self._pictures, self._seed = module, pictures, seed

    def __next__(self) -> list[Any]:
        round_number, index = divmod(self._module.trainer.fit_loop.total_batch_idx, len(self._pictures))
        order = np.random.default_rng([self._seed, round_number]).permutation(len(self._pictures))
        return [self._pictures[order[index]][0].unsqueeze(0)]


def make_auxiliary_images_reproducible(module: Any, seed: int) -> None:
    """Make EfficientAD take its pictures from ``ReproducibleImages``; leave other modules as they are."""
    prepare = getattr(module, "prepare_imagenette_data", None)
    if prepare is None:
        return

    def prepared(image_size: Any) -> None:
        prepare(image_size)
        module.imagenet_iterator = ReproducibleImages(module, module.imagenet_loader.dataset, seed)

    module.prepare_imagenette_data = prepared
