"""Ground truth of samples."""

from pathlib import Path

import numpy as np
from PIL import Image

from anomaly_api.dataset import DatasetLimits
from anomaly_runner.data.masks import mask_reader
from anomaly_runner.data.samples import GOOD, Sample
from anomaly_runner.storage import FolderStore, start_prefetch


def test_an_image_is_defective_where_any_of_its_masks_is(tmp_path: Path) -> None:
    size = (32, 48)
    rows, columns = np.zeros((2, *size), dtype=bool)
    rows[3:7], columns[:, 11:13] = True, True
    for name, mask in (("0.png", rows), ("1.png", columns)):
        Image.fromarray(mask).save(tmp_path / name)
    store = FolderStore(tmp_path)
    prefetcher = start_prefetch(store, tuple(store.list()), tmp_path, lambda: None)
    read = mask_reader(prefetcher, size, DatasetLimits(), None)
    try:
        assert (read(Sample("a", "x", ("0.png", "1.png"))) == rows | columns).all()
        assert (read(Sample("a", "x", ("1.png",))) == columns).all()
        assert read(Sample("a", "x")).all()
        assert not read(Sample("a", GOOD)).any()
    finally:
        prefetcher.close()
