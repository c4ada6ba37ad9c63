"""What the public datasets consist of: files, where they are, and the digests that their publishers' users check.

MNIST: LeCun et al., "Gradient-based learning applied to document recognition", Proc. IEEE 1998; files and MD5 as in
torchvision.datasets.MNIST. MVTec AD: Bergmann et al., CVPR 2019, licence CC BY-NC-SA 4.0; file and SHA-256 as in
anomalib 2.7.
"""

from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True)
class RemoteFile:
    """A file on the web."""

    base: str
    """URL of its folder, with the slash at the end; a mirror takes its place."""
    name: str
    size: int
    """Bytes, about: for progress, and to stop a server that sends far more."""
    algorithm: Literal["md5", "sha256"]
    digest: str
    """Hexadecimal, or its first digits where no more is published. It holds for mirrors too, unless a manifest gives
    another."""

    def url(self, mirror: str | None) -> str:
        """Where to fetch it."""
        return f"{mirror.rstrip('/')}/{self.name}" if mirror else self.base + self.name

    def with_digest(self, digest: str) -> "RemoteFile":
        """The same file with other content, whose digest is given as ``sha256:HEX``."""
        return replace(self, algorithm="sha256", digest=digest.removeprefix("sha256:"))


@dataclass(frozen=True)
class MnistFiles:
    """The two sets of MNIST: images and labels in IDX form, gzipped."""

    train_images: RemoteFile
    train_labels: RemoteFile
    test_images: RemoteFile
    test_labels: RemoteFile


@dataclass(frozen=True)
class DatasetCatalog:
    """Every public dataset."""

    mnist: MnistFiles
    mvtec: RemoteFile


_MNIST = "https://ossci-datasets.s3.amazonaws.com/mnist/"
_MVTEC = "https://www.mydrive.ch/shares/150996/b52ecdcbf521176e9db9c731f2304b27/download/420938113-1629960298/"

PUBLISHED = DatasetCatalog(
    mnist=MnistFiles(
        RemoteFile(_MNIST, "train-images-idx3-ubyte.gz", 9_912_422, "md5", "f68b3c2dcbeaaa9fbdd348bbdeb94873"),
        RemoteFile(_MNIST, "train-labels-idx1-ubyte.gz", 28_881, "md5", "d53e105ee54ea40749a09fcbcd1e9432"),
        RemoteFile(_MNIST, "t10k-images-idx3-ubyte.gz", 1_648_877, "md5", "9fb629c4189551a2d022fa330f9573f3"),
        RemoteFile(_MNIST, "t10k-labels-idx1-ubyte.gz", 4_542, "md5", "ec29112dd5afa0611ce80d1b7f02629c"),
    ),
    mvtec=RemoteFile(
        _MVTEC,
        "mvtec_anomaly_detection.tar.xz",
        5_264_982_680,
        "sha256",
        "cf4313b13603bec67abb49ca959488f7eedce2a9f7795ec54446c649ac98cd3d",
    ),
)
"""As published."""
