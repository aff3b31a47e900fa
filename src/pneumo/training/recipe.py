"""What a file of conf/model/ may say: a network, how images are varied, and the phases of training."""

import re
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from pneumo.base.config import expect

SCRATCH_NETWORKS = ("dense", "cnn")


class Scaling(Enum):
    """How a backbone's ImageNet weights expect RGB values of 0 to 255 to be scaled."""

    INSIDE = "by its own first layers"
    TO_UNIT_RANGE = "to [-1, 1]"
    BY_IMAGENET_STATISTICS = "to [0, 1], then by ImageNet's mean and standard deviation"
    BY_IMAGENET_MEAN = "less ImageNet's mean, blue before red"


@dataclass(frozen=True)
class Backbone:
    """A network of keras.applications, without its top.

    Attributes:
        builder: name of the function in keras.applications.
        scaling: what its preprocess_input does.
        arguments: for the builder.
        min_size_px: the smallest height and width it takes.
    """

    builder: str
    scaling: Scaling
    arguments: dict[str, float] = field(default_factory=dict)
    min_size_px: int = 32


BACKBONES = {
    "convnext_tiny": Backbone("ConvNeXtTiny", Scaling.INSIDE),
    "densenet121": Backbone("DenseNet121", Scaling.BY_IMAGENET_STATISTICS),
    "densenet169": Backbone("DenseNet169", Scaling.BY_IMAGENET_STATISTICS),
    "densenet201": Backbone("DenseNet201", Scaling.BY_IMAGENET_STATISTICS),
    "efficientnetv2b0": Backbone("EfficientNetV2B0", Scaling.INSIDE),
    "efficientnetv2b1": Backbone("EfficientNetV2B1", Scaling.INSIDE),
    "efficientnetv2b2": Backbone("EfficientNetV2B2", Scaling.INSIDE),
    "efficientnetv2b3": Backbone("EfficientNetV2B3", Scaling.INSIDE),
    "inceptionv3": Backbone("InceptionV3", Scaling.TO_UNIT_RANGE, min_size_px=75),
    "mobilenet": Backbone("MobileNet", Scaling.TO_UNIT_RANGE),
    "mobilenet075": Backbone("MobileNet", Scaling.TO_UNIT_RANGE, {"alpha": 0.75}),
    "mobilenetv2": Backbone("MobileNetV2", Scaling.TO_UNIT_RANGE),
    "mobilenetv3_large": Backbone("MobileNetV3Large", Scaling.INSIDE),
    "mobilenetv3_small": Backbone("MobileNetV3Small", Scaling.INSIDE),
    "resnet50": Backbone("ResNet50", Scaling.BY_IMAGENET_MEAN),
    "resnet50v2": Backbone("ResNet50V2", Scaling.TO_UNIT_RANGE),
    "resnet152v2": Backbone("ResNet152V2", Scaling.TO_UNIT_RANGE),
    "vgg16": Backbone("VGG16", Scaling.BY_IMAGENET_MEAN),
    "xception": Backbone("Xception", Scaling.TO_UNIT_RANGE, min_size_px=71),
}

# What a `cnn` may begin with: the layers of a backbone up to this one, which halve height and width.
STEMS = {"vgg16": "block1_pool", "mobilenet075": "conv_pw_1_relu"}


class Weights(Enum):
    """What a backbone starts from."""

    imagenet = "imagenet"
    random = "random"


class Optimizer(Enum):
    """A Keras optimizer."""

    adam = "adam"
    adamw = "adamw"
    sgd = "sgd"


class Schedule(Enum):
    """The learning rate over a phase.

    It stays as it is, falls to 0 along a cosine, or rises for a quarter of the steps from a 25th of itself
    and then falls to 0 along a cosine (Smith 2018, arXiv:1803.09820).
    """

    constant = "constant"
    cosine = "cosine"
    one_cycle = "one_cycle"


class Precision(Enum):
    """A dtype policy of Keras; the mixed ones compute in 16 bits, with variables and outputs in float32."""

    float32 = "float32"
    mixed_bfloat16 = "mixed_bfloat16"
    mixed_float16 = "mixed_float16"


class Monitor(Enum):
    """The validation metric whose best epoch is kept."""

    val_loss = "val_loss"
    val_auc = "val_auc"
    val_accuracy = "val_accuracy"

    @property
    def mode(self) -> str:
        """Which direction is better, in Keras's words."""
        return "min" if self is Monitor.val_loss else "max"


@dataclass
class Network:
    """The layers.

    Attributes:
        name: `dense`, `cnn`, or one of BACKBONES.
        input_size_px: height and width the network works at; images of another size are resized in the model.
        filters: `cnn` only: filters of each 3 x 3 convolution, each followed by 2 x 2 max-pooling.
        units: width of each hidden dense layer before the output.
        dropout: rate before the output layer, in [0, 1).
        weights: what a backbone or a stem starts from.
        stem: `cnn` only: begin with the first block of one of STEMS, which is trained with the rest.
        ends_at: backbones only: the layer at which it ends, such as `conv4_block6_out`; null takes the whole.
    """

    name: str
    input_size_px: int
    filters: list[int] = field(default_factory=list)
    units: list[int] = field(default_factory=list)
    dropout: float = 0.0
    weights: Weights = Weights.imagenet
    stem: str | None = None
    ends_at: str | None = None

    def __post_init__(self) -> None:
        names = (*SCRATCH_NETWORKS, *BACKBONES)
        expect(self.name in names, "network.name", f"one of {', '.join(names)}", self.name)
        least = BACKBONES[self.name].min_size_px if self.has_backbone else 16
        expect(self.input_size_px >= least, "network.input_size_px", f"{least} or more", self.input_size_px)
        expect(all(n > 0 for n in self.filters), "network.filters", "numbers above 0", self.filters)
        expect(
            (self.name == "cnn") == bool(self.filters), "network.filters", "some for cnn only", self.filters
        )
        expect(
            self.stem is None or (self.name == "cnn" and self.stem in STEMS),
            "network.stem",
            f"one of {', '.join(STEMS)}, for cnn only",
            self.stem,
        )
        expect(
            self.ends_at is None or self.has_backbone,
            "network.ends_at",
            "null without a backbone",
            self.ends_at,
        )
        expect(all(n > 0 for n in self.units), "network.units", "numbers above 0", self.units)
        expect(0 <= self.dropout < 1, "network.dropout", "a rate in [0, 1)", self.dropout)

    @property
    def has_backbone(self) -> bool:
        """Whether the network is a head on a network of keras.applications."""
        return self.name in BACKBONES

    @property
    def pretrained(self) -> str | None:
        """The network of keras.applications whose weights it starts from, or None."""
        if self.weights is Weights.random:
            return None
        return self.name if self.has_backbone else self.stem

    @property
    def pretrained_ends_at(self) -> str | None:
        """The last layer that it takes from that network, or None for all."""
        return self.ends_at if self.has_backbone else STEMS.get(self.stem or "")

    def find_weights(self, weights_dir: Path) -> Path | None:
        """Return the file of the weights that it starts from; None for random ones or where there is none."""
        if self.pretrained is None:
            return None
        return find_weights(self.pretrained, weights_dir, self.pretrained_ends_at)


@dataclass
class Augmentation:
    """How training images are varied at random, each image anew in every epoch; the defaults have no effect.

    Everything is drawn on its own and, where nothing else is said, uniformly.

    Attributes:
        flip: mirror left and right in half of the cases.
        rotation_degrees: greatest angle, either way.
        shift_fraction: greatest shift along each axis, as a fraction of the side.
        zoom_fraction: greatest zoom, drawn for height and width apart, so that the aspect ratio varies too.
        area_fraction: smallest and greatest area of a random crop, as a fraction of the image's. The crop is
            stretched to the image's size.
        aspect_ratio: smallest and greatest ratio of the crop's width to its height, as a multiple of the
            image's; its logarithm is drawn uniformly. A side is never longer than the image's.
        brightness_fraction: greatest shift of grey values, as a fraction of 255.
        contrast_fraction: greatest change of contrast about the image's mean.
        gamma: greatest logarithm, either way, of the exponent to which values as fractions of 255 are raised.
        sharpness: greatest multiple, either way, of the difference between an image and its 5 x 5 mean, which
            is added to the image: -1 gives that mean, above 0 is sharpened.
        noise_levels: greatest standard deviation of Gaussian noise in grey levels. Its square root is drawn
            uniformly, so that half of the images get less than a quarter of it.
    """

    flip: bool = False
    rotation_degrees: float = 0.0
    shift_fraction: float = 0.0
    zoom_fraction: float = 0.0
    area_fraction: list[float] = field(default_factory=lambda: [1.0, 1.0])
    aspect_ratio: list[float] = field(default_factory=lambda: [1.0, 1.0])
    brightness_fraction: float = 0.0
    contrast_fraction: float = 0.0
    gamma: float = 0.0
    sharpness: float = 0.0
    noise_levels: float = 0.0

    def __post_init__(self) -> None:
        expect(
            0 <= self.rotation_degrees <= 180,
            "augmentation.rotation_degrees",
            "0 to 180",
            self.rotation_degrees,
        )
        for name in ("shift_fraction", "zoom_fraction", "brightness_fraction", "contrast_fraction"):
            value = getattr(self, name)
            expect(0 <= value < 1, f"augmentation.{name}", "a fraction in [0, 1)", value)
        for name, greatest in (("area_fraction", 1), ("aspect_ratio", 10)):
            bounds = getattr(self, name)
            expect(
                len(bounds) == 2 and 0 < bounds[0] <= bounds[1] <= greatest,
                f"augmentation.{name}",
                f"[low, high] with 0 < low <= high <= {greatest}",
                bounds,
            )
        for name, greatest in (("gamma", 2), ("sharpness", 10), ("noise_levels", 255)):
            value = getattr(self, name)
            expect(0 <= value <= greatest, f"augmentation.{name}", f"0 to {greatest}", value)

    @property
    def moves_pixels(self) -> bool:
        """Whether any view differs from its image in more than grey values."""
        return (
            self.flip
            or any((self.rotation_degrees, self.shift_fraction, self.zoom_fraction))
            or [*self.area_fraction, *self.aspect_ratio] != [1.0] * 4
        )


@dataclass
class Phase:
    """One call of fit.

    Attributes:
        epochs: at most this many passes over the training images.
        learning_rate: where the schedule begins.
        trainable: `all`, `head` (what stands on the backbone), or `last_<n>` (and its last n layers).
        augment: vary the training images. A `head` phase that does not is trained on cached features.
        optimizer: which.
        weight_decay: of adamw.
        schedule: of the learning rate.
        freeze_batch_norm: batch normalisation of the backbone keeps its statistics and weights.
        patience: stop after this many epochs without a better monitored metric; null runs all epochs.
        use_ema: keep an exponential moving average of the trained weights. Each epoch is judged by it and the
            phase ends with it, while training goes on from the weights themselves.
        ema_momentum: share of the average that a step keeps, in [0, 1).
    """

    epochs: int
    learning_rate: float
    trainable: str = "all"
    augment: bool = False
    optimizer: Optimizer = Optimizer.adam
    weight_decay: float = 0.0
    schedule: Schedule = Schedule.constant
    freeze_batch_norm: bool = True
    patience: int | None = None
    use_ema: bool = False
    ema_momentum: float = 0.99

    def __post_init__(self) -> None:
        expect(self.epochs >= 1, "epochs", "1 or more", self.epochs)
        expect(self.learning_rate > 0, "learning_rate", "above 0", self.learning_rate)
        expect(
            re.fullmatch(r"all|head|last_[1-9]\d*", self.trainable) is not None,
            "trainable",
            "all, head or last_<n>",
            self.trainable,
        )
        expect(self.weight_decay >= 0, "weight_decay", "0 or more", self.weight_decay)
        expect(self.patience is None or self.patience >= 1, "patience", "1 or more, or null", self.patience)
        expect(0 <= self.ema_momentum < 1, "ema_momentum", "in [0, 1)", self.ema_momentum)

    @property
    def uses_features(self) -> bool:
        """Whether the backbone gives the same features in every epoch, so that once is enough."""
        return self.trainable == "head" and not self.augment


@dataclass
class Refit:
    """Training on training and validation images together.

    Attributes:
        n_folds: validation patients are predicted by so many further networks, each of which has seen all but
            one fold of them.
    """

    n_folds: int

    def __post_init__(self) -> None:
        expect(self.n_folds >= 2, "refit.n_folds", "2 or more", self.n_folds)


@dataclass
class Recipe:
    """A model and how it is trained: one file of conf/model/.

    Attributes:
        network: the layers.
        batch_size: images a step.
        balance_classes: weight images so that each class counts the same in the loss.
        oversample: repeat training images until every class has as many as the largest. Where a phase says
            `augment: true`, each copy is another view.
        label_smoothing: in [0, 1).
        monitor: after each phase the weights of its best epoch by this metric are kept.
        keep_best: false keeps the weights of a phase's last epoch instead.
        phases: name -> phase, in order.
        augmentation: used by the phases that say `augment: true`.
        mixup_alpha: above 0, each training image is a mixture of two; the share of the first is drawn from a
            beta distribution with this parameter twice.
        predict_flips: the probability of an image is the mean of its own and its mirror image's.
        refit: train on validation images too, for a number of epochs that is fixed; null does not.
        threads: of an operation on a CPU. The bytes of a run depend on their number, so it is the recipe's
            and not the machine's; runs at the same time use the other cores.
        precision: in which the network computes.
        devices: on which each batch is divided, of those that JAX lists. Like threads, their number is the
            recipe's, as sums over parts of a batch are others.
        test_seen: how often somebody has seen a test score of this recipe or of one that it was made from,
            before it was chosen.
    """

    network: Network
    batch_size: int
    balance_classes: bool
    monitor: Monitor
    phases: dict[str, Phase]
    label_smoothing: float = 0.0
    oversample: bool = False
    keep_best: bool = True
    augmentation: Augmentation = field(default_factory=Augmentation)
    mixup_alpha: float = 0.0
    predict_flips: bool = False
    refit: Refit | None = None
    threads: int = 1
    precision: Precision = Precision.float32
    devices: int = 1
    test_seen: int = 0

    def __post_init__(self) -> None:
        expect(self.batch_size >= 1, "batch_size", "1 or more", self.batch_size)
        expect(0 <= self.label_smoothing < 1, "label_smoothing", "in [0, 1)", self.label_smoothing)
        expect(len(self.phases) > 0, "phases", "at least one", self.phases)
        for name, phase in self.phases.items():
            expect(
                self.network.has_backbone or phase.trainable == "all",
                f"phases.{name}.trainable",
                f"all, as {self.network.name} has no backbone",
                phase.trainable,
            )
            expect(
                self.refit is None or phase.patience is None,
                f"phases.{name}.patience",
                "null with refit, which leaves no validation images to stop by",
                phase.patience,
            )
        expect(
            self.refit is None or not self.keep_best,
            "keep_best",
            "false with refit, which leaves no validation images to choose an epoch by",
            self.keep_best,
        )
        expect(
            not (self.predict_flips and self.uses_features_only),
            "predict_flips",
            "false where all phases train on features",
            self.predict_flips,
        )
        expect(self.threads >= 1, "threads", "1 or more", self.threads)
        expect(
            self.devices >= 1 and self.batch_size % self.devices == 0,
            "devices",
            f"1 or more, by which batch_size, {self.batch_size}, can be divided",
            self.devices,
        )
        expect(self.mixup_alpha >= 0, "mixup_alpha", "0 or more", self.mixup_alpha)
        expect(self.test_seen >= 0, "test_seen", "0 or more", self.test_seen)

    @property
    def uses_features(self) -> bool:
        """Whether a phase trains on features of the frozen backbone, which are computed once and kept."""
        return any(phase.uses_features for phase in self.phases.values())

    @property
    def uses_features_only(self) -> bool:
        """Whether no phase trains the backbone or sees an image twice in different ways."""
        return all(phase.uses_features for phase in self.phases.values())


def find_weights(name: str, weights_dir: Path, ends_at: str | None = None) -> Path | None:
    """Return the file of a backbone's ImageNet weights.

    Args:
        name: one of BACKBONES.
        weights_dir: the folder to look in.
        ends_at: the last layer that is taken; None takes all.

    Returns:
        `<name>_imagenet_<block>.weights.h5`, where block is `ends_at` without its last word
        (`conv4_block6_out` -> `conv4_block6`), if there is such a file: the weights of the layers up to that
        one. Else `<name>_imagenet_notop.weights.h5`: those of the whole. None if the folder has neither.
    """
    for end in (ends_at, None):
        path = weights_dir / name_weights_file(name, end)
        if path.is_file():
            return path
    return None


def name_weights_file(name: str, ends_at: str | None = None) -> str:
    """Return what `find_weights` calls the file of a backbone, or of a backbone that ends at a layer."""
    part = ends_at.rpartition("_")[0] if ends_at and "_" in ends_at else ends_at
    return f"{name}_imagenet_{part or 'notop'}.weights.h5"
