"""Chest X-ray phantoms: synthetic frontal radiographs, drawn from random numbers.

No image made here shows a person, and results on them say nothing about patients. They let every stage run
without a download, on images with the variation of real ones: disease of graded severity in varied anatomy,
with exposure, framing and collimation that differ from view to view. What varies with the view is drawn from
a random stream of its own, so that it is independent of the label.

An image is made in three steps: `draw_thorax` (the patient), `add_pneumonia` (the disease) and
`take_radiograph` (the view). The first two work in attenuation, where overlapping tissues add up as in a
projection: about 0 is air, 0.2 is lung, 0.9 is the spine behind the heart.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from pneumo.base.labels import Subtype

CANVAS_PX = 320
# OpenCV draws at fractions of a pixel if coordinates are integers with this many fractional bits.
_SHIFT_BITS = 4
_COLUMNS = np.arange(CANVAS_PX, dtype=np.float32)[None, :]
_ROWS = np.arange(CANVAS_PX, dtype=np.float32)[:, None]

# Outlines are points (s, t) of one half of the thorax: s is the distance from the midline in half widths, t
# the distance from the apex of the lung (0) towards its lowest corner (1).
_LUNG_OUTLINE = np.array(
    [
        (0.20, 0.09), (0.36, 0.00), (0.58, 0.07), (0.79, 0.27), (0.92, 0.52), (0.98, 0.78), (0.99, 0.98),
        (0.84, 0.89), (0.60, 0.83), (0.36, 0.86), (0.20, 0.92), (0.17, 0.62), (0.15, 0.32),
    ]
)  # fmt: skip
_TRUNK_OUTLINE = np.array(
    [(0.30, -0.70), (0.33, -0.24), (0.80, -0.10), (1.20, 0.02), (1.22, 0.35), (1.16, 2.20)]
)
_HEART_OUTLINE = np.array(
    [
        (-0.25, 0.52), (-0.10, 0.38), (0.12, 0.36), (0.32, 0.50), (0.52, 0.72), (0.50, 0.90), (0.10, 0.95),
        (-0.24, 0.86),
    ]
)  # fmt: skip
_COLUMN_OUTLINE = np.array([(-0.14, -0.9), (0.14, -0.9), (0.2, 0.5), (0.2, 2.0), (-0.2, 2.0), (-0.2, 0.5)])
_VERTEBRA_OUTLINE = np.array([(-0.13, 0), (0.13, 0), (0.13, 0.066), (-0.13, 0.066)])
_AORTA_PATH = np.array([(0.16, 0.28), (0.18, 0.24), (0.17, 0.60)])
_RIB_HALF_WIDTHS = (0.50, 0.68, 0.80, 0.88, 0.94, 0.98, 1.00, 1.01, 1.01, 1.00)
_N_RIBS_SEEN_IN_FRONT = 7

# Lobes that may be consolidated: side of the image (-1 is the patient's right), first and last t.
_LOBES = ((-1, 0.05, 0.42), (-1, 0.42, 0.70), (-1, 0.48, 0.90), (1, 0.05, 0.48), (1, 0.48, 0.92))
_MARKERS = ("R", "L", "AP", "PA", "PORTABLE", "SUPINE")

# Exposure varies more than on most real images. So grey values say little by themselves, and histogram
# equalisation, which undoes any rising curve of grey values, helps a network.
_GAMMAS = (0.4, 2.5)
_LEAST_CONTRAST = 0.3


@dataclass(frozen=True)
class Frame:
    """Position and size of a thorax on the canvas, in pixels."""

    midline_px: float
    apex_px: float
    half_width_px: float
    height_px: float

    def place(self, outline: np.ndarray, side: int = 1) -> np.ndarray:
        """Return (s, t) points as (x, y) pixels, float array of shape (n, 2); side -1 is the image's left."""
        return np.column_stack(
            [
                self.midline_px + side * outline[:, 0] * self.half_width_px,
                self.apex_px + outline[:, 1] * self.height_px,
            ]
        )


@dataclass(frozen=True)
class Thorax:
    """A patient without disease.

    Attributes:
        frame: position and size on the canvas.
        attenuation: float32 array of shape (CANVAS_PX, CANVAS_PX), 0 is air.
        lungs: float32 array of the same shape in [0, 1], the fraction of a pixel that lies in a lung.
        bronchi: float32 array of the same shape in [0, 1], the tree of bronchi and vessels.
    """

    frame: Frame
    attenuation: np.ndarray
    lungs: np.ndarray
    bronchi: np.ndarray


def draw_thorax(rng: np.random.Generator) -> Thorax:
    """Draw a patient without disease."""
    frame = Frame(
        midline_px=CANVAS_PX * 0.5,
        apex_px=CANVAS_PX * rng.uniform(0.21, 0.25),
        half_width_px=CANVAS_PX * rng.uniform(0.28, 0.33),
        height_px=CANVAS_PX * rng.uniform(0.46, 0.56),
    )
    right = frame.place(_vary(_LUNG_OUTLINE, 0.015, rng), -1)
    left = frame.place(_vary(_LUNG_OUTLINE, 0.015, rng) * (1, rng.uniform(1.0, 1.05)))
    lungs = _blur(_fill(_smooth(right), _smooth(left)), 1.2)
    bronchi = _draw_bronchi(frame, rng) * lungs

    attenuation = _draw_soft_tissue(frame, rng) + _draw_bones(frame, rng)
    attenuation -= rng.uniform(0.36, 0.44) * lungs * (0.55 + 0.45 * _blur(lungs, 10.0))
    attenuation += rng.uniform(0.07, 0.12) * bronchi + 0.02 * _noise(6.0, rng) * lungs
    return Thorax(frame, np.maximum(attenuation, 0).astype(np.float32), lungs, bronchi)


def add_pneumonia(thorax: Thorax, subtype: Subtype, rng: np.random.Generator) -> np.ndarray:
    """Return the patient's attenuation with pneumonia; it differs in the lungs only.

    Args:
        thorax: the patient.
        subtype: bacterial draws a consolidation in one lobe, viral a fine pattern in both lungs.
        rng: random stream of the disease's place, shape and severity.

    Returns:
        float32 array of shape (CANVAS_PX, CANVAS_PX), 0 is air.

    Raises:
        ValueError: the subtype is another one.
    """
    severity = rng.beta(1.6, 1.6)
    if subtype == Subtype.BACTERIAL:
        opacity = _draw_consolidation(thorax, severity, rng)
    elif subtype == Subtype.VIRAL:
        opacity = _draw_interstitial_pattern(thorax, severity, rng)
    else:
        raise ValueError(f"Expected the subtype bacterial or viral. Received: {subtype}.")
    return np.maximum(thorax.attenuation + opacity, 0).astype(np.float32)


def take_radiograph(attenuation: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Take one view of a patient: framing, exposure, noise, collimation and a text marker.

    Args:
        attenuation: float32 array of shape (CANVAS_PX, CANVAS_PX), 0 is air.
        rng: random stream of the view.

    Returns:
        uint8 array of shape (height, width), 240 to 272 pixels high, 1 to 1.45 times as wide.
    """
    exposed = _expose(_frame_patient(attenuation, rng), rng)
    image = _collimate(np.rint(np.clip(exposed, 0, 1) * 255).astype(np.uint8), rng)
    _burn_in_marker(image, rng)
    return image


def _draw_soft_tissue(frame: Frame, rng: np.random.Generator) -> np.ndarray:
    half = _vary(_TRUNK_OUTLINE, 0.02, rng)
    trunk = np.concatenate([frame.place(half, 1), frame.place(half[::-1], -1)])
    arm = np.array([(1.0, 0.04), (rng.uniform(1.6, 2.1), rng.uniform(-0.5, 0.8))])
    arm_px = frame.half_width_px * rng.uniform(0.34, 0.44)
    arms = [frame.place(arm, side) for side in (-1, 1)]
    flesh = _blur(np.maximum(_fill(trunk), _stroke(arms, arm_px)), 2.5)
    thickness = flesh * (0.35 + 0.65 * _blur(flesh, 18.0))

    heart = frame.place(_vary(_HEART_OUTLINE, 0.02, rng) * (rng.uniform(0.85, 1.15), 1))
    column = frame.place(_COLUMN_OUTLINE)
    aorta = _stroke([frame.place(_AORTA_PATH)], 0.2 * frame.half_width_px)
    mediastinum = _blur(np.maximum(_fill(_smooth(heart), column), aorta), 2.4)
    abdomen = _step((_ROWS - frame.apex_px) / frame.height_px - 0.88, 0.05)
    trachea = frame.place(np.array([(0.0, -0.5), (0.01, 0.1), (0.02, rng.uniform(0.27, 0.33))]))
    return (
        (rng.uniform(0.52, 0.60) + 0.16 * abdomen) * thickness
        + rng.uniform(0.20, 0.26) * mediastinum * (1 - 0.65 * abdomen)
        - 0.12 * _blur(_stroke([trachea], frame.half_width_px * 0.1), 1.2)
    )


def _draw_bones(frame: Frame, rng: np.random.Generator) -> np.ndarray:
    rib_px = frame.half_width_px * rng.uniform(0.075, 0.1)
    tilt, first, step = rng.uniform(0.11, 0.16), rng.uniform(0.10, 0.14), rng.uniform(0.088, 0.1)
    back, front = np.radians(np.linspace(0, 86, 20)), np.radians(np.linspace(0, rng.uniform(50, 68), 16))
    shoulder = rng.uniform(-0.06, 0.02)
    clavicle = np.array([(0.12, 0.10), (0.35, 0.08), (0.65, 0.04 + shoulder / 2), (0.95, 0.01 + shoulder)])

    posterior, anterior, clavicles = [], [], []
    for side in (-1, 1):
        clavicles.append(frame.place(clavicle, side))
        for rib, width in enumerate(_RIB_HALF_WIDTHS):
            # A rib is a ring that is lower in front, so its projection is an ellipse.
            centre, rise = first + step * rib, tilt * (0.6 + 0.07 * rib)
            upper = np.column_stack([width * np.cos(back), centre - rise * np.sin(back)])
            lower = np.column_stack([width * np.cos(front), centre + 1.1 * rise * np.sin(front)])
            posterior.append(frame.place(upper, side))
            if rib < _N_RIBS_SEEN_IN_FRONT:
                anterior.append(frame.place(lower, side))
    tops = np.arange(-0.45, 1.6, 0.085)
    vertebrae = [frame.place(np.add(_VERTEBRA_OUTLINE, (0, top))) for top in tops]
    return rng.uniform(0.8, 1.2) * (
        0.085 * _blur(_stroke_bones(posterior, rib_px), 0.8)
        + 0.045 * _blur(_stroke_bones(anterior, 1.15 * rib_px), 1.0)
        + 0.11 * _blur(_stroke_bones(clavicles, 1.2 * rib_px), 0.8)
        + 0.08 * _blur(_fill(*vertebrae), 1.5)
    )


def _draw_bronchi(frame: Frame, rng: np.random.Generator) -> np.ndarray:
    """Draw two trees from the hila outwards; each generation is shorter, thinner and fainter."""
    n_stems, n_generations = 9, 5
    sides = np.repeat((-1.0, 1.0), n_stems)
    hila = np.concatenate([frame.place(np.array([(0.2, 0.42)]), side) for side in (-1, 1)])
    starts = np.repeat(hila, n_stems, axis=0)
    angles = np.tile(np.radians(np.linspace(-75, 80, n_stems)), 2) + rng.normal(0, 0.1, 2 * n_stems)
    tree = np.zeros((CANVAS_PX, CANVAS_PX), np.float32)
    for generation in range(n_generations):
        length_px = frame.half_width_px * 0.24 * 0.8**generation * rng.uniform(0.7, 1.2, len(starts))
        ends = starts + length_px[:, None] * np.column_stack([sides * np.cos(angles), np.sin(angles)])
        segments = _stroke(np.stack([starts, ends], axis=1), frame.half_width_px * 0.032 * 0.66**generation)
        tree = np.maximum(tree, 0.75**generation * segments)
        turns = rng.uniform(0.1, 0.6, len(starts))
        starts, sides = np.tile(ends, (2, 1)), np.tile(sides, 2)
        angles = np.concatenate([angles - turns, angles + turns])
    return _blur(tree, 0.7)


def _draw_consolidation(thorax: Thorax, severity: float, rng: np.random.Generator) -> np.ndarray:
    frame = thorax.frame
    side, first, last = _LOBES[rng.integers(len(_LOBES))]
    centre = np.array([(rng.uniform(0.35, 0.8), rng.uniform(first + 0.1, last - 0.05))])
    x, y = frame.place(centre, side)[0]
    radius_px = frame.half_width_px * (0.40 + 0.45 * severity)
    stretch = rng.uniform(0.8, 1.1)
    distance = np.hypot((_COLUMNS - x) * stretch, (_ROWS - y) / stretch) / radius_px
    ragged = 0.22 * _noise(20.0, rng) + 0.10 * _noise(6.0, rng)
    patch = _step(1 - distance - ragged, rng.uniform(0.08, 0.2))
    fissure_slope = rng.uniform(-0.15, 0.15)
    t = (_ROWS - y + fissure_slope * (_COLUMNS - x)) / frame.height_px + centre[0, 1]
    lobe = _step(np.minimum(t - first, last - t), 0.015)
    lung = thorax.lungs * ((_COLUMNS - frame.midline_px) * side > 0)
    depth = 0.18 + 0.26 * severity
    # The bronchi keep their air when the tissue around them fills: air bronchograms.
    texture = 1 + 0.07 * _noise(4.0, rng) - rng.uniform(0.15, 0.6) * thorax.bronchi
    return depth * patch * lobe * lung * texture


def _draw_interstitial_pattern(thorax: Thorax, severity: float, rng: np.random.Generator) -> np.ndarray:
    frame = thorax.frame
    hila = (frame.place(np.array([(0.3, 0.5)]), side)[0] for side in (-1, 1))
    distance = np.minimum(*(np.hypot(_COLUMNS - x, _ROWS - y) for x, y in hila)) / frame.half_width_px
    around_hila = np.exp(-((distance / rng.uniform(0.8, 1.3)) ** 2))
    patchy = np.maximum(0.8 + 0.4 * _noise(24.0, rng), 0.1)
    reticles = np.exp(-((_noise(3.5, rng) / 0.35) ** 2))
    depth = 0.35 + 0.85 * severity
    cuffs = _blur(cv2.dilate(thorax.bronchi, np.ones((3, 3), np.uint8)), 1.0)
    return depth * around_hila * patchy * thorax.lungs * (0.09 + 0.10 * reticles + 0.16 * cuffs)


def _frame_patient(attenuation: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    height = int(rng.integers(240, 273))
    width = round(height * rng.uniform(1.0, 1.45))
    zoom = height / (CANVAS_PX * rng.uniform(0.63, 0.73))
    centre = (CANVAS_PX * 0.5, CANVAS_PX * 0.48)
    matrix = cv2.getRotationMatrix2D(centre, rng.normal(0, 3), zoom)
    matrix[:, 2] = matrix[:, 2] + np.array([width, height]) * (0.5 + rng.uniform(-0.03, 0.03, 2)) - centre
    return cv2.warpAffine(
        attenuation, matrix, (width, height), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REPLICATE
    )


def _expose(attenuation: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    level, window = rng.uniform(0.0, 0.1), rng.uniform(0.9, 1.1)
    gamma = np.exp(rng.uniform(*np.log(_GAMMAS)))
    signal = np.clip((attenuation - level) / window, 0, 1) ** gamma
    # Fewer photons pass dense tissue, so its noise is greater.
    noise = rng.standard_normal(signal.shape, dtype=np.float32) * (0.5 + signal)
    signal = _blur(signal + rng.uniform(0.01, 0.04) * noise, rng.uniform(0.3, 0.9))
    darkest = rng.uniform(0.0, 0.2)
    return darkest + rng.uniform(_LEAST_CONTRAST, 1 - darkest) * signal


def _collimate(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    if rng.random() < 0.35:
        return image
    height, width = image.shape
    left, right = (width * rng.uniform(0, 0.12, 2)).astype(int)
    top, bottom = (height * rng.uniform(0, 0.1, 2)).astype(int)
    field = np.s_[top : height - bottom, left : width - right]
    collimated = np.full_like(image, rng.integers(0, 16))
    collimated[field] = image[field]
    return collimated


def _burn_in_marker(image: np.ndarray, rng: np.random.Generator) -> None:
    if rng.random() < 0.25:
        return
    height, width = image.shape
    text = _MARKERS[rng.integers(len(_MARKERS))]
    size, brightness = rng.uniform(0.35, 0.8), int(rng.integers(200, 256))
    (text_width_px, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size, 1)
    margin = int(width * rng.uniform(0.03, 0.15))
    x = margin if rng.random() < 0.5 else width - margin - text_width_px
    y = int(height * (rng.uniform(0.1, 0.25) if rng.random() < 0.8 else rng.uniform(0.85, 0.95)))
    cv2.putText(image, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, size, brightness, 1, cv2.LINE_AA)


def _step(x: np.ndarray, width: float) -> np.ndarray:
    """Return a smooth step from 0 to 1 at x = 0."""
    return 0.5 + 0.5 * np.tanh(x / (2 * width))


def _vary(outline: np.ndarray, spread: float, rng: np.random.Generator) -> np.ndarray:
    return outline + rng.normal(0, spread, outline.shape)


def _smooth(points: np.ndarray) -> np.ndarray:
    """Return a closed Catmull-Rom curve through points of shape (n, 2), eight points to a stretch."""
    u = np.linspace(0, 1, 8, endpoint=False)[:, None, None]
    before, after, beyond = (np.roll(points, shift, axis=0) for shift in (1, -1, -2))
    slope = (after - before) / 2
    curvature = before - 2.5 * points + 2 * after - beyond / 2
    change = 1.5 * (points - after) + (beyond - before) / 2
    curve = points + u * (slope + u * (curvature + u * change))
    return curve.transpose(1, 0, 2).reshape(-1, 2)


def _fill(*outlines: np.ndarray) -> np.ndarray:
    canvas = np.zeros((CANVAS_PX, CANVAS_PX), np.uint8)
    for outline in outlines:
        cv2.fillPoly(canvas, [_to_fixed_point(outline)], 255, cv2.LINE_AA, _SHIFT_BITS)
    return canvas.astype(np.float32) / 255


def _stroke(paths: Sequence[np.ndarray] | np.ndarray, width_px: float) -> np.ndarray:
    """Draw open paths, float array of shape (n_paths, n_points, 2), as white lines on black."""
    canvas = np.zeros((CANVAS_PX, CANVAS_PX), np.uint8)
    points = list(_to_fixed_point(np.asarray(paths)))
    cv2.polylines(canvas, points, False, 255, max(1, round(width_px)), cv2.LINE_AA, _SHIFT_BITS)
    return canvas.astype(np.float32) / 255


def _stroke_bones(paths: Sequence[np.ndarray], width_px: float) -> np.ndarray:
    """Draw paths with edges denser than their middle, as cortical bone is."""
    return _stroke(paths, width_px) - 0.35 * _stroke(paths, 0.5 * width_px)


def _to_fixed_point(points: np.ndarray) -> np.ndarray:
    return np.rint(points * 2**_SHIFT_BITS).astype(np.int32)


def _blur(image: np.ndarray, sigma_px: float) -> np.ndarray:
    if sigma_px < 4:
        return cv2.GaussianBlur(image, (0, 0), sigma_px)
    # A wide blur leaves no detail, so it can be computed on a smaller image, which is faster.
    small = cv2.resize(image, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    return cv2.resize(
        cv2.GaussianBlur(small, (0, 0), sigma_px / 4), image.shape[::-1], interpolation=cv2.INTER_CUBIC
    )


def _noise(scale_px: float, rng: np.random.Generator) -> np.ndarray:
    """Return smooth noise of mean 0 and variance 1, float32 of shape (CANVAS_PX, CANVAS_PX)."""
    n_cells = round(2 * CANVAS_PX / scale_px)
    cells = _blur(rng.standard_normal((n_cells, n_cells), dtype=np.float32), 1.0)
    noise = cv2.resize(cells, (CANVAS_PX, CANVAS_PX), interpolation=cv2.INTER_CUBIC)
    return (noise - noise.mean()) / noise.std()
