"""Stage evaluate: raw scores to thresholds, decisions, metrics and normalised scores. numpy alone."""

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Literal

import numpy as np
from numpy.typing import NDArray

from anomaly_api.evaluation import Evaluation, Metrics, Threshold
from anomaly_api.run import ConfusionMatrix, LabelSummary, Mistake, ScoreHistogram
from anomaly_api.status import MetricValues, ThresholdValues
from anomaly_runner.data.masks import MaskReader
from anomaly_runner.data.samples import GOOD
from anomaly_runner.errors import DataInvalid
from anomaly_runner.evaluation.curves import Ranked, auroc, average_precision, best_f1_threshold, count_at, rank
from anomaly_runner.evaluation.intervals import image_intervals
from anomaly_runner.evaluation.regions import aupro
from anomaly_runner.scoring.predict import Predictions

_BINS = 40
_MISTAKES = 100
ScoreRange = dict[str, tuple[float, float]]


@dataclass(frozen=True)
class ScoreScale:
    """How raw scores are shown. minMax and threshold need the thresholds, minMax also the ranges."""

    method: Literal["minMax", "threshold", "none"]
    thresholds: ThresholdValues
    ranges: Mapping[str, tuple[float, float]]
    pixel_threshold_from: Literal["image", "pixel"] = "pixel"

    def image(self, scores: NDArray[np.float32]) -> NDArray[np.float64]:
        """Image scores as shown."""
        return self._scaled(scores, self.thresholds.image, "image")

    def pixel(self, scores: NDArray[np.float32]) -> NDArray[np.float64]:
        """Pixel scores as shown."""
        return self._scaled(scores, self.of_pixels(self.thresholds), "pixel")

    def of_pixels(self, thresholds: ThresholdValues) -> float | None:
        """The one of them that pixel scores are held against."""
        return thresholds.image if self.pixel_threshold_from == "image" else thresholds.pixel

    def _scaled(self, scores: NDArray[np.float32], threshold: float | None, level: str) -> NDArray[np.float64]:
        values = scores.astype(np.float64)
        if self.method == "none" or threshold is None:
            return values
        shown, limit = self._about(values - threshold, threshold, level)
        # Rounding must not lift a score onto the threshold that it does not reach.
        return np.where(values < threshold, np.minimum(shown, np.nextafter(limit, -np.inf)), shown)

    def _about(self, above: NDArray[np.float64], threshold: float, level: str) -> tuple[NDArray[np.float64], float]:
        """Scores above the threshold on the scale, and where the threshold is on it."""
        if self.method == "threshold":
            return 100 + 100 * above / percent_unit(threshold, self.ranges.get(level)), 100.0
        low, high = self.ranges.get(level, (0.0, 0.0))
        spread = high - low if high > low else 1.0
        return np.clip(above / spread + 0.5, 0, 1), 0.5


def percent_unit(threshold: float, seen: tuple[float, float] | None) -> float:
    """How much raw score is 100 percent of a threshold.

    That is the threshold itself where scores are distances. Flows answer log-likelihoods, so that thresholds may be
    negative: then it is their size, and 110 percent is still the more tolerant threshold. Of a threshold of 0, it is
    the spread of the scores seen.
    """
    low, high = seen or (0.0, 0.0)
    return abs(threshold) or (high - low) or 1.0


@dataclass(frozen=True)
class Truth:
    """Scores that have labels, by level, sorted: ``pixel`` is None where there are no masks.

    ``image_by_defect`` and ``pixel_by_defect``: those of one kind of defect beside all good ones. ``peaks``: each
    image's highest pixel; None where the model does not localise.
    """

    image: Ranked
    pixel: Ranked | None
    image_by_defect: Mapping[str, Ranked] = field(default_factory=dict)
    pixel_by_defect: Mapping[str, Ranked] = field(default_factory=dict)
    region_overlap: Callable[[], float | None] = lambda: None
    """AUPRO; maps are read again for it."""
    peaks: Ranked | None = None


@dataclass(frozen=True)
class Evaluated:
    """What the scores mean.

    ``anomalous`` (N,) and ``shown`` (N,), normalised scores, are in the order of the predictions.
    """

    thresholds: ThresholdValues
    metrics: MetricValues
    scale: ScoreScale
    anomalous: NDArray[np.bool_]
    shown: NDArray[np.float64]
    confusion: ConfusionMatrix | None
    labels: dict[str, LabelSummary]
    by_defect: dict[str, MetricValues] = field(default_factory=dict)
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    histogram: ScoreHistogram | None = None
    mistakes: tuple[Mistake, ...] = ()
    truth: Truth | None = None
    warnings: tuple[str, ...] = ()


def rank_truth(
    predictions: Predictions, masks: MaskReader | None, work: Path, valid: NDArray[np.bool_] | None = None
) -> Truth:
    """Sort what is labelled. Pixel scores are sorted in files that memory can let go of.

    Args:
        predictions: raw outputs, with maps if ``masks`` is given.
        masks: ground truth of a labelled sample; None for image level alone.
        work: folder for the files.
        valid: pixels that count (H, W); None where all do.
    """
    labelled = np.array([sample.defect is not None for sample in predictions.samples])
    positive = np.array([bool(sample.defect) for sample in predictions.samples])
    image = rank(predictions.scores[labelled], positive[labelled])
    kinds = {label: rank_of(predictions, label) for label in _defects(predictions)}
    by_defect = {label: Ranked(scores, image.negative) for label, scores in kinds.items()}
    peaks = None if predictions.peaks is None else rank(predictions.peaks[labelled], positive[labelled])
    if masks is None:
        return Truth(image, None, by_defect, peaks=peaks)
    good, pixels = _rank_pixels(predictions, masks, work, valid)
    return Truth(
        image,
        Ranked(_merged(pixels.values(), work), good),
        by_defect,
        {label: Ranked(scores, good) for label, scores in pixels.items()},
        lambda: aupro(_defective_maps(predictions, masks, valid), good) if len(good) else None,
        peaks,
    )


def rank_of(predictions: Predictions, label: str) -> NDArray[np.float32]:
    """Sorted image scores of one label."""
    chosen = np.array([sample.label == label for sample in predictions.samples])
    return np.sort(predictions.scores[chosen])


def _defects(predictions: Predictions) -> list[str]:
    return sorted({sample.label for sample in predictions.samples if sample.defect})


def _rank_pixels(
    predictions: Predictions, masks: MaskReader, work: Path, valid: NDArray[np.bool_] | None
) -> tuple[NDArray[np.float32], dict[str, NDArray[np.float32]]]:
    """Sorted scores of the good pixels, and of the defective ones by kind of defect."""
    assert predictions.maps is not None
    with ExitStack() as files:
        good = files.enter_context(tempfile.TemporaryFile(dir=work))
        kinds = {label: files.enter_context(tempfile.TemporaryFile(dir=work)) for label in _defects(predictions)}
        for sample, scores in zip(predictions.samples, predictions.maps, strict=True):
            if sample.defect is not None:
                mask = masks(sample)
                scores[_counted(~mask, valid)].tofile(good)
                if sample.defect:
                    scores[_counted(mask, valid)].tofile(kinds[sample.label])
        return _sorted_file(good), {label: _sorted_file(file) for label, file in kinds.items()}


def _counted(pixels: NDArray[np.bool_], valid: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
    return pixels if valid is None else pixels & valid


def _defective_maps(
    predictions: Predictions, masks: MaskReader, valid: NDArray[np.bool_] | None
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.bool_]]]:
    assert predictions.maps is not None
    for sample, scores in zip(predictions.samples, predictions.maps, strict=True):
        if sample.defect:
            yield scores, _counted(masks(sample), valid)


def _merged(parts: Iterable[NDArray[np.float32]], work: Path) -> NDArray[np.float32]:
    parts = list(parts)
    if len(parts) == 1:
        return parts[0]
    with tempfile.TemporaryFile(dir=work) as file:
        for part in parts:
            part.tofile(file)
        return _sorted_file(file)


def _sorted_file(file: IO[bytes]) -> NDArray[np.float32]:
    file.flush()
    if file.tell() == 0:
        return np.empty(0, np.float32)
    values = np.memmap(file, np.float32, "r+")
    values.sort()
    return values


def score_range(*scored: Predictions) -> ScoreRange:
    """Smallest and largest raw score seen, for image and pixel."""
    ends = {
        "image": [(float(one.scores.min()), float(one.scores.max())) for one in scored],
        "pixel": [one.pixel_range for one in scored if one.pixel_range],
    }
    return {level: (min(low for low, _ in seen), max(high for _, high in seen)) for level, seen in ends.items() if seen}


def experiment_thresholds(
    spec: Threshold, truth: Truth, judged: Literal["test", "validation"] = "test"
) -> tuple[ThresholdValues, tuple[str, ...]]:
    """Thresholds of an experiment, and warnings.

    Without masks of both classes, the pixel threshold is the one at which images are told apart best by their highest
    pixel: image and pixel scores can be of different scales.

    Args:
        spec: how they are found.
        truth: labelled scores.
        judged: whose scores these are.

    Raises:
        DataInvalid: no labelled image was readable.
    """
    if spec.method == "manual":
        pixel = spec.image if spec.pixel is None else spec.pixel
        return ThresholdValues(image=spec.image, pixel=pixel, source="manual"), ()
    if not len(truth.image.positive) and not len(truth.image.negative):
        raise DataInvalid(f"no labelled {judged} image can be read, and the threshold is to be found on them")
    ranked = truth.pixel if truth.pixel and truth.pixel.both_classes else truth.peaks
    pixel = _adaptive(ranked) if ranked else None
    thresholds = ThresholdValues(image=_adaptive(truth.image), pixel=pixel, source="adaptive")
    return thresholds, _one_sided(truth.image, judged)


def _adaptive(ranked: Ranked) -> float:
    if len(ranked.positive):
        return best_f1_threshold(ranked)
    # F1 is undefined without defects: the lowest threshold that raises no alarm on what is known to be good.
    return float(np.nextafter(ranked.negative[-1], np.float32(np.inf)))


def _one_sided(image: Ranked, judged: str) -> tuple[str, ...]:
    if image.both_classes:
        return ()
    if len(image.positive):
        return (f"no good {judged} images: the threshold finds every defect",)
    return (f"no defective {judged} images: the threshold is just above the highest good score",)


def evaluate(
    predictions: Predictions,
    truth: Truth,
    thresholds: ThresholdValues,
    *,
    scale: ScoreScale,
    metrics: Metrics,
    warnings: Sequence[str] = (),
) -> Evaluated:
    """Apply thresholds: decisions, metrics, normalised scores, summaries."""
    assert thresholds.image is not None
    anomalous = predictions.scores.astype(np.float64) >= thresholds.image
    values, lacking = _both_levels(truth, metrics, thresholds)
    intervals = {}
    if metrics.confidence_intervals and truth.image.both_classes:
        intervals = image_intervals(truth.image, count_at(truth.image, thresholds.image))
    return Evaluated(
        thresholds=thresholds,
        metrics=values,
        scale=scale,
        anomalous=anomalous,
        shown=scale.image(predictions.scores),
        confusion=_confusion(truth.image, thresholds.image),
        labels=_label_summaries(predictions, anomalous),
        by_defect=_by_defect(truth, metrics, thresholds),
        intervals={name: ends for name, ends in intervals.items() if name in metrics.image},
        histogram=_histogram(predictions),
        mistakes=_mistakes(predictions, anomalous, thresholds.image),
        truth=truth,
        warnings=(*warnings, *lacking),
    )


def _both_levels(truth: Truth, metrics: Metrics, thresholds: ThresholdValues) -> tuple[MetricValues, tuple[str, ...]]:
    assert thresholds.image is not None
    image, lacking = _metrics(truth.image, metrics.image, thresholds.image, "image")
    if truth.pixel is None or thresholds.pixel is None:
        return MetricValues(image=image), lacking
    pixel, more = _metrics(truth.pixel, metrics.pixel, thresholds.pixel, "pixel", truth.region_overlap)
    return MetricValues(image=image, pixel=pixel), (*lacking, *more)


def _metrics(
    ranked: Ranked,
    names: Sequence[str],
    threshold: float,
    level: str,
    region_overlap: Callable[[], float | None] = lambda: None,
) -> tuple[dict[str, float], tuple[str, ...]]:
    """Metrics by name; those that need both classes are left out where one is missing, with a warning."""
    if not len(ranked.positive) and not len(ranked.negative):
        return {}, ()
    if not ranked.both_classes:
        missing = "good" if not len(ranked.negative) else "defective"
        items = "images" if level == "image" else "pixels"
        return {}, (f"no {missing} {items} among the labelled ones: {level} metrics are left out",)
    counts = count_at(ranked, threshold)
    known: dict[str, Callable[[], float | None]] = {
        "AUROC": lambda: auroc(ranked),
        "AUPR": lambda: average_precision(ranked),
        "F1Score": lambda: counts.f1,
        "F1Max": lambda: count_at(ranked, best_f1_threshold(ranked)).f1,
        "Precision": lambda: counts.precision,
        "Recall": lambda: counts.recall,
        "Accuracy": lambda: counts.accuracy,
        "IoU": lambda: counts.iou,
        "Dice": lambda: counts.f1,
        "AUPRO": region_overlap,
    }
    values = {name: known[name]() for name in names}
    return {name: value for name, value in values.items() if value is not None}, ()


def _by_defect(truth: Truth, metrics: Metrics, thresholds: ThresholdValues) -> dict[str, MetricValues]:
    """Metrics of each kind of defect beside all good images (pixels); AUPRO is told for all kinds together."""
    found = {}
    for label, ranked in truth.image_by_defect.items():
        alone = Truth(ranked, truth.pixel_by_defect.get(label))
        found[label], _ = _both_levels(alone, metrics, thresholds)
    return found


def _histogram(predictions: Predictions) -> ScoreHistogram:
    scores = predictions.scores.astype(np.float64)
    edges = np.histogram_bin_edges(scores, _BINS)

    def counts(defect: bool | None) -> tuple[int, ...]:
        chosen = np.array([sample.defect is defect for sample in predictions.samples])
        return tuple(np.histogram(scores[chosen], edges)[0].tolist()) if chosen.any() or defect is not None else ()

    return ScoreHistogram(edges=tuple(edges.tolist()), good=counts(False), defect=counts(True), unknown=counts(None))


def _mistakes(predictions: Predictions, anomalous: NDArray[np.bool_], threshold: float) -> tuple[Mistake, ...]:
    wrong = [
        index
        for index, sample in enumerate(predictions.samples)
        if sample.defect is not None and sample.defect != bool(anomalous[index])
    ]
    wrong.sort(key=lambda index: -abs(float(predictions.scores[index]) - threshold))
    return tuple(
        Mistake(
            path=predictions.samples[index].key,
            label=predictions.samples[index].label,
            score=float(predictions.scores[index]),
        )
        for index in wrong[:_MISTAKES]
    )


def _confusion(ranked: Ranked, threshold: float) -> ConfusionMatrix | None:
    if not len(ranked.positive) and not len(ranked.negative):
        return None
    counts = count_at(ranked, threshold)
    return ConfusionMatrix(
        true_negatives=counts.true_negative,
        false_positives=counts.false_positive,
        false_negatives=counts.false_negative,
        true_positives=counts.true_positive,
    )


def _label_summaries(predictions: Predictions, anomalous: NDArray[np.bool_]) -> dict[str, LabelSummary]:
    labels = np.array([sample.label for sample in predictions.samples])
    ordered = sorted(set(labels.tolist()), key=lambda label: (label != GOOD, label))
    return {label: _summary(predictions.scores[labels == label], anomalous[labels == label]) for label in ordered}


def _summary(scores: NDArray[np.float32], anomalous: NDArray[np.bool_]) -> LabelSummary:
    mean = float(scores.mean(dtype=np.float64))
    return LabelSummary(images=len(scores), mean_score=mean, anomalous=int(anomalous.sum()))


def experiment_scale(spec: Evaluation, thresholds: ThresholdValues, ranges: ScoreRange) -> ScoreScale:
    """How an experiment's scores are shown."""
    return ScoreScale(spec.normalization, thresholds, ranges, spec.threshold_type)
