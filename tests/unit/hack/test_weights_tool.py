"""The tool that fills a weights cache, against a publisher on loopback."""

import hashlib
import http.server
import threading
import zipfile
from dataclasses import replace
from functools import partial

import pytest
from typer.testing import CliRunner

from anomaly_runner.errors import DataInvalid
from anomaly_runner.weights import Wanted
from hack.weights import fill, published
from hack.weights.__main__ import app

TEACHER = "anomalib/pre_trained/efficientad_pretrained_weights/pretrained_teacher_small.pth"


@pytest.fixture
def publisher(tmp_path):
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
def teachers(publisher, monkeypatch):
    """An archive of teachers whose digest the tool knows."""
    folder, url = publisher
    with zipfile.ZipFile(folder / published.TEACHERS.file.name, "w") as packed:
        packed.writestr("efficientad_pretrained_weights/pretrained_teacher_small.pth", b"weights")
        packed.writestr("../outside.pth", b"hostile")
    content = (folder / published.TEACHERS.file.name).read_bytes()
    known = replace(published.TEACHERS.file, digest=hashlib.sha256(content).hexdigest())
    monkeypatch.setattr(published, "ARCHIVES", (replace(published.TEACHERS, file=known),))
    return url


def test_an_archive_is_checked_unpacked_and_kept_inside(tmp_path, teachers):
    cache = tmp_path / "cache"
    cache.mkdir()
    wanted = Wanted("file", TEACHER)
    assert not fill.is_there(wanted, cache)
    fill.fill(wanted, cache, teachers, lambda _: None)
    assert fill.is_there(wanted, cache)
    assert [path.read_bytes() for path in tmp_path.rglob("*.pth")] == [b"weights"]


def test_an_archive_that_is_not_the_published_one(tmp_path, publisher):
    folder, url = publisher
    (folder / published.TEACHERS.file.name).write_bytes(b"something else")
    with pytest.raises(DataInvalid, match="is not the file that was published"):
        fill.fill(Wanted("file", TEACHER), tmp_path, url, lambda _: None)


def test_torchvisions_names_carry_their_digests(tmp_path, publisher):
    folder, url = publisher
    prefix = hashlib.sha256(b"weights").hexdigest()[:8]
    name = f"torch/hub/checkpoints/resnet-{prefix}.pth"
    (folder / f"resnet-{prefix}.pth").write_bytes(b"weights")
    fill.fill(Wanted("file", name), tmp_path, url, lambda _: None)
    assert (tmp_path / name).read_bytes() == b"weights"
    (folder / "resnet-00000000.pth").write_bytes(b"weights")
    with pytest.raises(DataInvalid, match="is not the file that was published"):
        fill.fill(Wanted("file", "torch/hub/checkpoints/resnet-00000000.pth"), tmp_path, url, lambda _: None)


def test_list_names_what_a_cache_lacks(tmp_path):
    (tmp_path / "datasets/imagenette/dog").mkdir(parents=True)
    (tmp_path / "datasets/imagenette/dog/1.jpg").write_bytes(b"x")
    found = CliRunner().invoke(app, ["list", str(tmp_path), "--model", "efficientad"])
    assert found.exit_code == 1
    assert f"LACKING file   {TEACHER}" in found.output
    assert "there   folder datasets/imagenette" in found.output
