"""Public datasets from a local mirror: real digits as IDX files, a small archive laid out like MVTec AD."""

import gzip
import hashlib
import io
import socket
import tarfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from anomaly_api.dataset import BuiltinDataset
from anomaly_api.experiment import AnomalyExperiment, ExperimentSpec
from anomaly_api.inference import InferenceSpec
from anomaly_api.run import RunConfig
from anomaly_api.status import Stage
from anomaly_runner.context import Context
from anomaly_runner.data.builtin import PUBLISHED, files_of, prepare
from anomaly_runner.data.builtin.download import download
from anomaly_runner.data.builtin.mnist import read_idx
from anomaly_runner.data.fetch import list_experiment, list_inference, prefetch_images
from anomaly_runner.engine import execute
from anomaly_runner.errors import DataInvalid, InvalidConfig, RunFailed, Stopped, StorageUnavailable
from anomaly_runner.tracking.mlflow_tracker import LOCAL_UID
from support.contexts import make_context
from support.fake_web import FakeWeb, serve_files
from support.model_manifests import model_manifest
from support.optional import not_none
from support.public_datasets import NAMES, TRAIN, catalog, digit_set, idx_file, mnist_files, remote_file


def ignore(*_: object) -> None:
    """Ignore progress: neither counts nor stops."""


@pytest.fixture(scope="module")
def digits() -> dict[str, bytes]:
    return mnist_files()


def picture(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (value, value, value)).save(buffer, "PNG")
    return buffer.getvalue()


PRODUCTS = {
    f"{product}/{name}.png": picture(value)
    for product, value in (("bottle", 40), ("metal_nut", 90))
    for name in (
        "train/good/000",
        "train/good/001",
        "train/good/002",
        "test/good/000",
        "test/scratch/000",
        "ground_truth/scratch/000_mask",
    )
}


def tar_archive(files: dict[str, bytes], *special: tarfile.TarInfo) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:xz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        for member in special:
            tar.addfile(member)
    return buffer.getvalue()


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return make_context(tmp_path / "work")


def experiment(source: dict[str, Any], **dataset: Any) -> AnomalyExperiment:
    return AnomalyExperiment.model_validate(
        {
            "metadata": {"name": "x", "namespace": "ns"},
            "spec": {
                "dataset": {"source": {"builtin": source}, **dataset},
                "model": {"name": "padim", "padim": {}},
                "output": {"s3": {"uri": "s3://results"}},
            },
        }
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model": {"name": "padim", "padim": {"layers": ["layer9"]}}}, "layer9 are not in resnet18"),
        ({"training": {"devices": 2}, "scheduling": {"gpus": {"count": 0}}}, "padim trains on one device"),
        ({"model": {"name": "uflow"}}, "uflow takes images of 448 x 448"),
    ],
    ids=["layers", "devices", "size"],
)
def test_an_invalid_model_is_refused_before_anything_is_fetched(
    digits: dict[str, bytes], context: Context, fields: dict[str, Any], message: str
) -> None:
    with serve_files(digits) as web:
        spec = experiment({"name": "mnist", "goodLabel": 9, "mirror": web.url}).spec
        document = spec.model_dump(by_alias=True, exclude_unset=True) | fields
        config = RunConfig(
            run=context.run.model_copy(update={"uid": LOCAL_UID}), experiment=ExperimentSpec.model_validate(document)
        )
        with pytest.raises(InvalidConfig, match=message):
            execute(config, context)
    assert web.asked == []


def test_mnist_runs_like_any_other_dataset(digits: dict[str, bytes], context: Context) -> None:
    with serve_files(digits) as web:
        spec = experiment({"name": "mnist", "goodLabel": 9, "limit": 12, "mirror": web.url}).spec
        listed = list_experiment(spec, context, catalog(digits))
    counts = {label: sum(sample.label == label for sample in listed.dataset.test) for label in ("good", "0", "8")}
    assert counts == {"good": 12, "0": 12, "8": 12}
    assert len(listed.dataset.train) == 12
    images, labels = digit_set(TRAIN)
    prefetcher = prefetch_images(listed, context)
    for sample in listed.dataset.train:
        place = int(sample.key.rpartition("/")[2][:5])
        assert labels[place] == 9
        assert np.array_equal(np.asarray(Image.open(prefetcher.path(sample.key))), images[place])
    assert [path for path, _ in web.asked] == [f"/data/{name}" for name in NAMES]


def test_a_mirror_may_hold_other_files_with_digests_in_the_manifest(digits: dict[str, bytes], tmp_path: Path) -> None:
    """Uses the catalog as published, so that only the digests in the manifest make these files valid."""
    own = {name: f"sha256:{hashlib.sha256(content).hexdigest()}" for name, content in digits.items()}
    mnist = {"name": "mnist", "good_label": 3, "limit": 2}
    with serve_files(digits) as web:
        found = prepare(
            BuiltinDataset(**mnist, mirror=web.url, digests=own),
            None,
            tmp_path / "own",
            advance=ignore,
            check=ignore,
            catalog=PUBLISHED,
        )
        assert len(list(found.rglob("*.png"))) == 22
        del own[NAMES[3]]
        with pytest.raises(DataInvalid, match=rf"{NAMES[3]} is not the expected file: its md5"):
            prepare(
                BuiltinDataset(**mnist, mirror=web.url, digests=own),
                None,
                tmp_path / "other",
                advance=ignore,
                check=ignore,
                catalog=PUBLISHED,
            )


def test_a_digest_of_an_unknown_file_is_named() -> None:
    spec = BuiltinDataset(name="mvtec", mirror="http://mirror.invalid", digests={"mvtec.zip": f"sha256:{'0' * 64}"})
    with pytest.raises(InvalidConfig, match=r"no file mvtec\.zip; its files are mvtec_anomaly_detection\.tar\.xz"):
        files_of(spec, PUBLISHED)


def test_inference_scores_the_test_set(digits: dict[str, bytes], context: Context) -> None:
    manifest = model_manifest(context.run, input_height=32, input_width=32)
    with serve_files(digits) as web:
        source = {"builtin": {"name": "mnist", "goodLabel": 9, "mirror": web.url}}
        for layout, labels in (("labelled", {"good", *"012345678"}), ("flat", {"unknown"})):
            spec = InferenceSpec.model_validate(
                {
                    "model": {"experiment": "x"},
                    "output": {"s3": {"uri": "s3://results"}},
                    "input": {"layout": layout, "source": source},
                }
            )
            listed = list_inference(spec, manifest, context, catalog(digits))
            assert len(listed.dataset.test) == 150
            assert {sample.label for sample in listed.dataset.test} == labels


def test_mvtec_extracts_one_category_with_its_masks(digits: dict[str, bytes], context: Context) -> None:
    tar = tar_archive(PRODUCTS)
    with serve_files({"mvtec.tar.xz": tar}) as web:
        spec = experiment({"name": "mvtec", "mirror": web.url, "limit": 2}, category="metal_nut").spec
        listed = list_experiment(spec, context, catalog(digits, tar))
    assert [sample.key for sample in listed.dataset.train] == ["train/good/000.png", "train/good/001.png"]
    assert {sample.key: sample.masks for sample in listed.dataset.test} == {
        "test/good/000.png": (),
        "test/scratch/000.png": ("ground_truth/scratch/000_mask.png",),
    }
    assert (not_none(listed.store.local_root) / "train/good/000.png").read_bytes() == PRODUCTS[
        "metal_nut/train/good/000.png"
    ]
    assert not list((context.work / "builtin").rglob("bottle"))


def test_an_unknown_category_is_named_with_the_known_ones(digits: dict[str, bytes], tmp_path: Path) -> None:
    tar = tar_archive(PRODUCTS)
    with (
        serve_files({"mvtec.tar.xz": tar}) as web,
        pytest.raises(DataInvalid, match=r"no category nut.*bottle, metal_nut"),
    ):
        prepare(
            BuiltinDataset(name="mvtec", mirror=web.url),
            "nut",
            tmp_path,
            advance=ignore,
            check=ignore,
            catalog=catalog(digits, tar),
        )


def link_member(name: str, kind: bytes) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, "/etc/passwd"
    return member


@pytest.mark.parametrize(
    ("tar", "problem"),
    [
        (tar_archive({"../evil": b"x"}), "leads out"),
        (tar_archive({"/etc/evil": b"x"}), "leads out"),
        (tar_archive({"bottle/../../evil": b"x"}), "leads out"),
        (tar_archive(PRODUCTS, link_member("bottle/train/good/x.png", tarfile.SYMTYPE)), "a link or a device"),
        (tar_archive(PRODUCTS, link_member("bottle/train/good/x.png", tarfile.LNKTYPE)), "a link or a device"),
        (tar_archive(PRODUCTS, link_member("bottle/train/good/x.png", tarfile.CHRTYPE)), "a link or a device"),
        (b"no archive at all", "cannot be unpacked"),
        (tar_archive(PRODUCTS)[:-300], "cannot be unpacked"),
    ],
)
def test_hostile_archives_are_refused(digits: dict[str, bytes], tmp_path: Path, tar: bytes, problem: str) -> None:
    with serve_files({"mvtec.tar.xz": tar}) as web, pytest.raises(DataInvalid, match=problem):
        prepare(
            BuiltinDataset(name="mvtec", mirror=web.url),
            "bottle",
            tmp_path / "work",
            advance=ignore,
            check=ignore,
            catalog=catalog(digits, tar),
        )
    assert not (tmp_path / "evil").exists()


def test_an_archive_that_is_too_large_is_refused(
    digits: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("anomaly_runner.data.builtin.mvtec._MAX_CATEGORY_BYTES", 200)
    tar = tar_archive(PRODUCTS)
    with serve_files({"mvtec.tar.xz": tar}) as web, pytest.raises(DataInvalid, match="takes more than"):
        prepare(
            BuiltinDataset(name="mvtec", mirror=web.url),
            "bottle",
            tmp_path,
            advance=ignore,
            check=ignore,
            catalog=catalog(digits, tar),
        )


CONTENT = np.random.default_rng(1).bytes(3_000_000)
FILE = remote_file("file.bin", CONTENT)


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeWeb]:
    monkeypatch.setattr("anomaly_runner.data.builtin.download._LONGEST_PAUSE", 0.01)
    with serve_files({"file.bin": CONTENT}) as served:
        yield served


def test_a_broken_download_is_resumed(web: FakeWeb, tmp_path: Path) -> None:
    web.faults = [-1_000_000, 503, -700_000]
    seen: list[int] = []
    assert download(FILE, web.url, tmp_path, seen.append).read_bytes() == CONTENT
    assert [wanted for _, wanted in web.asked] == [None, "bytes=1000000-", "bytes=1000000-", "bytes=1700000-"]
    assert sum(seen) == len(CONTENT)
    assert [path.name for path in tmp_path.iterdir()] == ["file.bin"]


def test_a_download_that_makes_progress_is_not_given_up(web: FakeWeb, tmp_path: Path) -> None:
    web.faults = [-100_000, 503] * 12
    assert download(FILE, web.url, tmp_path, ignore).read_bytes() == CONTENT


def test_a_download_without_progress_is_given_up(web: FakeWeb, tmp_path: Path) -> None:
    web.faults, web.ranges = [-100_000] * 20, False
    with pytest.raises(StorageUnavailable, match="broke off after 100000"):
        download(FILE, web.url, tmp_path, ignore)
    assert len(web.asked) == 6


@pytest.mark.parametrize("stale", [b"of another file", b"x" * len(CONTENT)], ids=["begun", "complete"])
def test_parts_of_two_versions_are_downloaded_again_as_a_whole(web: FakeWeb, tmp_path: Path, stale: bytes) -> None:
    (tmp_path / ".file.bin.part").write_bytes(stale)
    assert download(FILE, web.url, tmp_path, ignore).read_bytes() == CONTENT
    assert [wanted for _, wanted in web.asked] == [f"bytes={len(stale)}-", None]


def test_parts_of_another_file_are_refused_after_a_second_download(web: FakeWeb, tmp_path: Path) -> None:
    web.files["file.bin"] = CONTENT[:-1] + b"x"
    (tmp_path / ".file.bin.part").write_bytes(CONTENT[:1000])
    with pytest.raises(DataInvalid, match="is not the expected file"):
        download(FILE, web.url, tmp_path, ignore)
    assert len(web.asked) == 2
    assert list(tmp_path.iterdir()) == []


def test_a_server_without_range_requests_sends_the_whole_file_again(web: FakeWeb, tmp_path: Path) -> None:
    web.faults, web.ranges = [-1_000_000], False
    assert download(FILE, web.url, tmp_path, ignore).read_bytes() == CONTENT


def test_a_complete_file_of_an_earlier_attempt_is_only_checked(web: FakeWeb, tmp_path: Path) -> None:
    (tmp_path / ".file.bin.part").write_bytes(CONTENT)
    assert download(FILE, web.url, tmp_path, ignore).read_bytes() == CONTENT
    assert web.asked == [("/data/file.bin", f"bytes={len(CONTENT)}-")]


def test_an_existing_file_is_not_downloaded_again(web: FakeWeb, tmp_path: Path) -> None:
    for _ in range(2):
        download(FILE, web.url, tmp_path, ignore)
    assert len(web.asked) == 1


def test_a_file_with_another_digest_is_refused_and_removed(web: FakeWeb, tmp_path: Path) -> None:
    web.files["file.bin"] = CONTENT[:-1] + b"x"
    with pytest.raises(DataInvalid, match=rf"{web.url}file\.bin is not the expected file: its sha256"):
        download(FILE, web.url, tmp_path, ignore)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("status", "error"),
    [
        *((status, DataInvalid) for status in (400, 403, 404, 410)),
        *((status, StorageUnavailable) for status in (408, 425, 429, 500, 503)),
    ],
)
def test_refusals_name_the_url_and_the_mirror_setting(
    web: FakeWeb, tmp_path: Path, status: int, error: type[RunFailed]
) -> None:
    web.faults = [status] * 10
    with pytest.raises(error, match=rf"{web.url}file\.bin.*{status}.*source\.builtin\.mirror"):
        download(FILE, web.url, tmp_path, ignore)


def test_a_full_disk_is_not_blamed_on_the_server(web: FakeWeb, tmp_path: Path) -> None:
    (tmp_path / ".file.bin.part").symlink_to("/dev/full")
    with pytest.raises(StorageUnavailable, match=r"^the disk that this run writes to is full: ask for more ephemeral"):
        download(FILE, web.url, tmp_path, ignore)
    assert len(web.asked) == 1


def test_a_server_that_cannot_be_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anomaly_runner.data.builtin.download._LONGEST_PAUSE", 0.01)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(StorageUnavailable, match="Connection refused"):
        download(FILE, f"http://127.0.0.1:{port}/", tmp_path, ignore)


def test_an_endless_response_is_stopped(web: FakeWeb, tmp_path: Path) -> None:
    web.files["file.bin"] = CONTENT * 4
    with pytest.raises(DataInvalid, match="sends more than"):
        download(FILE, web.url, tmp_path, ignore)


def test_a_stopped_download_is_resumed_by_the_next_pod(web: FakeWeb, tmp_path: Path, context: Context) -> None:
    def advance(count: int) -> None:
        context.stop.set()
        context.advance(count)

    with pytest.raises(Stopped):
        download(FILE, web.url, tmp_path, advance)
    assert download(FILE, web.url, tmp_path, ignore).read_bytes() == CONTENT
    assert web.asked[1][1] == "bytes=1048576-"


def test_progress_is_in_megabytes(context: Context, web: FakeWeb, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []
    context.progress.enter(Stage.FETCH, 3, "MB")
    monkeypatch.setattr(context.progress, "_report", lambda values: told.append(values.completed))
    from anomaly_runner.data.fetch import _MegabyteMeter

    download(FILE, web.url, context.work, _MegabyteMeter(context).advance)
    assert len(told) == 3


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0\0\x08",
        idx_file(np.zeros((2, 2), np.uint8))[:-9],
        gzip.compress(b"\0\0\x0d\1\0\0\0\1abcd"),
        gzip.compress(b"\0\0\x08\1\0\0\0\5abc"),
        gzip.compress(b"\0\0\x08\xff" + bytes(9)),
    ],
    ids=["empty", "a head", "an IDX file cut off", "32-bit values", "fewer values", "too many dimensions"],
)
def test_files_that_are_not_in_the_idx_format_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.gz").write_bytes(content)
    with pytest.raises(DataInvalid, match=r"x\.gz"):
        read_idx(tmp_path / "x.gz")


def source_text(package: str, file: str) -> str:
    """Source of a library, read without importing it, which takes seconds."""
    (folder,) = not_none(not_none(find_spec(package)).submodule_search_locations)
    return Path(folder, file).read_text()


def test_published_digests_are_torchvisions_and_anomalibs() -> None:
    theirs = source_text("torchvision", "datasets/mnist.py")
    for file in vars(PUBLISHED.mnist).values():
        assert f'("{file.name}", "{file.digest}")' in theirs
        assert f'"{file.base}"' in theirs
    theirs = source_text("anomalib", "data/datamodules/image/mvtecad.py").replace('"\n    "', "")
    assert PUBLISHED.mvtec.digest in theirs
    assert PUBLISHED.mvtec.url(None) in theirs
