"""The tool that fills a weights cache, with a local publisher."""

import hashlib
import http.server
import io
import os
import tarfile
import threading
import warnings
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Protocol

import pytest
from typer.testing import CliRunner, Result

from anomaly_runner.errors import DataInvalid
from anomaly_runner.models.weights import Wanted
from hack.weights import fill, published
from hack.weights.__main__ import app
from hack.weights.cache import contents, is_there
from support.fake_hub import REVISION, serve_hub
from support.fake_web import serve_files

TEACHER = "anomalib/pre_trained/efficientad_pretrained_weights/pretrained_teacher_small.pth"
RESNET = "timm/resnet18.a1_in1k"


class Publish(Protocol):
    """Publishes an archive, and returns the files of its server."""

    def __call__(self, content: bytes) -> dict[str, bytes]: ...


def run(*arguments: object) -> Result:
    """Run the command line."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def files_below(folder: Path) -> dict[str, bytes]:
    """Content of every file, by its path in the folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def publisher(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder, and the URL at which it is served."""
    folder = tmp_path / "published"
    folder.mkdir()
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def teachers(publisher: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> str:
    """An archive of teachers whose digest is patched into the tool."""
    folder, url = publisher
    with zipfile.ZipFile(folder / published.TEACHERS.file.name, "w") as packed:
        packed.writestr("efficientad_pretrained_weights/pretrained_teacher_small.pth", b"weights")
        packed.writestr("../outside.pth", b"hostile")
    content = (folder / published.TEACHERS.file.name).read_bytes()
    known = replace(published.TEACHERS.file, digest=hashlib.sha256(content).hexdigest())
    monkeypatch.setattr(published, "ARCHIVES", (replace(published.TEACHERS, file=known),))
    return url


def test_an_archive_is_checked_unpacked_and_kept_inside(tmp_path: Path, teachers: str) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    wanted = Wanted("file", TEACHER)
    assert not is_there(wanted, cache)
    fill.fill(wanted, cache, teachers, lambda _: None)
    assert is_there(wanted, cache)
    assert [path.read_bytes() for path in tmp_path.rglob("*.pth")] == [b"weights"]


def test_an_archive_with_another_digest_is_refused(tmp_path: Path, publisher: tuple[Path, str]) -> None:
    folder, url = publisher
    (folder / published.TEACHERS.file.name).write_bytes(b"something else")
    with pytest.raises(DataInvalid, match="is not the expected file"):
        fill.fill(Wanted("file", TEACHER), tmp_path, url, lambda _: None)


def test_names_of_torchvisions_files_contain_their_digests(tmp_path: Path, publisher: tuple[Path, str]) -> None:
    folder, url = publisher
    prefix = hashlib.sha256(b"weights").hexdigest()[:8]
    name = f"torch/hub/checkpoints/resnet-{prefix}.pth"
    (folder / f"resnet-{prefix}.pth").write_bytes(b"weights")
    fill.fill(Wanted("file", name), tmp_path, url, lambda _: None)
    assert (tmp_path / name).read_bytes() == b"weights"
    (folder / "resnet-00000000.pth").write_bytes(b"weights")
    with pytest.raises(DataInvalid, match="is not the expected file"):
        fill.fill(Wanted("file", "torch/hub/checkpoints/resnet-00000000.pth"), tmp_path, url, lambda _: None)


def test_list_names_what_a_cache_lacks(tmp_path: Path) -> None:
    (tmp_path / "datasets/imagenette/dog").mkdir(parents=True)
    (tmp_path / "datasets/imagenette/dog/1.jpg").write_bytes(b"x")
    found = CliRunner().invoke(app, ["list", str(tmp_path), "--model", "efficientad"])
    assert found.exit_code == 1
    assert f"LACKING file   {TEACHER}" in found.output
    assert "there   folder datasets/imagenette" in found.output


def tarred(**members: bytes | None) -> bytes:
    """A gzipped tar archive: content by name, or None for a link."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            if content is None:
                member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
            member.size = len(content or b"")
            tar.addfile(member, io.BytesIO(content or b""))
    return packed.getvalue()


@pytest.fixture
def textures_published(monkeypatch: pytest.MonkeyPatch) -> Publish:
    """Makes content the published archive of textures."""

    def publish(content: bytes) -> dict[str, bytes]:
        digest = hashlib.sha256(content).hexdigest()
        known = replace(published.TEXTURES, file=replace(published.TEXTURES.file, digest=digest))
        monkeypatch.setattr(published, "ARCHIVES", (known,))
        return {known.file.name: content}

    return publish


def test_another_revision_of_a_repository_is_not_accepted(tmp_path: Path) -> None:
    repository = tmp_path / "hub/models--maker--network"
    for name, content in {"refs/main": "first", "snapshots/first/model.safetensors": "weights"}.items():
        (repository / name).parent.mkdir(parents=True, exist_ok=True)
        (repository / name).write_text(content)
    found = [is_there(Wanted("hub", "maker/network", revision), tmp_path) for revision in ("", "first", "second")]
    assert found == [True, True, False]


def test_a_folder_of_images_is_extracted_from_a_tar_archive(tmp_path: Path, textures_published: Publish) -> None:
    files = textures_published(
        tarred(
            **{
                "dtd/images/banded/1.jpg": b"stripes",
                "dtd/images/banded/2.jpg": None,
                "dtd/labels/1.txt": b"not an image",
                "dtd/images/../../../outside.jpg": b"hostile",
            }
        )
    )
    with serve_files(files) as web:
        found = run("fill", tmp_path, "--model", "draem", "--mirror", web.url)
    assert found.exit_code == 0, found.output
    assert files_below(tmp_path) == {"datasets/dtd/banded/1.jpg": b"stripes"}


def test_an_archive_that_cannot_be_unpacked_leaves_no_complete_folder(
    tmp_path: Path, textures_published: Publish
) -> None:
    images = {f"dtd/images/banded/{index}.jpg": os.urandom(4096) for index in range(50)}
    whole = tarred(**images)
    with serve_files(textures_published(whole[: len(whole) // 2])) as web:
        found = run("fill", tmp_path, "--model", "draem", "--mirror", web.url)
    assert found.exit_code == 1
    assert "dtd-r1.0.1.tar.gz cannot be unpacked" in found.output
    assert run("list", tmp_path, "--model", "draem").output == "LACKING folder datasets/dtd\n"
    with serve_files(textures_published(tarred(**{"elsewhere/1.jpg": b"x"}))) as web:
        assert (
            "holds nothing below dtd/images/"
            in run("fill", tmp_path / "other", "--model", "draem", "--mirror", web.url).output
        )


def test_a_broken_download_is_resumed_by_the_next_call(tmp_path: Path, textures_published: Publish) -> None:
    whole = tarred(**{"dtd/images/banded/1.jpg": os.urandom(4096)})
    with serve_files(textures_published(whole)) as web:
        web.faults = [-1000, 404]
        assert run("fill", tmp_path, "--model", "draem", "--mirror", web.url).exit_code == 1
        assert run("fill", tmp_path, "--model", "draem", "--mirror", web.url).exit_code == 0
    assert [wanted for _, wanted in web.asked] == [None, "bytes=1000-", "bytes=1000-"]
    assert list(files_below(tmp_path)) == ["datasets/dtd/banded/1.jpg"]


def test_the_teacher_of_another_model_is_kept(tmp_path: Path, teachers: str) -> None:
    own = tmp_path / "anomalib/pre_trained/efficientad_pretrained_weights/own.pth"
    own.parent.mkdir(parents=True)
    own.write_bytes(b"own")
    fill.fill(Wanted("file", TEACHER), tmp_path, teachers, lambda _: None)
    assert own.read_bytes() == b"own"
    assert (tmp_path / TEACHER).read_bytes() == b"weights"


def test_a_repository_of_the_hub_becomes_plain_files_that_a_run_finds(tmp_path: Path) -> None:
    files = {
        "model.safetensors": b"weights",
        "config.json": b"{}",
        "open_clip_config.json": b"{}",
        "pytorch_model.bin": b"a pickle",
        "README.md": b"x",
    }
    came: list[int] = []
    with serve_hub(RESNET, files) as url:
        fill.fill(Wanted("hub", RESNET), tmp_path, url, came.append)
    repository = f"hub/models--{RESNET.replace('/', '--')}"
    kept = {
        f"{repository}/snapshots/{REVISION}/{name}": files[name]
        for name in ("model.safetensors", "config.json", "open_clip_config.json")
    }
    assert files_below(tmp_path) == kept | {f"{repository}/refs/main": REVISION.encode()}
    assert not any(path.is_symlink() for path in tmp_path.rglob("*"))
    assert sum(came) == sum(map(len, {files["model.safetensors"], files["config.json"]}))
    assert is_there(Wanted("hub", RESNET), tmp_path)


def test_a_repository_without_safetensors_counts_as_missing(tmp_path: Path) -> None:
    with serve_hub(RESNET, {"config.json": b"{}", "pytorch_model.bin": b"a pickle"}) as url:
        found = run("fill", tmp_path, "--model", "padim", "--mirror", url)
    assert found.exit_code == 1
    assert "without the weights that are wanted" in found.output
    assert run("list", tmp_path, "--model", "padim").exit_code == 1


def test_another_backbone_than_the_default(tmp_path: Path) -> None:
    found = run("list", tmp_path, "--model", "patchcore", "--model", "draem", "--backbone", "resnet18")
    assert found.output == f"LACKING hub    {RESNET}\nLACKING folder datasets/dtd\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "nosuch"], "list: --model nosuch: name: Input should be 'padim'"),
        (["--model", "{name: padim"], "is not YAML"),
        (["--model", "draem", "--backbone", "resnet18"], "--backbone resnet18: draem have none to choose"),
        (["--model", "fastflow", "--backbone", "resnet50"], "fastflow.backbone: Input should be 'resnet18'"),
        (["--model", "padim", "--backbone", "nosuch"], "timm knows no hub repository for the weights of nosuch"),
    ],
)
def test_an_invalid_request_is_refused_in_one_line(tmp_path: Path, arguments: list[str], message: str) -> None:
    found = run("list", tmp_path, *arguments)
    assert found.exit_code == 1
    assert message in found.output


def test_list_shows_the_contents_of_a_cache(tmp_path: Path) -> None:
    for name in (
        "datasets/dtd/a/1.jpg",
        "datasets/dtd/b/2.jpg",
        "torch/hub/checkpoints/x.pth",
        "hub/models--a--b/refs/main",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(bytes(500))
    assert contents(tmp_path) == {"datasets/dtd": 1000, "hub/models--a--b": 500, "torch/hub/checkpoints/x.pth": 500}
    assert run("list", tmp_path).output.splitlines()[0] == "    1.0 kB  datasets/dtd"


@pytest.mark.slow
def test_urls_and_digests_are_anomalibs() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # importing anomalib warns about its own deprecations
        from anomalib.models.image.draem.lightning_model import DTD_DOWNLOAD_INFO
        from anomalib.models.image.efficient_ad.lightning_model import IMAGENETTE_DOWNLOAD_INFO, WEIGHTS_DOWNLOAD_INFO

    pairs = (
        (published.TEXTURES, DTD_DOWNLOAD_INFO),
        (published.IMAGENETTE, IMAGENETTE_DOWNLOAD_INFO),
        (published.TEACHERS, WEIGHTS_DOWNLOAD_INFO),
    )
    for ours, theirs in pairs:
        assert (ours.file.url(None), ours.file.digest) == (theirs.url, theirs.hashsum)
