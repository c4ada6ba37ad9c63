"""The images of an experiment, wherever they are stored: in the MVTec folder layout, another published one, or a table.

MVTec's layout below ``source`` (and ``category`` if set)::

    train/good/*            images to learn from
    test/good/*             good images to test on
    test/DEFECT/*           one folder per kind of defect
    test/unknown/*          scored, never counted in metrics
    val/good/*, val/DEFECT/*                    optional: thresholds and early stopping use these
    ground_truth/DEFECT/NAME{maskSuffix}.png    masks, paired by name; those of val/ in ground_truth/val/DEFECT/

Source: Bergmann et al., "MVTec AD", CVPR 2019.
"""

from typing import Annotated, Literal

from pydantic import Field

from anomaly_api.base import Contract
from anomaly_api.primitives import Digest, HttpUrl, Pattern, RelativePath, Text
from anomaly_api.rules import Rule, at_most, exactly_one, first_set, only_when, only_with, required_when
from anomaly_api.storage import Location, PersistentVolumeClaimLocation, S3Location

Task = Literal["segmentation", "classification"]
FolderLayoutName = Literal["mvtec", "mvtecLoco", "mvtecAd2", "visa", "btad"]
DatasetLayout = Literal["auto", "mvtec", "mvtecLoco", "mvtecAd2", "visa", "btad", "realIad"]

_BUILTIN_CATEGORY = Rule(
    cel="!has(self.source.builtin) || has(self.category) == (self.source.builtin.name == 'mvtec')",
    message="category names the product of builtin mvtec (bottle, cable, ...) and is not for builtin mnist",
    field="category",
    holds=lambda owner: (
        owner.source.builtin is None or (owner.category is not None) == (owner.source.builtin.name == "mvtec")
    ),
)
_BUILTIN_LAYOUT = Rule(
    cel="!has(self.source.builtin) || (!has(self.table) && self.layout == 'auto')",
    message="a builtin dataset has its own layout; remove layout and table",
    field="layout",
    holds=lambda owner: owner.source.builtin is None or (owner.table is None and owner.layout == "auto"),
)


class BuiltinDataset(Contract):
    """A public dataset fetched by the runner; every file is checked against its digest."""

    rules = (
        required_when("good_label", "name", "mnist"),
        only_when("good_label", "name", "mnist"),
        only_with("digests", "mirror"),
    )

    name: Literal["mnist", "mvtec"]
    """mnist: handwritten digits, one of them good. mvtec: MVTec AD (licence CC BY-NC-SA 4.0: not for commercial
    use); dataset.category names the product."""
    good_label: Annotated[int, Field(ge=0, le=9)] | None = None
    """mnist: the digit that counts as good; every other digit is a kind of defect."""
    limit: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """Most images per class, in the training set and in the test set each; unset means all."""
    mirror: HttpUrl | None = None
    """Base URL of a mirror with the same file names, for clusters with no internet."""
    digests: Annotated[dict[str, Digest], Field(max_length=8)] | None = None
    """Digests of the mirror's files that differ from the published ones (a smaller copy, another compression), by
    file name; every other file must be the published one."""


class DataSource(Contract):
    """Where the images are: exactly one of the fields."""

    rules = (exactly_one("s3", "persistent_volume_claim", "builtin"),)

    s3: S3Location | None = None
    """A prefix on S3."""
    persistent_volume_claim: PersistentVolumeClaimLocation | None = None
    """A folder on a volume."""
    builtin: BuiltinDataset | None = None
    """A public dataset."""

    @property
    def place(self) -> S3Location | PersistentVolumeClaimLocation | BuiltinDataset:
        """The source that is set."""
        return first_set(self.s3, self.persistent_volume_claim, self.builtin)

    @property
    def location(self) -> Location | None:
        """The folder of the images; None for a builtin dataset, which is downloaded from elsewhere."""
        if self.builtin is not None:
            return None
        return Location(s3=self.s3, persistent_volume_claim=self.persistent_volume_claim)


class CropArea(Contract):
    """A rectangle of the original image, in pixels, that is kept; the rest is cut off before resizing."""

    left: Annotated[int, Field(ge=0, le=100_000)]
    """First column kept."""
    top: Annotated[int, Field(ge=0, le=100_000)]
    """First row kept."""
    width: Annotated[int, Field(ge=1, le=100_000)]
    """Columns kept."""
    height: Annotated[int, Field(ge=1, le=100_000)]
    """Rows kept."""


class DatasetLimits(Contract):
    """How much bad data a run tolerates before it fails with DataInvalid."""

    max_unreadable_images: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """Most broken image files that are skipped; they are named in the report and counted in the status."""
    max_image_pixels: Annotated[int, Field(ge=1024, le=1_000_000_000)] = 100_000_000
    """Largest width x height that is decoded; a larger file counts as unreadable."""


class SyntheticDefects(Contract):
    """Defects that are painted on good validation images: patches of Perlin noise, as anomalib makes them.

    They stand in for real ones in validation alone, and every number that comes from them is called synthetic. Real
    defects look different. Source: Zavrtanik et al., "DRAEM", ICCV 2021.
    """

    rules = (at_most("min_opacity", "max_opacity"),)

    images: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """Number of images with a defect; unset means one for each good validation image, which stays good itself. Which
    images, and the defects, are drawn by the seed."""
    min_opacity: Annotated[float, Field(gt=0, le=1)] = 0.2
    """Least share of the defect in the pixels that it covers."""
    max_opacity: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Largest share; at 1 a defect may hide what is below it."""


class DatasetSplits(Contract):
    """How to make the splits that the folders lack."""

    good_test_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Share of train/good moved to the test set when test/good is missing, drawn by the seed."""
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Share of the test set moved to validation when val/ is missing, drawn by the seed from each label (unknown
    stays); unset means that thresholds are found on the test set itself; the status then says so."""
    synthetic_defects: SyntheticDefects | None = None
    """Paint defects on good validation images (val/good, or those of validationFraction, which then takes good images
    alone), where there are no real ones to validate with. They are never trained on or tested on."""


class NodeCache(Contract):
    """A folder on each node, set by the cluster's administrator (the operator's nodeCache setting)."""


class DataCache(Contract):
    """Where files from S3 (by their ETag) and decoded images (by their content) are kept: exactly one of the fields."""

    rules = (exactly_one("node", "persistent_volume_claim"),)

    node: NodeCache | None = None
    """The node's own folder, shared by the runs of one namespace on that node."""
    persistent_volume_claim: PersistentVolumeClaimLocation | None = None
    """A folder on a volume, written by the run."""

    @property
    def location(self) -> Location | None:
        """The folder on a volume; None for the node's own, which the operator mounts (``run.NODE_CACHE_PATH``)."""
        if self.persistent_volume_claim is None:
            return None
        return Location(persistent_volume_claim=self.persistent_volume_claim)


class TableColumns(Contract):
    """Names of a table's columns; other columns are ignored. Only the column of the paths has to be there."""

    path: Text = "path"
    """Key of the image, below the source (and category)."""
    label: Text = "label"
    """goodLabel, or a kind of defect; empty or unknown: scored, never counted."""
    split: Text = "split"
    """train, val or test; empty: good images are to learn from, the others to test on."""
    mask: Text = "mask"
    """Key of the image's mask, below the source (and category); empty for none."""


class ImageTable(Contract):
    """A list of the images: CSV, Parquet, or JSON as of Real-IAD. An image with several masks has a row for each.

    It is a field of the dataset and not of its source, because it tells, like a layout, what files mean, wherever they
    are stored.
    """

    path: RelativePath
    """The table's key below the source (and category), ending in .csv, .tsv, .parquet or .json."""
    columns: TableColumns = TableColumns()
    """Names of the columns of CSV and Parquet."""
    good_label: Text = "good"
    """The label of images without a defect."""


class Dataset(Contract):
    """Images to learn from and to test on."""

    rules = (_BUILTIN_CATEGORY, only_when("table", "layout", "auto"), _BUILTIN_LAYOUT)

    source: DataSource
    """Where the images are stored."""
    category: RelativePath | None = None
    """Sub-folder of the source with the train/ and test/ folders (a product of a larger dataset)."""
    layout: DatasetLayout = "auto"
    """How the images are laid out; auto recognises it. realIad: a JSON list below the source is named as the
    category, and has the paths of its images."""
    table: ImageTable | None = None
    """A list of the images, instead of a layout."""
    task: Task = "segmentation"
    """segmentation also computes pixel metrics where masks exist; classification works on image scores alone."""
    mask_suffix: Pattern = "_mask"
    """What follows the image's name in its mask's file name: 000.png has 000_mask.png."""
    valid_area_mask: RelativePath | None = None
    """Image below the source (and category) whose black pixels are ignored in every image: they are black for the
    model and excluded from pixel metrics. It is scaled to each image's size, whose aspect ratio it must have; with
    cropArea, which is in pixels, it must already have that size."""
    crop_area: CropArea | None = None
    """Cut every image (and mask) to this rectangle first."""
    limits: DatasetLimits = DatasetLimits()
    """How much bad data is tolerated."""
    splits: DatasetSplits = DatasetSplits()
    """How missing splits are made."""
    fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the images of each label that is used, of the training, validation and test images alike (two at least
    where there are two), drawn by the seed. A smaller fraction is part of every larger one. For a quick look, and for
    the first rungs of a sweep: metrics of few images have wide intervals."""
    cache: DataCache | None = None
    """Keep files from S3 and decoded images for the next run; unset means that every pod pulls and decodes them."""
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 42
    """Seed of everything random in the run: splits, the fraction, feature selection, coresets, first weights, the order
    of images, augmentations, synthetic defects."""


class InputData(Contract):
    """Images to run inference on; for a builtin dataset, its test images."""

    rules = (_BUILTIN_CATEGORY,)

    source: DataSource
    """Where the images are stored."""
    category: RelativePath | None = None
    """Sub-folder of the source."""
    layout: Literal["flat", "labelled"] = "flat"
    """flat: every image below the folder, labels unknown. labelled: the first folder's name (below test/, if
    there is one) is the label: good, unknown, anything else a kind of defect."""
    mask_suffix: Pattern = "_mask"
    """As in an experiment's dataset."""
    crop_area: CropArea | None = None
    """Cut every image to this rectangle first; unset means the crop area of the model's training."""
    limits: DatasetLimits = DatasetLimits()
    """How much bad data is tolerated."""
    cache: DataCache | None = None
    """Keep files from S3 for the next run."""
