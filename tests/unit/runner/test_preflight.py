"""The step check: what it tells people, which images it looks at, and quantities of Kubernetes."""

from decimal import Decimal
from pathlib import Path

import pytest

from anomaly_api.run import UnreadableImage
from anomaly_api.status import Listing
from anomaly_api.storage import LocationRole
from anomaly_runner.data.fetch import discard_listing
from anomaly_runner.data.samples import DatasetIndex, Sample
from anomaly_runner.data.stored_listing import LISTING
from anomaly_runner.data.summary import describe_briefly
from anomaly_runner.errors import StorageDenied
from anomaly_runner.preflight import images
from anomaly_runner.preflight.checked import passed
from anomaly_runner.preflight.images import Look, choose_images
from anomaly_runner.preflight.output import check_output
from anomaly_runner.storage import FolderStore
from anomaly_runner.system.quantity import parse_quantity
from anomaly_runner.tracking.mlflow_tracker import LOCAL_UID
from support.contexts import RUN, make_context


def samples(folder: str, label: str, count: int, masks: int = 0) -> tuple[Sample, ...]:
    """Images of a label, of which the first ``masks`` have a mask."""
    return tuple(
        Sample(f"{folder}/{label}/{place:03d}.png", label, (f"gt/{label}/{place:03d}.png",) if place < masks else ())
        for place in range(count)
    )


def make_test_set(good: int, kinds: int, each: int, masks: int = 0) -> tuple[Sample, ...]:
    found = samples("test", "good", good)
    for kind in range(kinds):
        found += samples("test", f"kind{kind}", each, masks)
    return found


@pytest.mark.parametrize(
    ("dataset", "with_masks", "message"),
    [
        (
            DatasetIndex(train=samples("train", "good", 200), test=make_test_set(60, 9, 60)),
            True,
            "200 to learn from, 600 to test on: 60 good, 540 of 9 kinds of defect, no masks",
        ),
        (
            DatasetIndex(train=samples("train", "good", 200), test=make_test_set(60, 9, 60)),
            False,
            "200 to learn from, 600 to test on: 60 good, 540 of 9 kinds of defect",
        ),
        (
            DatasetIndex(
                train=samples("train", "good", 5),
                validation=samples("val", "good", 4),
                test=make_test_set(3, 1, 4, masks=3) + samples("test", "unknown", 2),
                unreadable=(UnreadableImage(path="x", problem="y"),),
            ),
            True,
            "5 to learn from, 4 to validate on: 4 good, 9 to test on: 3 good, 4 of one kind of defect, 2 without a "
            "label, 3 masks (1 defective images have none), 1 that cannot be used",
        ),
        (DatasetIndex(test=samples("a", "unknown", 1200)), True, "1200 to score"),
        (
            DatasetIndex(test=make_test_set(2, 2, 1, masks=1)),
            True,
            "4 to score: 2 good, 2 of 2 kinds of defect, 2 masks",
        ),
    ],
)
def test_what_was_found_in_a_sentence(dataset: DatasetIndex, with_masks: bool, message: str) -> None:
    assert describe_briefly(dataset, with_masks=with_masks) == message


def test_what_was_not_looked_at_is_in_the_message() -> None:
    context = make_context()
    context.record.warn("odd")
    checked = passed(None, context, with_masks=True, unchecked=["the weights", "memory"], listing=None)
    assert checked.summary.message == "nothing wrong was found; not checked: the weights, memory"
    assert (checked.summary.reason, checked.summary.stage, checked.summary.warnings) == ("Complete", "check", ("odd",))


def test_the_first_the_last_and_the_middle_image_of_each_label_are_looked_at() -> None:
    dataset = DatasetIndex(
        train=samples("train", "good", 9), test=(*samples("test", "good", 2), *samples("t", "rip", 1))
    )
    chosen = choose_images(dataset, dict.fromkeys(dataset.file_keys(), 1))
    assert [sample.key for sample in chosen] == [
        "train/good/000.png",
        "test/good/000.png",
        "t/rip/000.png",
        "train/good/008.png",
        "test/good/001.png",
        "train/good/004.png",
    ]


def test_no_more_images_are_looked_at_than_a_check_may_take() -> None:
    dataset = DatasetIndex(test=make_test_set(0, 100, 5))
    chosen = choose_images(dataset, dict.fromkeys(dataset.file_keys(), 1))
    assert len(chosen) == images.MAX_IMAGES
    assert len({sample.label for sample in chosen}) == images.MAX_IMAGES, "one of each before a second one of any"


def test_images_that_are_too_large_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_BYTES", 10)
    dataset = DatasetIndex(test=(*samples("t", "a", 1), *samples("t", "b", 1), *samples("t", "c", 1, masks=1)))
    sizes = {"t/a/000.png": 4, "t/b/000.png": 7, "t/c/000.png": 3, "gt/c/000.png": 3}
    assert [sample.label for sample in choose_images(dataset, sizes)] == ["a", "c"]


def test_what_was_seen_in_a_sentence() -> None:
    look = Look()
    assert look.describe() == "none could be decoded"
    look.sizes.update({(1024, 768): 3, (64, 64): 1})
    look.modes.update({"RGB": 3, "F": 1})
    assert look.describe() == "1024 x 768 (3), 64 x 64 (1) pixels, 8-bit colour (3), grey of more than 8 bits (1)"
    look.masks.update({(0, 255): 2, (0, 1): 1})
    look.marked += [0.01, 0.25]
    assert look.describe().endswith("; masks with values 0 to 255 (2), 0 to 1 (1), marking 1.00% to 25.00%")


@pytest.mark.parametrize(
    ("text", "number"),
    [
        *(("500m", "0.5"), ("2", "2"), ("1.5", "1.5"), ("8Gi", "8589934592"), ("100M", "100000000"), ("3k", "3000")),
        *(("1Ki", "1024"), ("1E", "1000000000000000000"), ("2Ei", "2305843009213693952")),
    ],
)
def test_quantities(text: str, number: str) -> None:
    assert parse_quantity(text) == Decimal(number)


@pytest.mark.parametrize("text", ["", "Gi", "1 Gi", "1K", "1mi", "-1", "1e3"])
def test_what_is_no_quantity(text: str) -> None:
    with pytest.raises(ValueError, match="not a quantity"):
        parse_quantity(text)


class KeepingStore(FolderStore):
    """A folder in which nothing may be deleted."""

    def delete(self, key: str) -> None:
        raise StorageDenied("no")

    def subfolder(self, prefix: str) -> "KeepingStore":
        return KeepingStore(self.root / prefix)


@pytest.mark.parametrize("kind", [FolderStore, KeepingStore])
def test_a_listing_that_is_out_of_date_is_not_used_again(kind: type[FolderStore], tmp_path: Path) -> None:
    context = make_context(tmp_path, stores={LocationRole.OUTPUT: kind(tmp_path / "results")})
    file = tmp_path / "results" / RUN.folder / LISTING
    file.parent.mkdir(parents=True)
    file.write_bytes(b"of yesterday")
    discard_listing(Listing(file=LISTING, sha256="0" * 64), context)
    assert not file.exists() or file.read_bytes() == b""


def test_an_output_that_cannot_be_written_is_found_without_a_cluster_too(tmp_path: Path) -> None:
    run = RUN.model_copy(update={"uid": LOCAL_UID})
    context = make_context(tmp_path, run=run, stores={LocationRole.OUTPUT: FolderStore(tmp_path / "results")})
    assert check_output(None, context) is None
    assert not (tmp_path / "results").exists()
    (tmp_path / "results").write_text("a file")
    (tmp_path / "results").chmod(0o444)
    with pytest.raises(StorageDenied, match="results"):
        check_output(None, context)


def test_where_nothing_is_listed_an_empty_file_shows_whether_the_output_can_be_written(tmp_path: Path) -> None:
    context = make_context(tmp_path, stores={LocationRole.OUTPUT: FolderStore(tmp_path / "results")})
    assert check_output(None, context) is None
    assert not list((tmp_path / "results").rglob(".check"))
    assert (tmp_path / "results" / RUN.folder).is_dir()
