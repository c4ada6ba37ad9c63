"""The files of the public datasets: their URLs, and their digests.

MNIST: LeCun et al., "Gradient-based learning applied to document recognition", Proc. IEEE 1998; files and MD5 as in
torchvision.datasets.MNIST. MVTec AD: Bergmann et al., CVPR 2019, licence CC BY-NC-SA 4.0; file and SHA-256 as in
anomalib 2.7.
"""

from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """A file on the web.

    Attributes:
        base: URL of its folder, ending with a slash; a mirror replaces it.
        name: of the file.
        size: approximate number of bytes, for progress and to stop a server that sends far more.
        algorithm: of the digest.
        digest: hexadecimal, or its first digits if no more are published. A mirror's file must have the same content,
            unless the manifest gives another digest.
    """

    base: str
    name: str
    size: int
    algorithm: Literal["md5", "sha256"]
    digest: str

    def url(self, mirror: str | None) -> str:
        """URL of the file, at the mirror if there is one."""
        return f"{mirror.rstrip('/')}/{self.name}" if mirror else self.base + self.name

    def with_digest(self, digest: str) -> "RemoteFile":
        """The same file with another expected digest, ``sha256:HEX``."""
        return replace(self, algorithm="sha256", digest=digest.removeprefix("sha256:"))


@dataclass(frozen=True)
class MnistFiles:
    """The training and the test set of MNIST: images and labels in the IDX format, gzipped."""

    train_images: RemoteFile
    train_labels: RemoteFile
    test_images: RemoteFile
    test_labels: RemoteFile


@dataclass(frozen=True)
class DatasetCatalog:
    """The files of every public dataset."""

    mnist: MnistFiles
    mvtec: RemoteFile


_MNIST = "https://ossci-datasets.s3.amazonaws.com/mnist/"
_MVTEC = "https://www.mydrive.ch/shares/150996/b52ecdcbf521176e9db9c731f2304b27/download/420938113-1629960298/"

PUBLISHED = DatasetCatalog(
    mnist=MnistFiles(
        RemoteFile(
            base=_MNIST,
            name="train-images-idx3-ubyte.gz",
            size=9_912_422,
            algorithm="md5",
            digest="f68b3c2dcbeaaa9fbdd348bbdeb94873",
        ),
        RemoteFile(
            base=_MNIST,
            name="train-labels-idx1-ubyte.gz",
            size=28_881,
            algorithm="md5",
            digest="d53e105ee54ea40749a09fcbcd1e9432",
        ),
        RemoteFile(
            base=_MNIST,
            name="t10k-images-idx3-ubyte.gz",
            size=1_648_877,
            algorithm="md5",
            digest="9fb629c4189551a2d022fa330f9573f3",
        ),
        RemoteFile(
            base=_MNIST,
            name="t10k-labels-idx1-ubyte.gz",
            size=4_542,
            algorithm="md5",
            digest="ec29112dd5afa0611ce80d1b7f02629c",
        ),
    ),
    mvtec=RemoteFile(
        base=_MVTEC,
        name="mvtec_anomaly_detection.tar.xz",
        size=5_264_982_680,
        algorithm="sha256",
        digest="cf4313b13603bec67abb49ca959488f7eedce2a9f7795ec54446c649ac98cd3d",
    ),
)
"""The files at their publishers."""
