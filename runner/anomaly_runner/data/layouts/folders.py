"""Layouts that are made of folders alone: those of published data sets, and what they have in common.

Sources: MVTec AD, Bergmann et al., CVPR 2019; MVTec LOCO AD, Bergmann et al., IJCV 2022; MVTec AD 2, Heckler-Kram et
al., 2025; VisA, Zou et al., ECCV 2022; BTAD, Mishra et al., ISIE 2021. MPDD (Jezek et al., 2021) and quadra have the
folders of MVTec AD.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass

from anomaly_api.dataset import FolderLayoutName
from anomaly_runner.data.layouts.placed import PlacedFile, Role, placed
from anomaly_runner.data.samples import GOOD, UNKNOWN

Locate = Callable[[str], PlacedFile | None]
"""Returns the place of a file by its key; None if its folder means nothing."""


_BTAD_ROLES: dict[str, Role] = {"train": "train", "test": "test", "ground_truth": "mask"}


@dataclass(frozen=True)
class FolderLayout:
    """A layout that tells the meaning of a file by its folder.

    Attributes:
        name: as the API calls it.
        title: as its authors call it.
        locate: returns the place of a file.
        training: the folder of the images to learn from, for messages.
        testing: the folders of the images to test on, for messages.
        plain_masks: whether masks are named as their images, or lie in folders so named, without ``maskSuffix``.
    """

    name: FolderLayoutName
    title: str
    locate: Locate
    training: str = "train/good"
    testing: str = "test/good and test/DEFECT"
    plain_masks: bool = False


def _mvtec(key: str) -> PlacedFile | None:
    match key.split("/"):
        case ["train", label, _, *_]:
            return placed(key, "train", label, 2)
        case ["val" | "validation", label, _, *_]:
            return placed(key, "val", label, 2)
        case ["test", label, _, *_]:
            return placed(key, "test", label, 2)
        case ["ground_truth", "validation", _, _, *_]:
            return placed(key, "mask", "val", 2)
        case ["ground_truth", label, _, *_]:
            return placed(key, "mask", label, 2)
    return None


def _mvtec_ad2(key: str) -> PlacedFile | None:
    match key.split("/"):
        case ["test_public", "ground_truth", label, _, *_]:
            return placed(key, "mask", label, 3)
        case ["test_public", label, _, *_]:
            return placed(key, "test", label, 2)
        # Their ground truth is not published: they are scored and counted in no metric.
        case ["test_private" | "test_private_mixed", _, *_]:
            return placed(key, "test", UNKNOWN, 0)
        case ["train" | "validation" as split, label, _, *_]:
            return placed(key, "train" if split == "train" else "val", label, 2)
    return None


def _visa(key: str) -> PlacedFile | None:
    match key.split("/"):
        case ["Data", "Images", "Normal", _, *_]:
            return placed(key, "train", GOOD, 3)
        case ["Data", "Images", "Anomaly", _, *_]:
            return placed(key, "test", "anomaly", 3)
        case ["Data", "Masks", "Anomaly", _, *_]:
            return placed(key, "mask", "anomaly", 3)
    return None


def _btad(key: str) -> PlacedFile | None:
    match key.split("/"):
        case ["train" | "test" | "ground_truth" as folder, label, _, *_]:
            return placed(key, _BTAD_ROLES[folder], GOOD if label == "ok" else label, 2)
    return None


MVTEC = FolderLayout("mvtec", "MVTec AD", _mvtec)
MVTEC_LOCO = FolderLayout("mvtecLoco", "MVTec LOCO", _mvtec, plain_masks=True)
MVTEC_AD2 = FolderLayout("mvtecAd2", "MVTec AD 2", _mvtec_ad2, testing="test_public/good and test_public/bad")
VISA = FolderLayout("visa", "VisA", _visa, "Data/Images/Normal", "Data/Images/Anomaly", plain_masks=True)
BTAD = FolderLayout("btad", "BTAD", _btad, "train/ok", "test/ok and test/ko", plain_masks=True)

FOLDER_LAYOUTS = {layout.name: layout for layout in (MVTEC, MVTEC_LOCO, MVTEC_AD2, VISA, BTAD)}
"""Every layout of folders by its name."""


def recognise(folders: Collection[str]) -> FolderLayout:
    """Recognise the layout by its folders; MVTec AD if nothing speaks for another one.

    Args:
        folders: the first two parts of the folder of each image, or the first if there is only one.
    """
    found = frozenset(folders)
    if any(folder.partition("/")[0] == "test_public" for folder in found):
        return MVTEC_AD2
    if "Data/Images" in found:
        return VISA
    if "train/ok" in found and "train/good" not in found:
        return BTAD
    if found & {"test/logical_anomalies", "test/structural_anomalies"}:
        return MVTEC_LOCO
    return MVTEC


def top_folder(key: str) -> str:
    """The first two parts of the folder of a file, or the first if there is only one; empty for a file in no folder."""
    return "/".join(key.split("/")[:-1][:2])
