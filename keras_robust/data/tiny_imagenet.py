"""TensorFlow Datasets builder for Tiny ImageNet, which has none of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import tensorflow_datasets as tfds


class TinyImagenet(tfds.core.GeneratorBasedBuilder):
    """200 ImageNet classes at 64x64: 100,000 training images; the 10,000 validation images are "test"."""

    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = """
    First put tiny-imagenet-200.zip from http://cs231n.stanford.edu/tiny-imagenet-200.zip, or the folder
    tiny-imagenet-200 unpacked from it, into downloads/manual/ of that directory.
    """

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "image": tfds.features.Image(shape=(64, 64, 3), encoding_format="jpeg"),
            "label": tfds.features.ClassLabel(num_classes=200),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.__doc__,
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label"),
            homepage="http://cs231n.stanford.edu/",
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        root = dl_manager.manual_dir / "tiny-imagenet-200"
        if not root.exists():
            archive = root.with_suffix(".zip")
            if not archive.exists():
                raise FileNotFoundError(f"there is neither {archive} nor the folder {root}.")
            root = dl_manager.extract(archive) / root.name
        self.info.features["label"].names = sorted((root / "wnids.txt").read_text(encoding="utf-8").split())
        return {"train": _training_images(root / "train"), "test": _validation_images(root / "val")}

    def _generate_examples(self, examples: Any) -> Any:
        return examples


def _training_images(root: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    for folder in root.iterdir():
        for image in (folder / "images").glob("*.JPEG"):
            yield image.name, {"image": image, "label": folder.name}


def _validation_images(root: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    for line in (root / "val_annotations.txt").read_text(encoding="utf-8").splitlines():
        name, label = line.split("\t")[:2]
        yield name, {"image": root / "images" / name, "label": label}
