"""The embedded data set: 100 classes of drawn characters, hard enough to forget.

Ten families of ten characters, drawn from the DejaVu and STIX fonts that matplotlib ships: 100 training and 30 test
images a class, 32x32 in colour, the same bytes on every machine. Everything random comes from one seeded generator a
class; everything drawn is Pillow's integer code or float64 arithmetic rounded at the end, so that no processor's
vector unit changes a pixel. Called by `m2kd_lite.data.load("glyphs")`; needs no network.
"""
from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

# A horizontal flip is the paper's only augmentation (section 4.1) and must keep the label: no two classes here are
# mirror images of each other (no N with И, no ← with →), and none looks like a class of another family (no O/0/О).
FAMILIES = {
    "latin capital": "AFGHKNRVWX",
    "latin small": "aeghijmnrt",
    "digit": "0123456789",
    "greek": "ΔΞΣΦΨΩβλπξ",
    "cyrillic": "ЊДЖЦШЫЮЉѪѢ",
    "armenian": "ԲԴԷԺԽԾՄՊՖՔ",
    "mathematics": "∀∂∇√∞∫≠≤⊕%",
    "arrow": "←↑↓↔↯↖↙↩↻⇈",
    "chess, cards, dice": "♚♛♜♞♟♠♣♦⚂⚅",
    "pictogram": "☁☂☃☎★☠☢⚓✈✂",
}
FACES = tuple(
    [f"DejaVu{family}{style}" for family in ("Sans", "SansMono") for style in ("", "-Bold", "-Oblique", "-BoldOblique")]
    + [f"DejaVuSerif{style}" for style in ("", "-Bold", "-Italic", "-BoldItalic")]
    + [f"STIXGeneral{style}" for style in ("", "Bol", "Italic", "BolIta")]
)
TRAIN_PER_CLASS, TEST_PER_CLASS, SIZE = 100, 30, 32
SEED = 2020
# What the generator is expected to draw. Another version of Pillow's FreeType may draw other edges: `data check` says so.
EXPECTED_SHA256 = "6b24d607240e8f9ea930683966fe9b6454d812c3b7023a96e2b970346d472bc7"

# How hard it is. ResNet-8 trained on all classes at once for the ten epochs of profile "quick" should land between 75 and 92 %.
ROTATION_DEGREES = 15.0     # uniform in ±
SHEAR = 0.17                # uniform in ±, on top of the oblique faces
SCALE = (0.75, 1.08)        # of the glyph's box, each axis on its own
SHIFT = 2.8                 # pixels of 32, uniform in ±
CONTRAST = (58.0, 150.0)    # grey levels between ink and the ground's mean
TINT = 42.0                 # how far ink and ground stray from grey, per channel, uniform in ±
TEXTURE = 24.0              # amplitude of the ground's smooth texture
CLUTTER = 2                 # at most this many stray strokes
NOISE = 10.0                # amplitude of the pixel noise (sum of two uniforms)

_CANVAS = 64                # drawn twice as large, then averaged down
_BOX = 46                   # the longer side of a glyph's box on that canvas


def class_names() -> list[str]:
    """The 100 names in natural order, as "family: character"."""
    return [f"{family}: {char}" for family, chars in FAMILIES.items() for char in chars]


def characters() -> list[str]:
    """The 100 characters in natural order."""
    return [char for chars in FAMILIES.values() for char in chars]


def faces_of(char: str) -> list[ImageFont.FreeTypeFont]:
    """The faces that really hold `char` (a missing glyph draws the face's empty box, which is left out)."""
    return [font for font in _fonts() if _mask(char, font).tobytes() != _mask("\uffff", font).tobytes()]


def template(char: str, font: ImageFont.FreeTypeFont) -> Image.Image:
    """One glyph, centred and scaled so that its longer side is 46 of 64 pixels.

    Returns
    -------
    PIL image, mode "L", 64x64: 0 is ground, 255 is ink.
    """
    ink = _mask(char, font)
    factor = _BOX / max(ink.size)
    ink = ink.resize([max(1, round(side * factor)) for side in ink.size], Image.Resampling.BILINEAR)
    canvas = Image.new("L", (_CANVAS, _CANVAS))
    canvas.paste(ink, ((_CANVAS - ink.width) // 2, (_CANVAS - ink.height) // 2))
    return canvas


def draw(on_progress: Callable[[int, int], None] = lambda done, total: None) -> dict[str, np.ndarray]:
    """Draw the whole set.

    Parameters
    ----------
    on_progress : called as ``on_progress(classes_done, 100)``.

    Returns
    -------
    dict of ``train_images`` (10000, 3, 32, 32) uint8, ``train_labels`` (10000,) int64, and the same for ``test_``
    (3000). Ordered by class.
    """
    chars = characters()
    drawn = []
    for label, char in enumerate(chars):
        drawn.append(_draw_class(char, np.random.Generator(np.random.PCG64([SEED, label]))))
        on_progress(label + 1, len(chars))
    pixels = np.stack(drawn).transpose(0, 1, 4, 2, 3)               # (100, 130, 3, 32, 32)
    parts = {"train": pixels[:, :TRAIN_PER_CLASS], "test": pixels[:, TRAIN_PER_CLASS:]}
    out = {}
    for name, part in parts.items():
        out[f"{name}_images"] = np.ascontiguousarray(part.reshape(-1, 3, SIZE, SIZE))
        out[f"{name}_labels"] = np.repeat(np.arange(len(chars), dtype=np.int64), part.shape[1])
    return out


def _fonts() -> list[ImageFont.FreeTypeFont]:
    import matplotlib                                               # here, so that listing names stays quick
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return [ImageFont.truetype(str(folder / f"{face}.ttf"), 64, layout_engine=ImageFont.Layout.BASIC) for face in FACES]


def _mask(char: str, font: ImageFont.FreeTypeFont) -> Image.Image:
    left, top, right, bottom = font.getbbox(char)
    ink = Image.new("L", (max(1, int(right - left)), max(1, int(bottom - top))))
    ImageDraw.Draw(ink).text((-left, -top), char, fill=255, font=font)
    return ink


def _draw_class(char: str, rng: np.random.Generator) -> np.ndarray:
    """(130, 32, 32, 3) uint8 images of one character."""
    templates = [template(char, font) for font in faces_of(char)]
    count = TRAIN_PER_CLASS + TEST_PER_CLASS
    ink = np.empty((count, SIZE, SIZE, 1))
    ground = np.empty((count, SIZE, SIZE, 3))
    for i in range(count):
        warped = _warp(templates[rng.integers(len(templates))], rng)
        ink[i, :, :, 0] = np.asarray(warped.reduce(2), dtype=np.float64) / 255
        ground[i] = _texture(rng)
    # Ink is lighter or darker than its ground by a stated contrast; both are tinted.
    contrast = _uniform(rng, *CONTRAST, (count, 1, 1, 1)) * rng.choice([-1.0, 1.0], (count, 1, 1, 1))
    middle = _uniform(rng, 90.0, 165.0, (count, 1, 1, 1))
    ground += middle - contrast / 2 + _uniform(rng, -TINT, TINT, (count, 1, 1, 3))
    colour = middle + contrast / 2 + _uniform(rng, -TINT, TINT, (count, 1, 1, 3))
    noise = _uniform(rng, -NOISE, NOISE, ground.shape) + _uniform(rng, -NOISE, NOISE, ground.shape)
    return np.rint(np.clip(ground + ink * (colour - ground) + noise, 0, 255)).astype(np.uint8)


def _warp(glyph: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Rotate, shear, scale and shift about the centre; PIL asks for the inverse map."""
    angle = math.radians(_uniform(rng, -ROTATION_DEGREES, ROTATION_DEGREES))
    shear = _uniform(rng, -SHEAR, SHEAR)
    scale_x, scale_y = _uniform(rng, *SCALE), _uniform(rng, *SCALE)
    shift_x, shift_y = _uniform(rng, -SHIFT, SHIFT) * 2, _uniform(rng, -SHIFT, SHIFT) * 2
    cos, sin = math.cos(angle), math.sin(angle)
    a, b = cos / scale_x, (sin + shear) / scale_x
    d, e = -sin / scale_y, cos / scale_y
    centre = _CANVAS / 2
    c = centre - a * (centre + shift_x) - b * (centre + shift_y)
    f = centre - d * (centre + shift_x) - e * (centre + shift_y)
    return glyph.transform(glyph.size, Image.Transform.AFFINE, (a, b, c, d, e, f), Image.Resampling.BILINEAR)


def _texture(rng: np.random.Generator) -> np.ndarray:
    """(32, 32, 3) float64: a smooth random ground about 0, crossed by a few stray strokes."""
    cells = int(rng.integers(3, 9))
    coarse = rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
    ground = Image.fromarray(coarse).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(ground)
    for _ in range(int(rng.integers(CLUTTER + 1))):
        ends = [tuple(int(v) for v in rng.integers(-4, SIZE + 4, 2)) for _ in range(2)]
        pen.line(ends, fill=tuple(int(v) for v in rng.integers(0, 256, 3)), width=int(rng.integers(1, 3)))
    return (np.asarray(ground, dtype=np.float64) - 127.5) * (TEXTURE / 127.5)


def _uniform(rng: np.random.Generator, low: float, high: float, shape=None):
    return low + (high - low) * rng.random(shape)
