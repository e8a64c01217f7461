"""Evaluation of one model on one task: its row of results, its values per picture, and its pictures.

```python
evaluator = Evaluator(load_saved_task("runs/cpu/earth/seed0/data"))
found = evaluator.evaluate("gcka", "runs/cpu/earth/seed0/student-gcka")
print(found.result.l1, found.per_image["l1"])
```
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from i2i_lib.checkpoint import Generator, load_generator, load_info
from i2i_lib.config import check_choice
from i2i_lib.data.cityscapes import train_ids
from i2i_lib.data.folders import maps_originals
from i2i_lib.data.tiles import Task, encode, evenly, middle, source_pictures
from i2i_lib.hub import fetch_generator, is_address
from i2i_lib.macs import generator_macs, generator_params
from i2i_lib.metrics.baselines import ColourTransfer
from i2i_lib.metrics.cost import peak_memory
from i2i_lib.metrics.intervals import Estimate
from i2i_lib.metrics.labels import iou_bootstrap
from i2i_lib.metrics.lookup import LEARNT_FROM, ColourLookup
from i2i_lib.metrics.networks.drn import cityscapes_confusion, drn_d_105
from i2i_lib.metrics.networks.effnet import EffNetFeatures
from i2i_lib.metrics.networks.literature import (
    SetDistance,
    WeightsMissing,
    available_extractors,
    real_targets,
    set_distances,
)
from i2i_lib.metrics.networks.segmenter import segmenter_confusion, train_segmenter
from i2i_lib.metrics.pairs import feature_distance, l1, quantise, ssim
from i2i_lib.metrics.sets import FeatureStats, frechet_distance, kernel_distance_interval
from i2i_lib.results import PAIRED, EvalResult, size_text
from i2i_lib.train.adversarial import channels_last
from i2i_lib.train.packed import on_cpu, packed

YARDSTICKS = ("floor", "look-up")  # models without weights: real pictures of other places, and colours alone


@dataclass(frozen=True, slots=True)
class Evaluated:
    """One model on the test pictures of one task."""

    result: EvalResult
    per_image: dict[str, Tensor]  # paired measure -> [N], float64; empty without a target for each picture
    pictures: Tensor  # [N, 3, H, W], uint8, as measured
    rounded_down: Tensor  # the same as some measures of the literature quantise them
    miou: Estimate | None  # where sources are labels


class Evaluator:
    """The test pictures of a task, or those of its validation part, and all that every model is measured with.

    Attributes: `task`, whose `test` is the measured part; `source` [N, C, H, W] and `target` [N, 3, H, W], uint8, its
    pictures; `blocks` [N], their independent units; `protocol`, the id within which numbers compare;
    `labels_missing`, a sentence where labels cannot be read back for want of weights.
    """

    def __init__(
        self,
        task: Task,
        *,
        seed: int = 0,
        data: str | None = None,
        part: Literal["test", "validation"] = "test",
        most: int = 0,
        segmenter_steps: int = 600,
        device: str | torch.device = "cpu",
    ) -> None:
        """`seed` of the trainings and `data`, the SHA-256 of the tiles, are noted in every row of results.

        The validation `part` is for the choice of settings. Raises ValueError if the task has none. `most` is how many
        pictures are measured, evenly spaced over the part; 0 for all. Their number is noted with every result.
        `segmenter_steps` trains the network that reads labels back from pictures, where sources are label maps.
        """
        check_choice("part", part, ("test", "validation"))
        if part == "validation":
            if task.validation is None:
                raise ValueError(
                    f"{task.name} has no validation part: make its data with validation=0.1, or with a larger share if"
                    " that is less than 2 pictures"
                )
            task = replace(task, test=task.validation)
        if most < 0 or most == 1:
            raise ValueError(f"most is at least 2, or 0 for all, got {most}")
        self._whole = task
        if most:
            task = _fewer(task, part, most)
        test, self.part = task.test, part
        self.task, self.seed, self.data, self.device = task, seed, data, device
        # Without pairs one domain may have more pictures than the other.
        count = min(len(test), len(test.target))
        self.source, self.target = (images[evenly(len(images), count)] for images in (test.source, test.target))
        self.blocks = test.block if test.paired else torch.arange(count)
        self.split = f"{task.name} {part} tiles of {size_text(test.shape)} px"

        self._extract = EffNetFeatures(device)
        self._real = self._extract(self.target)
        self._real_stats = FeatureStats.from_batches([self._real.narrow(count)])
        self.protocol = self._extract.protocol(self.split, count).id

        self.labels_missing: str | None = None
        try:
            self._read = _label_reader(self, segmenter_steps)
        except WeightsMissing as error:
            self._read, self.labels_missing = None, str(error)

    def evaluate(self, name: str, weights: str | Path | None = None) -> Evaluated:
        """Evaluate the generator saved at `weights`, also on a hub, or the yardstick "floor" or "look-up".

        A network's row also holds its price: MACs, parameters and memory, and what its training took, where the saved
        file tells.
        """
        if name == "floor":
            return self.measure(name, _other_places(self.task, len(self.target)), registered=False)
        if name == "look-up":
            return self.measure(name, _colour_look_up(self.task, self.source))
        if weights is None:
            raise ValueError(f"{name!r} is not one of {', '.join(YARDSTICKS)}: pass the path of its weights")
        if is_address(weights):  # once, so that network and record are of one commit
            weights = fetch_generator(str(weights))
        model = load_generator(weights).to(self.device)
        price = _price(model, Path(weights), self.task)
        return self.measure(name, self.generate(model), **price)

    def generate(self, model: Generator) -> Tensor:
        """Translate every test source: [N, 3, H, W], float in [-1, 1], on the CPU. Lays out the weights anew."""
        return generate(model, self.source, self.task.test.classes, self.device)

    def measure(self, name: str, pictures: Tensor, *, registered: bool = True, **price: Any) -> Evaluated:
        """Measure pictures [N, 3, H, W], float in [-1, 1] or uint8, against the targets.

        `registered` pictures show the place of their targets and, if the test has pairs, are compared with them one by
        one. `price` goes into the row of results.
        """
        made = quantise(pictures)
        features = self._extract(made)
        registered = registered and self.task.test.paired

        per_image, miou = {}, None
        if registered:
            per_image["l1"] = l1(made, self.target)
            per_image["ssim"] = ssim(made, self.target)
            per_image["feature_distance"] = feature_distance(features.maps, self._real.maps)
            miou = self.read_labels(pictures)

        kd = kernel_distance_interval(self._real.pooled, features.pooled, self.blocks, paired=registered)
        kd = kd.scaled(1000)
        stats = FeatureStats.from_batches([features.narrow(len(self.target))])
        means = {measure: per_image[measure].mean().item() if registered else None for measure in PAIRED}
        result = EvalResult(
            task=self.task.name,
            seed=self.seed,
            model=name,
            protocol=self.protocol,
            images=len(self.target),
            blocks=len(self.blocks.unique()),
            **means,
            kd=kd.value,
            kd_low=kd.low,
            kd_high=kd.high,
            fd=frechet_distance(stats, self._real_stats),
            miou=miou.value if miou else None,
            data=self.data,
            **price,
        )
        return Evaluated(result, per_image, made, quantise(pictures, "down"), miou)

    def read_labels(self, pictures: Tensor) -> Estimate | None:
        """Mean IoU of the labels that a network reads back from pictures; of the targets, this is the ceiling.

        None where sources are no labels, or the network's weights are missing.
        """
        return iou_bootstrap(self._read(pictures), self.blocks) if self._read else None

    def literature(self, models: Iterable[Evaluated]) -> tuple[list[SetDistance], list[str]]:
        """FID, KID and their kin of each model, and a sentence for each extractor whose weights are missing."""
        evaluated = list(models)
        extractors, missing = available_extractors(self.device)
        distances = []
        for extractor in extractors:
            down = extractor.rounding == "down"
            pictures = {found.result.model: found.rounded_down if down else found.pictures for found in evaluated}
            real = _authors_real(self._whole) if self.part == "test" else None
            distances += set_distances(extractor, pictures, self.target, self.split, self.blocks, all_real=real)
        return distances, missing


def generate(model: Generator, source: Tensor, classes: int, device: str | torch.device = "cpu") -> Tensor:
    """Translate sources [N, C, H, W], uint8, of `classes` labels: [N, 3, H, W], float in [-1, 1], on the CPU.

    `model` is on the `device`; its weights are laid out anew.
    """
    network: Any = packed(channels_last(model)) if on_cpu(model) else model
    with torch.no_grad():
        return torch.cat([network(encode(part, classes).to(device)).cpu() for part in source.split(32)])


def _authors_real(task: Task) -> tuple[Iterable[Tensor], str] | None:
    """The real pictures that the paper's FID is taken to, and their name; None where they are those of the test."""
    if task.name == "maps" and task.info["direction"] == "AtoB":
        return maps_originals(task), "maps test pictures at their own size"
    if task.train.paired:
        return None
    images = len(task.train.target) + len(task.test.target)
    return real_targets(task), f"{task.name} all {images} training and test tiles of {size_text(task.test.shape)} px"


def per_image_values(models: Iterable[Evaluated]) -> dict[str, dict[str, list[float]]]:
    """Values per image by measure and model, {measure: {model: [N]}}, as `results.save_evaluation` writes them."""
    values: dict[str, dict[str, list[float]]] = {}
    for found in models:
        for measure, of_image in found.per_image.items():
            values.setdefault(measure, {})[found.result.model] = of_image.tolist()
    return values


def _fewer(task: Task, part: str, most: int) -> Task:
    """The task with at most so many test pictures, evenly spaced over all."""
    test, scenes = task.test, f"{part}_scenes"
    index, of_targets = evenly(len(test), most), evenly(len(test.target), most)
    ours = {name: getattr(test, name)[index] for name in ("source", "block", "box")}
    theirs = {name: getattr(test, name)[of_targets] for name in ("target", "target_box")}
    named = {scenes: [task.info[scenes][i] for i in index]} if scenes in task.info else {}
    return replace(task, test=replace(test, **ours, **theirs), info=task.info | named)


def _other_places(task: Task, count: int) -> Tensor:
    """Real pictures of the target domain that the test does not hold, cut to its size from the middle.

    They are evenly spaced over all; where there are fewer than `count`, some come more than once.
    """
    real = task.train.target
    return middle(real[torch.linspace(0, len(real) - 1, count).long()], task.test.shape)


def _colour_look_up(task: Task, source: Tensor) -> Tensor:
    """The test sources translated by colour alone; without pairs, by the two domains' statistics of colours."""
    learnt = source_pictures(task.train.source[:LEARNT_FROM], task.info), task.train.target[:LEARNT_FROM]
    translate = ColourLookup(*learnt) if task.train.paired else ColourTransfer(*learnt)
    return translate(source_pictures(source, task.info))


def _label_reader(evaluator: Evaluator, segmenter_steps: int) -> Callable[[Tensor], Tensor] | None:
    """A function from pictures to confusion matrices [N, classes, classes]; None where sources are not labels."""
    task, device = evaluator.task, evaluator.device
    if task.name == "cityscapes" and task.info["direction"] == "AtoB":
        network = drn_d_105(device=device)
        scenes, path = task.info[f"{evaluator.part}_scenes"], task.info["options"].get("path")
        return lambda pictures: cityscapes_confusion(network, pictures, train_ids(scenes, path))
    if task.family == "gaugan":
        segmenter = train_segmenter(task.train, steps=segmenter_steps, device=device)
        return lambda pictures: segmenter_confusion(segmenter, pictures, evaluator.source)
    return None


def _price(model: Generator, weights: Path, task: Task) -> dict[str, Any]:
    """The cost of one picture by the model, and of its training; None for what its record does not tell."""
    saved = load_info(weights)
    made = saved["provenance"]
    return {
        "macs_paper": generator_macs(model.config, task.test.shape),
        "macs_exact": generator_macs(model.config, task.test.shape, "exact"),
        "params": generator_params(model.config),
        "peak_memory_mib": peak_memory(model, task.test.shape, channels=task.train.source_channels),
        "steps": made.get("training", {}).get("steps"),
        "train_seconds": made.get("seconds"),
        "weights": saved["sha256"],
    }
