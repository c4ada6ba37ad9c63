"""Which images the thresholds of an experiment are chosen on, and which ones they are evaluated on."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
import torch
from sklearn.metrics import f1_score, precision_recall_curve

from anomaly_api.dataset import DatasetLimits
from anomaly_api.experiment import ExperimentSpec
from anomaly_api.run import ModelManifest, RunReport
from anomaly_api.status import ThresholdValues
from anomaly_runner import experiment
from anomaly_runner.context import Context
from anomaly_runner.data.batches import IntegrityLog
from anomaly_runner.data.preprocessor import Preprocessor
from anomaly_runner.data.samples import DatasetIndex, Sample
from anomaly_runner.local import run_locally
from anomaly_runner.models.threads import TorchThreads
from anomaly_runner.scoring.predict import Predictions
from anomaly_runner.storage import FolderStore, Prefetcher
from anomaly_runner.training.inputs import ExperimentInputs
from support.contexts import make_context
from support.optional import not_none
from support.textures import EXPERIMENT, Document, write_manifest

SIZE = (2, 2)


def samples(folder: str, *labels: str) -> tuple[Sample, ...]:
    return tuple(Sample(f"{folder}/{label}/{index}.png", label) for index, label in enumerate(labels))


TEST = samples("test", "good", "good", "dent")
VALIDATION = samples("val", "good", "dent", "dent")
MARKED = samples("test", "good", "dent")


def scored(of: tuple[Sample, ...], *scores: float) -> Predictions:
    """Predictions whose maps have a tenth of the image's score in their first pixel, and 0 elsewhere."""
    values = np.array(scores, np.float32)
    maps = np.zeros((len(of), *SIZE), np.float32)
    maps[:, 0, 0] = values / 10
    return Predictions(of, values, maps, (0.0, float(maps.max())), max_pixel_scores=maps.max((1, 2)))


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return make_context(tmp_path)


def inputs_of(context: Context, **evaluation: Any) -> ExperimentInputs:
    spec = ExperimentSpec.model_validate(
        {
            "dataset": {"source": {"s3": {"uri": "s3://data"}}},
            "model": {"name": "padim"},
            "output": {"s3": {"uri": "s3://results"}},
            "evaluation": evaluation,
        }
    )
    return ExperimentInputs(
        spec=spec,
        dataset=DatasetIndex(test=TEST, validation=VALIDATION),
        prefetcher=Prefetcher(context.work, lambda: None),
        preprocessor=Preprocessor(height=2, width=2, normalization="none"),
        integrity=IntegrityLog(DatasetLimits()),
        threads=TorchThreads(torch.device("cpu")),
        weights=context.work,
        artifacts=FolderStore(context.work),
        context=context,
    )


def test_thresholds_are_chosen_on_the_validation_images_and_evaluated_on_the_others(context: Context) -> None:
    """On the validation images 30 is best, on the test images 70; at 30 one of the good test images is an alarm."""
    test, validation = scored(TEST, 10, 40, 70), scored(VALIDATION, 20, 30, 90)
    found, good = experiment._evaluate(inputs_of(context), test, validation)
    assert not_none(good).scores == (20.0,)
    assert found.thresholds == ThresholdValues(image=30.0, pixel=3.0, source="adaptive")
    assert found.anomalous.tolist() == [False, True, True]
    assert found.metrics.image["F1Score"] == pytest.approx(2 / 3)
    assert not_none(found.confusion).false_positives == 1
    assert context.record.warnings == ()
    # One scale for both: from the lowest to the highest score of all of them.
    assert dict(found.normalizer.ranges) == {"image": (10.0, 90.0), "pixel": (0.0, 9.0)}
    assert found.normalized_scores == pytest.approx([0.5 - 20 / 80, 0.5 + 10 / 80, 0.5 + 40 / 80])


def test_without_validation_images_the_test_images_have_to_do_and_it_is_said(context: Context) -> None:
    found, _ = experiment._evaluate(inputs_of(context), scored(TEST, 10, 40, 70), None)
    assert found.thresholds == ThresholdValues(image=70.0, pixel=7.0, source="adaptive")
    assert dict(found.normalizer.ranges) == {"image": (10.0, 70.0), "pixel": (0.0, 7.0)}
    (warning,) = context.record.warnings
    assert warning.startswith("no validation images (val/, or splits.validationFraction): the thresholds were chosen")


def test_manual_thresholds_are_chosen_on_nothing(context: Context) -> None:
    inputs = inputs_of(context, threshold={"method": "manual", "image": 50, "pixel": 4})
    found, _ = experiment._evaluate(inputs, scored(TEST, 10, 40, 70), None)
    assert found.thresholds == ThresholdValues(image=50.0, pixel=4.0, source="manual")
    assert context.record.warnings == ()


@pytest.mark.parametrize("part", ["test", "validation"])
def test_images_whose_class_is_missing_are_named_by_their_part(context: Context, part: str) -> None:
    good = scored(samples("val", "good", "good"), 10, 20)
    everything = scored(TEST, 10, 40, 70)
    experiment._evaluate(inputs_of(context), *((good, None) if part == "test" else (everything, good)))
    said = f"no defective {part} images: the threshold is just above the highest good score"
    assert any(warning.startswith(said) for warning in context.record.warnings)


@pytest.fixture
def with_validation(textures: Path) -> Path:
    """The textures, with validation images of their own."""
    data = textures / "data/textures"
    for label in ("good", "scratch"):
        for file in sorted((data / "test" / label).iterdir())[:2]:
            target = data / "val" / label / f"v{file.name}"
            target.parent.mkdir(parents=True, exist_ok=True)
            file.rename(target)
    for mask in data.glob("ground_truth/scratch/*"):
        if not (data / "test/scratch" / mask.name.replace("_mask", "")).exists():
            (data / "ground_truth/val/scratch").mkdir(parents=True, exist_ok=True)
            mask.rename(data / "ground_truth/val/scratch" / f"v{mask.name}")
    return textures


def run(folder: Path, **changes: Any) -> tuple[RunReport, ModelManifest, list[dict[str, Any]]]:
    def change(document: Document) -> None:
        document["spec"] |= {"export": {"types": []}, "evaluation": changes}

    assert run_locally(write_manifest(folder, EXPERIMENT, change), folder) == 0
    root = folder / "results/factory/textures/local"
    report = RunReport.model_validate_json((root / "report.json").read_bytes())
    manifest = ModelManifest.model_validate_json((root / "model.json").read_bytes())
    return report, manifest, pyarrow.parquet.read_table(root / "predictions.parquet").to_pylist()


def best_f1(rows: list[dict[str, Any]]) -> float:
    """The lowest threshold with the best F1, by scikit-learn."""
    known = [row for row in rows if row["defect"] is not None]
    defects, scores = [row["defect"] for row in known], [row["score"] for row in known]
    _, _, thresholds = precision_recall_curve(defects, scores)
    found = [f1_score(defects, np.array(scores) >= threshold) for threshold in thresholds]
    return max(
        float(value) for value, f1 in zip(thresholds, found, strict=True) if f1 == max(found) and value in scores
    )


@pytest.mark.slow
def test_a_run_with_validation_images(with_validation: Path) -> None:
    """The same model, from the same training images, has the validation images as its test images the second time."""
    first, manifest, tested = run(with_validation)
    assert first.thresholds_from == "validation"
    assert not_none(first.summary.images).validation == 4
    assert not any(row["path"].startswith("val/") for row in tested)
    data = with_validation / "data/textures"
    (data / "test").rename(data / "elsewhere")
    (data / "val").rename(data / "test")
    for mask in list((data / "ground_truth/val/scratch").iterdir()):
        mask.rename(data / "ground_truth/scratch" / mask.name)
    second, _, validated = run(with_validation)
    assert second.thresholds_from == "test"
    expected = best_f1(validated)
    assert expected != best_f1(tested)
    assert not_none(first.summary.thresholds).image == pytest.approx(expected, rel=1e-6)
    assert manifest.thresholds == first.summary.thresholds
    seen = [row["score"] for row in (*tested, *validated)]
    assert manifest.score_range["image"] == pytest.approx((min(seen), max(seen)), rel=1e-6)
