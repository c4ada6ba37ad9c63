"""Twenty trials of a sweep, one after the other, beside twenty plain experiments with the same specs, in real pods.

Both sides run PaDiM with a ResNet-18 of random weights on textures of 512 px, at 256 px, with the operator, the S3
server and the images of `make demo`. A plain experiment is applied as soon as the one before it is seen to be Complete.
Sides take turns (sweep, plain, plain, sweep), each time with half of the trials; the sweep's end (`final: report`) is
not counted. What is printed: the seconds from one end to the next, and those of each stage::

    eval "$(hack/cluster/cluster env)"; export $(hack/images/images)
    python -m benchmarks.sweep_overhead [--images 60 600] [--trials 20] [--cache] [--write]

``--cache`` gives all of them one cache, a claim of the default StorageClass, in which a run before has left its files.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / folder) for folder in ("crds", "search", "operator", "runner", "tests")]

from benchmarks.tables import Spread, Table, add_write, publish  # noqa: E402
from benchmarks.trial_timeline import STAGES, Moments, Watch, durations, now, stage_moments  # noqa: E402
from hack.demo import install  # noqa: E402
from hack.demo.flow import s3_client  # noqa: E402
from hack.demo.storage import Client, list_objects, upload_folder  # noqa: E402
from support.kube import Manifest, Namespace, kubectl  # noqa: E402

SIDE = 512
"""Rows and columns of the pictures: with noise, some 500 KB as PNG."""
CLAIM = "trials-cache"
BUCKET = "data"


class Ended(NamedTuple):
    """One run: the seconds from the end before it to its own, and those of its stages."""

    seconds: float
    stages: Moments


def write_textures(root: Path, count: int) -> None:
    """Write pictures in MVTec's folders: two thirds to learn from, the others to test on, half of them scratched."""
    import skimage.data

    photograph = skimage.data.gravel()
    for folder in ("train/good", "test/good", "test/scratch", "ground_truth/scratch"):
        (root / folder).mkdir(parents=True)
    for number in range(count):
        random = np.random.default_rng(number)
        grey = np.roll(photograph, tuple(random.integers(0, SIDE, 2)), (0, 1))[..., None].astype(np.int16)
        image = Image.fromarray(np.clip(grey + random.integers(-6, 7, (SIDE, SIDE, 3)), 0, 255).astype(np.uint8))
        if number % 3:
            image.save(root / f"train/good/{number:04d}.png")
        elif number % 2:
            image.save(root / f"test/good/{number:04d}.png")
        else:
            _scratched(image, [int(end) for end in random.integers(40, SIDE - 40, 4)]).save(
                root / f"ground_truth/scratch/{number:04d}_mask.png"
            )
            image.save(root / f"test/scratch/{number:04d}.png")


def _scratched(image: Image.Image, ends: list[int]) -> Image.Image:
    """Scratch a picture in place, and return the mask."""
    mask = Image.new("L", image.size)
    ImageDraw.Draw(image).line(ends, fill=(255, 255, 255), width=5)
    ImageDraw.Draw(mask).line(ends, fill=255, width=5)
    return mask


def experiment(name: str, images: int, cached: bool) -> Manifest:
    """Return an experiment without a sweep."""
    s3 = {"endpoint": "http://s3.anomaly-demo.svc:7070", "region": "us-east-1", "credentialsSecret": install.SECRET}
    dataset: Manifest = {"source": {"s3": s3 | {"uri": f"s3://{BUCKET}"}}, "category": f"textures-{images}"}
    if cached:
        dataset["cache"] = {"persistentVolumeClaim": {"claimName": CLAIM}}
    spec = {
        "dataset": dataset,
        "model": {"name": "padim", "padim": {"backbone": "resnet18", "preTrained": False}},
        "output": {"s3": s3 | {"uri": "s3://results"}},
        "export": {"types": []},
        "scheduling": {"gpus": {"count": 0}, "resources": {"requests": {"cpu": "1", "memory": "2Gi"}}},
    }
    return {
        "apiVersion": "anomalyops.io/v1alpha1",
        "kind": "AnomalyExperiment",
        "metadata": {"name": name},
        "spec": spec,
    }


def sweep(name: str, images: int, cached: bool, trials: int) -> Manifest:
    """Return the same experiment with a sweep of trials that take equally long."""
    manifest = experiment(name, images, cached)
    manifest["spec"]["sweep"] = {
        "parameters": [{"path": "model.padim.nFeatures", "int": {"low": 40, "high": 60}}],
        "algorithm": {"name": "random", "seed": 7},
        "objectives": [{"metric": "image.AUROC", "goal": "maximize"}],
        "trials": {"max": trials, "parallel": 1},
        "final": "report",
    }
    return manifest


class Bench:
    """The namespace of the measurement and what was seen in it."""

    def __init__(self, namespace: Namespace, watch: Watch) -> None:
        self._namespace = namespace
        self._watch = watch

    def run_sweep(self, manifest: Manifest, trials: int) -> list[Ended]:
        """Run a sweep until its end, and return its trials in their order."""
        name = manifest["metadata"]["name"]
        begin = now()
        self._namespace.apply(manifest)
        self._watch.wait(name, "complete", 3600)
        names = self._watch.names(f"{name}-t")
        if len(names) != trials:
            raise SystemExit(f"{name} has {len(names)} trials")
        return self._ended(names, begin)

    def run_plain(self, prefix: str, specs: Sequence[Manifest]) -> list[Ended]:
        """Run experiments one after the other."""
        begin, names = now(), [f"{prefix}-{number:03d}" for number in range(len(specs))]
        for name, spec in zip(names, specs, strict=True):
            self._namespace.apply(experiment(name, 0, False) | {"spec": spec})
            self._watch.wait(name, "complete")
        return self._ended(names, begin)

    def specs(self, sweep_name: str) -> list[Manifest]:
        """Return the specs of a sweep's trials as plain experiments have them."""
        found = [self._namespace.get("aexp", name)["spec"] for name in self._watch.names(f"{sweep_name}-t")]
        return [{field: value for field, value in spec.items() if field != "trial"} for spec in found]

    def _ended(self, names: list[str], begin: float) -> list[Ended]:
        found, before = [], begin
        for name, following in zip(names, [*names[1:], ""], strict=True):
            moments = self._watch.moments(name) | stage_moments(self._namespace.name, name)
            if following:
                moments["next"] = self._watch.moments(following)["experiment"]
            found.append(Ended(moments["complete"] - before, durations(moments)))
            before = moments["complete"]
        return found


def compare(bench: Bench, images: int, cached: bool, trials: int) -> Table:
    """Run both sides in turns, and return their table."""
    label = f"{images}{'-cached' if cached else ''}"
    half = trials // 2
    plain, swept = list[Ended](), list[Ended]()
    bench.run_plain(f"warm-{label}", [experiment("", images, cached)["spec"]])
    for turn in ("a", "b"):
        name = f"sweep-{label}-{turn}"
        if turn == "a":
            swept += bench.run_sweep(sweep(name, images, cached, half), half)
            specs = bench.specs(name)
        plain += bench.run_plain(f"plain-{label}-{turn}", specs)
        if turn == "b":
            swept += bench.run_sweep(sweep(name, images, cached, half), half)
    return table(f"sweep-overhead-{label}", swept, plain)


def table(name: str, swept: Sequence[Ended], plain: Sequence[Ended]) -> Table:
    """Return the table of both sides: all runs, one run, and a run's stages."""
    sums = [sum(run.seconds for run in side) for side in (swept, plain)]
    rows = [
        [f"all {len(swept)}, one after the other", *(f"{seconds:.1f} s" for seconds in sums)],
        ["beside the other side", f"{100 * (sums[0] / sums[1] - 1):+.1f} %", "-"],
        ["one", *(Spread.of([run.seconds for run in side]).text(" s") for side in (swept, plain))],
    ]
    for stage in STAGES:
        sides = [[run.stages[stage] for run in side if stage in run.stages] for side in (swept, plain)]
        rows.append([stage, *(Spread.of(values).text(" s") if values else "-" for values in sides)])
    return Table(name, ("", "trials of a sweep", "plain"), rows, ("anomaly-operator", "torch"))


@contextmanager
def prepared(sizes: Sequence[int]) -> Iterator[Bench]:
    """Install what is needed, upload the pictures, and yield a namespace, which is deleted at the end."""
    install.install_services()
    install.install_operator()
    namespace = Namespace("sweep-overhead")
    kubectl("create", "namespace", namespace.name)
    try:
        keys = install.credentials()
        secret = {"AWS_ACCESS_KEY_ID": keys.access_key, "AWS_SECRET_ACCESS_KEY": keys.secret_key}
        namespace.apply(
            {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": install.SECRET}, "stringData": secret}, _claim()
        )
        with s3_client() as client, Watch(namespace.name) as watch:
            _upload(client, sizes)
            yield Bench(namespace, watch)
    finally:
        kubectl("delete", "namespace", namespace.name)


def _claim() -> dict[str, Any]:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "5Gi"}}}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": CLAIM}, "spec": spec}


def _upload(client: Client, sizes: Sequence[int]) -> None:
    with TemporaryDirectory() as folder:
        for images in sizes:
            if not list_objects(client, BUCKET, f"textures-{images}/"):
                write_textures(Path(folder, f"textures-{images}"), images)
        upload_folder(client, Path(folder), BUCKET)


def main() -> None:
    """Compare the sides for each number of images."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, nargs="+", default=[60, 600])
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--cache", action="store_true")
    add_write(parser)
    options = parser.parse_args()
    with prepared(options.images) as bench:
        for images in options.images:
            found = compare(bench, images, options.cache, options.trials)
            publish([found], options.write)


if __name__ == "__main__":
    main()
