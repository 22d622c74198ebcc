"""The PASCAL_MT layout: PASCAL-Context with segmentation, human parts, saliency, normals and edges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from scipy.ndimage import laplace

from branchtune.data.decoding import read_colour_image, read_label_image, read_mat
from branchtune.data.label_files import Field, LabelFiles
from branchtune.data.pascal_classes import NORMALS_CLASSES, PART_OF, PARTS, PERSON
from branchtune.data.stored import StoredSamples
from branchtune.data.transforms import Sample
from branchtune.errors import UserError
from branchtune.ignored import IGNORED_CLASS
from branchtune.metrics.thinning import thin
from branchtune.tasks.task import Task

_CONTEXT = "pascal-context/trainval/{id}.mat"


def _segmentation(channels: int, path: Path) -> np.ndarray:
    values = read_label_image(path)
    wrong = values[(values >= channels) & (values != IGNORED_CLASS)]
    if wrong.size:
        raise UserError(f"{path}: value {wrong[0]} is no class below {channels}, set num_classes to match")
    return values


def _human_parts(channels: int, path: Path) -> np.ndarray | None:
    """None without an annotated person: the published loader ignores such an image as a whole."""
    anno = read_mat(path, "anno")
    parts: np.ndarray | None = None
    try:
        for thing in anno[0, 0][1].reshape(-1):
            if int(thing[1].item()) != PERSON or thing[3].size == 0:
                continue
            if parts is None:
                parts = np.zeros(thing[2].shape, np.uint8)
            for part in thing[3].reshape(-1):
                parts[part[1].astype(bool)] = PART_OF[part[0].item()]
    except KeyError as error:
        raise UserError(f"{path}: unknown part {error} of a person (known: {', '.join(PART_OF)})") from error
    except (IndexError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path}: 'anno' is no annotation of PASCAL-Part, restore the file") from error
    if parts is None or not parts.any():
        return None
    if parts.max() >= channels:
        raise UserError(f"{path}: part {parts.max()} is above the task's {channels} classes, set num_classes to match")
    return parts


def _normals(channels: int, path: Path, context: Path) -> np.ndarray:
    vectors = 2 * read_colour_image(path).astype(np.float32) / 255 - 1
    classes = _label_map(context)
    if classes.shape != vectors.shape[:2]:
        size, expected = list(classes.shape), list(vectors.shape[:2])
        raise UserError(f"{context}: size {size} differs from {expected} of {path}, bring both to one size")
    kept = np.isin(classes, list(NORMALS_CLASSES.values()))
    length = np.sqrt(np.square(vectors).sum(-1))  # never zero: 2v/255 - 1 has no zero for a whole v
    return np.where(kept, (vectors / length[..., None]).transpose(2, 0, 1), np.float32(np.nan))


def _saliency(channels: int, path: Path) -> np.ndarray:
    return (read_label_image(path) / 255 > 0.5).astype(np.uint8)


def _edge(channels: int, path: Path) -> np.ndarray:
    """Where the 4-neighbour Laplacian of the classes is not zero, thinned to lines."""
    return thin(laplace(_label_map(path).astype(np.float64), mode="mirror") != 0).astype(np.uint8)


def _label_map(path: Path) -> np.ndarray:
    values = read_mat(path, "LabelMap")
    if values.ndim != 2 or values.dtype.kind not in "iuf":
        raise UserError(f"{path}: LabelMap is {values.dtype} {list(values.shape)}, expected whole numbers [H, W]")
    if not np.isfinite(values).all():
        raise UserError(f"{path}: LabelMap holds {values[~np.isfinite(values)][0]}, expected whole numbers [H, W]")
    return values


class PASCALFiles(LabelFiles):
    """PASCAL-Context in the PASCAL_MT layout.

    | file | holds | ignored |
    |---|---|---|
    | `ImageSets/Context/<split>.txt` | one id per line | |
    | `JPEGImages/<id>.jpg` | RGB | |
    | `semseg/VOC12/<id>.png`, else `semseg/pascal-context/<id>.png` | palette, 0-20 | 255 |
    | `human_parts/<id>.mat` | `anno`: objects with class, mask and parts; the parts of persons in six groups, 0 is all else | images without a person |
    | `normals_distill/<id>.png` | RGB, n = 2 v / 255 - 1, made unit length | classes that NYU-Depth lacks |
    | `sal_distill/<id>.png` | grey, salient above half of 255 | |
    | `pascal-context/trainval/<id>.mat` | `LabelMap`: edges are its thinned borders; says which class normals are of | |

    `ImageSets/Parts/`, a cache that the published loader writes, is neither read nor written: which images show persons
    is read from their annotations. Of a person whose parts overlap, the last one listed wins. No sign of a normal is
    changed on loading. Human parts are ignored as a whole also where the augmentation has moved every part out of the
    image.

    Args:
        root: folder of the expanded package.
        labels: `semseg` and `human_parts` with their numbers of classes (21 and 7), `normals`, `sal`, `edge`.
    """  # noqa: E501

    fields: Mapping[str, Field] = {
        "semseg": Field("classes", _segmentation, ("semseg/VOC12/{id}.png|semseg/pascal-context/{id}.png",)),
        "human_parts": Field("classes", _human_parts, ("human_parts/{id}.mat",)),
        "normals": Field("normals", _normals, ("normals_distill/{id}.png", _CONTEXT)),
        "sal": Field("values", _saliency, ("sal_distill/{id}.png",)),
        "edge": Field("values", _edge, (_CONTEXT,)),
    }
    image: str = "JPEGImages/{id}.jpg"
    lists: str = "ImageSets/Context/{split}.txt"
    package: ClassVar[str] = "an expanded PASCAL_MT package"
    channels: ClassVar[Mapping[str, int]] = {"semseg": 21, "human_parts": len(PARTS), "normals": 3, "sal": 1, "edge": 1}
    class_names: Mapping[str, Sequence[str]] = {"human_parts": PARTS}

    def finish(self, sample: Sample) -> Sample:
        parts = sample.get("human_parts")
        if parts is not None and not ((parts > 0) & (parts != IGNORED_CLASS)).any():
            del sample["human_parts"]
        return sample


class PASCAL(StoredSamples):
    """PASCAL-Context in the PASCAL_MT layout (see `PASCALFiles`), with samples as every dataset here yields them.

    Args:
        root: folder of the expanded package.
        split: "train" or "val".
        tasks: tasks named `semseg`, `human_parts`, `normals`, `sal` or `edge`; only their files are required.
        image_size: height and width of the samples.
        options: the keyword arguments of `StoredSamples`.
    """

    def __init__(
        self, root: str | Path, split: str, tasks: Sequence[Task], image_size: tuple[int, int], **options: Any
    ) -> None:
        super().__init__(PASCALFiles.for_tasks(root, tasks), split, tasks, image_size, **options)
