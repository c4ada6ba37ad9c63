"""What anomalib publishes beside its models: archives, their SHA-256, and where their content goes in a cache.

URLs and digests are those of anomalib 2.7 (``DownloadInfo`` in efficient_ad, draem and dsr).
"""

from __future__ import annotations

from dataclasses import dataclass

from anomaly_runner.data.builtin.remote_files import RemoteFile

_ANOMALIB = "https://github.com/open-edge-platform/anomalib/releases/download/"


@dataclass(frozen=True)
class Archive:
    """An archive: the prefix of the cache paths in it, the folder that it fills, and the folder taken from it."""

    serves: str
    file: RemoteFile
    target: str
    inside: str


TEACHERS = Archive(
    "anomalib/pre_trained/efficientad_pretrained_weights/",
    RemoteFile(
        base=_ANOMALIB + "efficientad_pretrained_weights/",
        name="efficientad_pretrained_weights.zip",
        size=40_000_000,
        algorithm="sha256",
        digest="c09aeaa2b33f244b3261a5efdaeae8f8284a949470a4c5a526c61275fe62684a",
    ),
    "anomalib/pre_trained/efficientad_pretrained_weights",
    "efficientad_pretrained_weights",
)
QUANTISER = Archive(
    "anomalib/pre_trained/dsr/",
    RemoteFile(
        base=_ANOMALIB + "dsr_pretrained_weights/",
        name="dsr_vq_model_pretrained.zip",
        size=16_000_000,
        algorithm="sha256",
        digest="52fe7504ec8e9df70b4382f287ab26269dcfe000cd7a7e146a52c6f146f34afb",
    ),
    "anomalib/pre_trained/dsr",
    "",
)
TEXTURES = Archive(
    "datasets/dtd",
    RemoteFile(
        base="https://www.robots.ox.ac.uk/~vgg/data/dtd/download/",
        name="dtd-r1.0.1.tar.gz",
        size=625_239_812,
        algorithm="sha256",
        digest="e42855a52a4950a3b59612834602aa253914755c95b0cff9ead6d07395f8e205",
    ),
    "datasets/dtd",
    "dtd/images",
)
IMAGENETTE = Archive(
    "datasets/imagenette",
    RemoteFile(
        base="https://s3.amazonaws.com/fast-ai-imageclas/",
        name="imagenette2.tgz",
        size=1_557_161_267,
        algorithm="sha256",
        digest="6cbfac238434d89fe99e651496f0812ebc7a10fa62bd42d6874042bf01de4efd",
    ),
    "datasets/imagenette",
    "imagenette2/train",
)
ARCHIVES = (TEACHERS, QUANTISER, TEXTURES, IMAGENETTE)


def archive_for(name: str) -> Archive | None:
    """Return the archive with a file or folder of the cache, by its path there; None if there is none."""
    return next((archive for archive in ARCHIVES if name.startswith(archive.serves)), None)
