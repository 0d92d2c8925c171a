"""Figures of the lesson on a memory that draws: what is drawn is what was counted, and the words say it."""
import torch
from matplotlib.colors import to_hex

from m2kd_lite import pictures
from m2kd_lite.method.painter import Painter
from m2kd_lite.pictures.plots import COLOURS


def painter_of(steps):
    """Masks by chance, a quarter of the weights a step."""
    painter, draws = Painter(4, 1, 2, seed=0), torch.Generator().manual_seed(0)
    for _ in range(steps):
        painter.begin_step()
        for embedding in painter.embeddings:
            embedding.data = 0.25 - torch.rand(embedding.shape, generator=draws)
        painter.reserve()
    return painter


def images(count):
    return torch.randint(0, 256, (count, 1, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(count))


def test_a_row_has_its_images_and_its_name():
    figure = pictures.painting.drawings({"seven, real": images(3), "seven\ndrawn": images(2)}, "Sevens")
    shown = [axis for axis in figure.axes if axis.images]
    assert len(shown) == 5 and torch.as_tensor(shown[0].images[0].get_array()).equal(images(3)[0, 0])
    assert [axis.get_ylabel() for axis in figure.axes if axis.get_ylabel()] == ["seven, real", "seven\ndrawn"]
    assert "2 rows of up to 3: seven, real; seven drawn" in figure.alt_text


def test_the_steepness_is_drawn_batch_by_batch_on_a_scale_of_powers():
    figure = pictures.painting.steepness({"one": [0.01, 1.0, 100.0]}, "Steep")
    (axis,) = figure.axes
    assert axis.get_yscale() == "log" and axis.lines[0].get_ydata().tolist() == [0.01, 1.0, 100.0]
    assert "one goes from 0.01 to 1e+02" in figure.alt_text


def test_bars_are_the_shares_of_those_who_took_a_weight_first_and_fill_the_layer():
    painter = painter_of(3)
    axis = pictures.painting.reserved_shares(painter, "Who took what").axes[0]
    owners = painter.owners()
    for bars, owner in zip(axis.containers, (1, 2, 3, 0), strict=True):
        assert [bar.get_width() for bar in bars] == [100 * float((layer == owner).float().mean()) for layer in owners]
        assert to_hex(bars[0].get_facecolor()).upper() == (COLOURS[owner - 1] if owner else "#FFFFFF")
    assert all(abs(sum(bars[layer].get_width() for bars in axis.containers) - 100) < 1e-4 for layer in range(3))


def test_the_map_has_a_weight_in_full_where_the_last_step_uses_it_and_faded_where_not():
    painter = painter_of(2)
    figure = pictures.painting.painter_after(painter, 2, {"class a": images(2)}, "After step 2")
    grid = next(axis for axis in figure.axes if axis.get_ylabel() == "input channels")
    picture, owners, used = torch.as_tensor(grid.images[0].get_array()), painter.owners()[2], painter.steps[1].masks[2]
    into, out = owners.shape[:2]
    assert picture.shape == (4 * into, 4 * out, 3)
    for i, j, y, x in torch.cartesian_prod(*map(torch.arange, owners.shape))[::7].tolist():
        owner, pixel = int(owners[i, j, y, x]), picture[4 * i + y, 4 * j + x]
        if not owner:
            assert (pixel == 1).all()
        else:
            assert (to_hex(pixel.numpy()).upper() == COLOURS[owner - 1]) == bool(used[i, j, y, x])
    assert "drawn from the same chance: class a" in figure.alt_text and "layer 3" in figure.alt_text
