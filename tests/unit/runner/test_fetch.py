"""Which images a run lists, what it leaves to its next step, and what it does where that is of no use."""

import hashlib
import json
import logging
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from anomaly_api.evaluation import Metrics
from anomaly_api.experiment import ExperimentSpec
from anomaly_api.inference import InferenceSpec
from anomaly_api.run import ModelManifest
from anomaly_api.status import Listing, Stage
from anomaly_api.storage import LocationRole
from anomaly_runner.context import Context
from anomaly_runner.data import fetch
from anomaly_runner.data.builtin import PUBLISHED
from anomaly_runner.data.fetch import (
    ListedDataset,
    discard_listing,
    list_experiment,
    list_inference,
    prefetch_images,
    store_listing,
)
from anomaly_runner.data.stored_listing import LISTING, FoundImages, to_parquet
from anomaly_runner.errors import DataInvalid, RunFailed, Stopped, StorageDenied, StorageUnavailable
from anomaly_runner.storage import CacheEntry, FolderStore, ObjectInfo
from support.contexts import RUN, make_context
from support.model_manifests import model_manifest
from support.optional import not_none

FILES = (
    *(f"train/good/{index}.png" for index in range(4)),
    *("test/good/0.png", "test/good/1.png", "test/dent/0.png", "ground_truth/dent/0_mask.png"),
)
OUTPUT = {"s3": {"uri": "s3://results"}}
SOURCE = {"s3": {"uri": "s3://data"}}


def context(folder: Path, kind: type[FolderStore] = FolderStore) -> Context:
    """The context of a run with a source, a place for its results, and a scratch folder of its own."""
    stores = {
        LocationRole.DATASET: FolderStore(folder / "data"),
        LocationRole.INPUT: FolderStore(folder / "data"),
        LocationRole.OUTPUT: kind(folder / "results"),
    }
    (folder / "work").mkdir(exist_ok=True)
    return make_context(folder / "work", stores=stores)


def cached(folder: Path) -> Context:
    """A context that has a folder for a cache too."""
    here = context(folder)
    return make_context(here.work, stores={**here.stores, LocationRole.CACHE: FolderStore(folder / "cache")})


def write(folder: Path, *keys: str, content: bytes = b"1") -> None:
    for key in keys:
        (folder / "data" / key).parent.mkdir(parents=True, exist_ok=True)
        (folder / "data" / key).write_bytes(content)


def experiment(*, source: dict[str, Any] = SOURCE, **dataset: Any) -> ExperimentSpec:
    """The spec of an experiment on images below set/, at a size of 4 x 6."""
    fields = {"source": source, "category": "set", "task": "segmentation"} | dataset
    return ExperimentSpec.model_validate(
        {
            "dataset": {name: value for name, value in fields.items() if value is not None},
            "model": {"name": "padim"},
            "transforms": {"inputSize": {"height": 32, "width": 64}},
            "output": OUTPUT,
        }
    )


def inference(**fields: Any) -> InferenceSpec:
    return InferenceSpec.model_validate(
        {
            "model": {"experiment": "x"},
            "output": OUTPUT,
            "input": {"source": SOURCE, "category": "set", "layout": "labelled"} | fields,
        }
    )


def manifest(task: str = "segmentation") -> ModelManifest:
    return model_manifest(RUN, input_height=32, input_width=32, task=task)


def keys(listed: ListedDataset) -> dict[str, list[str]]:
    found = listed.dataset
    splits = {"train": found.train, "validation": found.validation, "test": found.test}
    return {name: [sample.key for sample in samples] for name, samples in splits.items() if samples}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data set below data/set, beside another one."""
    write(tmp_path, *(f"set/{key}" for key in FILES), "other/train/good/9.png")
    return tmp_path


# What is listed


def test_the_files_of_the_category_are_listed_in_the_order_of_their_use(folder: Path) -> None:
    here = context(folder)
    listed = list_experiment(experiment(), here)
    assert [info.key for info in listed.objects] == [
        *(f"train/good/{index}.png" for index in range(4)),
        *("test/dent/0.png", "ground_truth/dent/0_mask.png", "test/good/0.png", "test/good/1.png"),
    ]
    assert listed.store.uri == str(folder / "data/set")
    assert (listed.cache, listed.valid_area) == (None, None)
    assert set(here.record.seconds) == {Stage.FETCH, Stage.DATASET}
    assert here.record.warnings == ()


def test_without_a_category_images_lie_below_the_source(tmp_path: Path) -> None:
    write(tmp_path, *FILES)
    assert list_experiment(experiment(category=None), context(tmp_path)).store.uri == str(tmp_path / "data")


def test_what_is_noticed_about_a_data_set_is_told(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(folder, "set/normal/0.png")
    here = context(folder)
    with caplog.at_level(logging.INFO):
        list_experiment(experiment(), here)
    assert here.record.warnings == ("1 images in folders that mean nothing are not used: normal/ (1)",)
    assert "MVTec AD: 4 good to learn from, 3 to test (good 2, dent 1), 1 masks" in caplog.messages


@pytest.mark.parametrize(
    ("dataset", "evaluation"),
    [({"task": "classification"}, {}), ({}, {"metrics": {"pixel": []}})],
    ids=["classification", "no pixel metrics"],
)
def test_without_a_use_for_masks_none_is_listed(
    folder: Path, dataset: dict[str, Any], evaluation: dict[str, Any]
) -> None:
    document = experiment(**dataset).model_dump(by_alias=True, exclude_unset=True, mode="json")
    spec = ExperimentSpec.model_validate(document | {"evaluation": evaluation})
    assert [info.key for info in list_experiment(spec, context(folder)).objects if "mask" in info.key] == []


def test_missing_splits_are_drawn_before_the_fraction_and_defects_painted_on_what_is_left(folder: Path) -> None:
    write(folder, *(f"set/test/good/{index}.png" for index in range(2, 10)))
    splits = {"validationFraction": 0.4, "syntheticDefects": {"images": 3}}
    listed = list_experiment(experiment(splits=splits, fraction=0.5), context(folder))
    # Of ten good images to test on, four serve for validation: two of these are kept, and three of the other six.
    painted = [sample for sample in listed.dataset.validation if sample.source]
    assert (len(listed.dataset.validation) - len(painted), len(painted)) == (2, 3)
    assert [sample.label for sample in listed.dataset.test].count("good") == 3
    assert {info.key for info in listed.objects} >= {sample.file for sample in painted}


def test_the_seed_of_the_spec_draws(folder: Path) -> None:
    write(folder, *(f"set/train/good/{index}.png" for index in range(4, 40)))
    drawn = {
        seed: keys(list_experiment(experiment(fraction=0.2, seed=seed), context(folder)))["train"] for seed in (1, 2)
    }
    assert drawn[1] != drawn[2]


def test_the_seed_of_the_spec_draws_missing_splits(folder: Path) -> None:
    write(folder, *(f"set/test/good/{index}.png" for index in range(2, 40)))
    specs = (experiment(splits={"validationFraction": 0.5}, seed=seed) for seed in (1, 2))
    first, second = (keys(list_experiment(spec, context(folder)))["validation"] for spec in specs)
    assert first != second


def test_the_seed_of_the_spec_draws_what_is_painted_on(folder: Path) -> None:
    write(folder, *(f"set/val/good/{index}.png" for index in range(30)))
    specs = (experiment(splits={"syntheticDefects": {"images": 5}}, seed=seed) for seed in (1, 2))
    first, second = (keys(list_experiment(spec, context(folder)))["validation"] for spec in specs)
    assert first != second


def test_the_category_of_real_iad_is_no_folder(tmp_path: Path) -> None:
    images = {f"OK/{index}.jpg": "OK" for index in range(3)} | {"NG/0.jpg": "HS"}
    write(tmp_path, *(f"r/set/{path}" for path in images))
    entries = [{"image_path": path, "anomaly_class": word} for path, word in images.items()]
    write(tmp_path, "lists/set.json", content=json.dumps(entries).encode())
    listed = list_experiment(experiment(layout="realIad"), context(tmp_path))
    assert (len(listed.dataset.train), keys(listed)["test"][0]) == (2, "r/set/NG/0.jpg")


def test_the_split_of_visa_lies_beside_its_categories(tmp_path: Path) -> None:
    write(tmp_path, *(f"set/Data/Images/Normal/{index}.JPG" for index in range(4)), "set/Data/Images/Anomaly/0.JPG")
    rows = [f"set,train,normal,set/Data/Images/Normal/{index}.JPG," for index in range(3)]
    rows += ["set,test,normal,set/Data/Images/Normal/3.JPG,", "set,test,anomaly,set/Data/Images/Anomaly/0.JPG,"]
    write(tmp_path, "split_csv/1cls.csv", content="\n".join(["object,split,label,image,mask", *rows]).encode())
    assert keys(list_experiment(experiment(), context(tmp_path))) == {
        "train": [f"Data/Images/Normal/{index}.JPG" for index in range(3)],
        "test": ["Data/Images/Anomaly/0.JPG", "Data/Images/Normal/3.JPG"],
    }


# What an inference lists


@pytest.mark.parametrize(
    ("layout", "found"),
    [
        ("labelled", {"test/dent/0.png": "dent", "test/good/0.png": "good", "test/good/1.png": "good"}),
        ("flat", dict.fromkeys(sorted(FILES), "unknown")),
    ],
)
def test_an_inference_scores_the_images_of_its_layout(folder: Path, layout: str, found: dict[str, str]) -> None:
    here = context(folder)
    listed = list_inference(inference(layout=layout), manifest(), here)
    assert {sample.key: sample.label for sample in listed.dataset.test} == found
    assert listed.store.uri == str(folder / "data/set")
    assert set(here.record.seconds) == {Stage.FETCH, Stage.DATASET}
    assert listed.cache is None


def test_a_folder_without_images_to_score_is_named(folder: Path) -> None:
    with pytest.raises(DataInvalid, match=rf"^no images below {folder}/data/nothing: expected images$"):
        list_inference(inference(category="nothing", layout="flat"), manifest(), context(folder))


@pytest.mark.parametrize(("task", "masks"), [("segmentation", 1), ("classification", 0)])
def test_a_model_that_knows_no_pixels_needs_no_masks(folder: Path, task: str, masks: int) -> None:
    listed = list_inference(inference(), manifest(task), context(folder))
    assert sum(len(sample.masks) for sample in listed.dataset.test) == masks


def test_the_suffix_and_the_limits_of_an_inference_count(folder: Path) -> None:
    write(folder, "set/test/dent/1.png", "set/ground_truth/dent/1-gt.png")
    write(folder, "set/test/dent/scan.png", content=bytes(2))
    limits = {"maxImagePixels": 1024}
    spec = inference(maskSuffix="-gt", limits=limits)
    os.truncate(folder / "data/set/test/dent/scan.png", 16 * 1024 + (64 << 20) + 1)
    listed = list_inference(spec, manifest(), context(folder))
    assert {sample.key: sample.masks for sample in listed.dataset.test if sample.masks} == {
        "test/dent/1.png": ("ground_truth/dent/1-gt.png",)
    }
    assert [image.path for image in listed.dataset.unreadable] == ["test/dent/scan.png"]


@pytest.fixture
def prepared(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """A builtin dataset is laid out in data/set as soon as 3 MiB are downloaded; returns what was asked for."""
    asked: list[dict[str, Any]] = []

    def prepare(spec: Any, category: str | None, work: Path, **options: Any) -> Path:
        options.pop("advance")(3 << 20)
        options.pop("check")()
        asked.append({"name": spec.name, "category": category, "work": work} | options)
        return folder / "data/set"

    monkeypatch.setattr(fetch, "prepare", prepare)
    return asked


BUILTIN: dict[str, Any] = {"source": {"builtin": {"name": "mvtec"}}, "category": "screw"}


@pytest.mark.parametrize(("layout", "count"), [("flat", 4), ("labelled", 3)])
def test_a_builtin_dataset_is_laid_out_and_its_test_images_are_scored(
    folder: Path, layout: str, count: int, prepared: list[dict[str, Any]]
) -> None:
    """In the flat layout all images below test/ are, also those in no folder of a label."""
    write(folder, "set/test/loose.png")
    here = context(folder)
    listed = list_inference(inference(layout=layout, **BUILTIN), manifest(), here)
    assert len(listed.dataset.test) == count
    work = here.work / "builtin"
    assert prepared == [{"name": "mvtec", "category": "screw", "work": work, "catalog": PUBLISHED, "cache": None}]


@pytest.mark.parametrize("kind", ["experiment", "inference"])
def test_a_builtin_dataset_is_made_of_the_files_of_the_catalog_that_may_lie_in_the_cache(
    folder: Path, kind: str, prepared: list[dict[str, Any]]
) -> None:
    here, catalog = cached(folder), replace(PUBLISHED)
    fields = BUILTIN | {"cache": {"node": {}}}
    if kind == "experiment":
        listed = list_experiment(experiment(**fields), here, catalog)
    else:
        listed = list_inference(inference(**fields), manifest(), here, catalog)
    assert prepared[0]["catalog"] is catalog
    assert prepared[0]["cache"] is not_none(listed.cache)


# What the next step needs not list again


def stored(folder: Path, spec: ExperimentSpec) -> Listing:
    here = context(folder)
    return store_listing(list_experiment(spec, here), here)


def file_of(folder: Path) -> Path:
    return folder / "results" / RUN.folder / LISTING


def test_the_next_step_sees_what_the_first_has_listed(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    known = stored(folder, experiment())
    assert known == Listing(file=LISTING, sha256=hashlib.sha256(file_of(folder).read_bytes()).hexdigest())
    write(folder, "set/train/good/new.png")
    with caplog.at_level(logging.INFO):
        listed = list_experiment(experiment(), context(folder), known=known)
    assert "train/good/new.png" not in keys(listed)["train"]
    assert all(info.pinned for info in listed.objects)
    (told,) = [record for record in caplog.records if record.name == fetch.__name__ and hasattr(record, "files")]
    assert (told.getMessage(), told.files) == ("the files are those that the step check has listed", 8)
    assert not [record for record in caplog.records if record.levelno > logging.INFO]
    assert "train/good/new.png" in keys(list_experiment(experiment(), context(folder)))["train"]


def test_what_was_drawn_is_not_drawn_again_by_the_next_step(folder: Path) -> None:
    """Or it would take half of the half."""
    write(folder, *(f"set/train/good/{index}.png" for index in range(4, 20)), "set/normal/0.png")
    spec = experiment(fraction=0.5)
    first = list_experiment(spec, context(folder))
    second = list_experiment(spec, context(folder), known=stored(folder, spec))
    assert len(first.dataset.train) == 10
    assert second.dataset == first.dataset


def test_a_listing_is_of_a_dataset_and_of_the_use_for_masks(folder: Path) -> None:
    spec = experiment()
    wanted = hashlib.sha256(f"experiment\0{spec.dataset.model_dump_json()}\0True".encode()).hexdigest()
    assert list_experiment(spec, context(folder)).selection == wanted
    known = stored(folder, spec)
    without = spec.model_copy(update={"evaluation": spec.evaluation.model_copy(update={"metrics": Metrics(pixel=())})})
    listed = list_experiment(without, context(folder), known=known)
    assert not any(info.pinned for info in listed.objects)
    other = inference()
    wanted = hashlib.sha256(f"inference\0{other.input.model_dump_json()}\0False".encode()).hexdigest()
    assert list_inference(other, manifest("classification"), context(folder)).selection == wanted


def test_an_inference_sees_what_was_listed_too(folder: Path) -> None:
    """Also what was noticed about images that it does not use."""
    write(folder, "set/normal/0.png")
    here = context(folder)
    known = store_listing(list_inference(inference(), manifest(), here), here)
    write(folder, "set/test/dent/new.png")
    listed = list_inference(inference(), manifest(), context(folder), known=known)
    assert "test/dent/new.png" not in keys(listed)["test"]
    assert listed.dataset.warnings == ("1 images in folders that mean nothing are not used: normal/ (1)",)
    assert all(info.pinned for info in listed.objects)
    # What a classifier needs of the same images is another listing.
    other = list_inference(inference(), manifest("classification"), context(folder), known=known)
    assert "test/dent/new.png" in keys(other)["test"]


def gone(file: Path) -> None:
    file.unlink()


def damaged(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("change", "dataset", "problem"),
    [
        (gone, {}, "it is gone"),
        (damaged, {}, "its SHA-256 differs"),
        (Path.touch, {"maskSuffix": "-gt"}, "it is of other images"),
        (Path.touch, {"task": "classification"}, "it is of other images"),
    ],
    ids=["gone", "damaged", "another suffix", "another task"],
)
def test_a_listing_that_is_of_no_use_is_named_and_the_files_are_listed_anew(
    folder: Path,
    change: Callable[[Path], None],
    dataset: dict[str, Any],
    problem: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    known = stored(folder, experiment())
    change(file_of(folder))
    write(folder, "set/train/good/new.png")
    listed = list_experiment(experiment(**dataset), context(folder), known=known)
    assert "train/good/new.png" in keys(listed)["train"]
    (told,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING][:1]
    assert LISTING in told
    assert told.endswith(problem)


def test_files_whose_changes_cannot_be_seen_are_counted(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    listed = list_experiment(experiment(), context(folder))
    objects = tuple(ObjectInfo(info.key, info.size, "" if "good" in info.key else "e") for info in listed.objects)
    content = to_parquet(FoundImages(listed.dataset, objects), listed.selection)
    file_of(folder).parent.mkdir(parents=True)
    file_of(folder).write_bytes(content)
    known = Listing(file=LISTING, sha256=hashlib.sha256(content).hexdigest())
    list_experiment(experiment(), context(folder), known=known)
    assert caplog.messages == ["the storage tells no ETag of 6 files: of these only the size shows a change"]


def failing(delete: RunFailed, upload: RunFailed | None) -> type[FolderStore]:
    """A folder in which nothing can be deleted, and nothing written either if ``upload`` is a failure."""

    class Failing(FolderStore):
        def delete(self, key: str) -> None:
            raise delete

        def upload(self, file: Path, key: str) -> None:
            if upload is not None:
                raise upload
            super().upload(file, key)

        def subfolder(self, prefix: str) -> "Failing":
            return Failing(self.root / prefix)

    return Failing


@pytest.mark.parametrize(
    ("delete", "upload", "told"),
    [
        (StorageUnavailable("it is down"), None, "cannot be deleted: it is down"),
        (StorageDenied("no"), StorageUnavailable("it is down"), "cannot be deleted or replaced: it is down"),
    ],
)
def test_a_listing_that_is_out_of_date_and_stays_is_logged(
    folder: Path, delete: RunFailed, upload: RunFailed | None, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    discard_listing(Listing(file=LISTING, sha256="0" * 64), context(folder, failing(delete, upload)))
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.getMessage() == f"the listing {LISTING} is out of date and {told}"


# The valid area, the cache, and the files


def area(folder: Path, pixels: list[list[int]]) -> None:
    Image.fromarray(np.array(pixels, np.uint8)).save(folder / "data/set/area.png")


def test_the_valid_area_is_read_below_the_category_and_is_no_image(folder: Path) -> None:
    area(folder, [[255, 0]])
    here = context(folder)
    listed = list_experiment(experiment(validAreaMask="area.png"), here)
    assert np.asarray(not_none(listed.valid_area).mask).tolist() == [[True, False]]
    assert here.record.warnings == ()


def test_what_is_odd_about_the_valid_area_is_told(folder: Path) -> None:
    area(folder, [[255, 1]])
    here = context(folder)
    list_experiment(experiment(validAreaMask="area.png"), here)
    assert here.record.warnings == ("validAreaMask area.png has no black pixel, so that nothing is ignored",)


def test_a_valid_area_that_is_missing_is_named(folder: Path) -> None:
    with pytest.raises(DataInvalid, match=rf"^validAreaMask area\.png is missing in {folder}/data/set$"):
        list_experiment(experiment(validAreaMask="area.png"), context(folder))


def test_a_valid_area_that_is_no_image_or_too_large_is_refused(folder: Path) -> None:
    write(folder, "set/area.png", content=b"text")
    with pytest.raises(DataInvalid, match=r"^validAreaMask area\.png cannot be read"):
        list_experiment(experiment(validAreaMask="area.png"), context(folder))
    area(folder, [[255] * 100] * 100)
    with pytest.raises(DataInvalid, match=r"100 x 100 pixels are more than maxImagePixels 4096"):
        list_experiment(experiment(validAreaMask="area.png", limits={"maxImagePixels": 4096}), context(folder))


def test_a_valid_area_that_the_models_size_or_the_crop_loses_fails_before_images_are_pulled(folder: Path) -> None:
    """Of 64 rows the first, third and so on are left out at a height of 32; of 128 columns too."""
    pixels = np.zeros((64, 128), np.uint8)
    pixels[0, :] = 255
    area(folder, pixels.tolist())
    with pytest.raises(DataInvalid, match="black everywhere"):
        list_experiment(experiment(validAreaMask="area.png"), context(folder))
    pixels[:, :64] = 255
    area(folder, pixels.tolist())
    list_experiment(experiment(validAreaMask="area.png"), context(folder))
    crop = {"left": 64, "top": 1, "width": 64, "height": 63}
    with pytest.raises(DataInvalid, match="black everywhere inside cropArea"):
        list_experiment(experiment(validAreaMask="area.png", cropArea=crop), context(folder))


NO_CACHE = "there is no node cache here: every run pulls its files anew"


@pytest.mark.usefixtures("disk_with_space")
@pytest.mark.parametrize("kind", ["experiment", "inference"])
def test_a_cache_is_used_where_there_is_a_folder_for_it(folder: Path, kind: str) -> None:
    def listed(here: Context) -> ListedDataset:
        if kind == "experiment":
            return list_experiment(experiment(cache={"node": {}}), here)
        return list_inference(inference(cache={"node": {}}), manifest(), here)

    here = context(folder)
    assert listed(here).cache is None
    assert here.record.warnings == (NO_CACHE,)
    there = cached(folder)
    not_none(listed(there).cache).store(CacheEntry.of_name("a"), b"1")
    assert [file.read_bytes() for file in (folder / "cache").rglob("*") if file.is_file()] == [b"1"]
    assert there.record.warnings == ()


def test_what_is_said_of_the_cache_comes_after_what_numbers_depend_on(folder: Path) -> None:
    write(folder, "set/normal/0.png")
    here = context(folder)
    list_experiment(experiment(cache={"node": {}}), here)
    assert here.record.warnings[-1] == NO_CACHE
    assert len(here.record.warnings) == 2


def test_files_are_there_to_be_read_in_the_order_of_their_use(folder: Path) -> None:
    here = context(folder)
    listed = list_experiment(experiment(), here)
    brought = prefetch_images(listed, here)
    assert [brought.path(info.key).read_bytes() for info in listed.objects] == [b"1"] * 8
    brought.close()


class Remote(FolderStore):
    """A folder whose files cannot be read in place."""

    @property
    def local_root(self) -> Path | None:
        return None

    def subfolder(self, prefix: str) -> "Remote":
        return Remote(self.root / prefix)


@pytest.mark.usefixtures("disk_with_space")
def test_files_are_pulled_into_the_scratch_folder_and_kept_in_the_cache(folder: Path) -> None:
    there = cached(folder)
    here = make_context(there.work, stores={**there.stores, LocationRole.DATASET: Remote(folder / "data")})
    listed = list_experiment(experiment(cache={"node": {}}), here)
    brought = prefetch_images(listed, here)
    files = [brought.path(info.key) for info in listed.objects]
    brought.close()
    assert all(file.is_relative_to(here.work / "dataset") and file.read_bytes() == b"1" for file in files)
    assert [file.read_bytes() for file in (folder / "cache").rglob("*") if file.is_file()] == [b"1"] * 8


def test_waiting_for_a_file_ends_where_the_run_is_to_stop(folder: Path) -> None:
    there = context(folder)
    here = make_context(there.work, stores={**there.stores, LocationRole.DATASET: Remote(folder / "data")})
    listed = list_experiment(experiment(), here)
    brought = prefetch_images(listed, here)
    here.stop.set()
    with pytest.raises(Stopped):
        brought.path(listed.objects[0].key)
    brought.close()


def test_a_cache_that_fails_is_told_after_what_is_said_of_the_images(folder: Path) -> None:
    write(folder, "set/normal/0.png")
    here = cached(folder)
    listed = list_experiment(experiment(cache={"node": {}}), here)
    (folder / "cache").write_text("in the way")
    not_none(listed.cache).store(CacheEntry.of_name("a"), b"1")
    here.record.warn("something of the run")
    assert here.record.warnings[1] == "something of the run"
    assert "the data cache cannot be" in here.record.warnings[2]


def test_the_download_of_a_builtin_dataset_is_shown_in_megabytes(
    folder: Path, prepared: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """MVTec AD has 5,264,982,680 bytes, which are 5021.08 times 2**20."""
    here, told = context(folder), list[tuple[Any, ...]]()
    monkeypatch.setattr(here.progress, "enter", lambda *values: told.append(values))
    list_experiment(experiment(**BUILTIN), here)
    assert told == [(Stage.FETCH, 5021, "MB"), (Stage.FETCH, 0, "images"), (Stage.DATASET, 0, "images")]
    assert len(prepared) == 1


def test_progress_of_a_download_is_in_whole_megabytes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, told = context(folder), list[int]()
    monkeypatch.setattr(here.progress, "advance", told.append)
    meter = fetch._MegabyteMeter(here)
    for count in ((1 << 20) - 1, 1, 1, 3 << 20):
        meter.advance(count)
    assert told == [0, 1, 0, 3]
