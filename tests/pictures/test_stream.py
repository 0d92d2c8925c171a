"""The picture of the class stream: which images are drawn where, and that the words beside it say the same."""
import pytest
import torch

from m2kd_lite import pictures
from m2kd_lite.data.stream import ClassStream
from m2kd_lite.pictures import plots


def small_stream(channels=3, classes=7):
    """Three steps of 3, 3 and 1 classes; every pixel of an image is 10 x its class + how many of the class came before."""
    labels = torch.arange(classes).flip(0).repeat(2)            # the classes do not lie in order of arrival
    values = 10 * labels + torch.arange(2).repeat_interleave(classes)
    images = values.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, channels, 4, 4).contiguous()
    return ClassStream(tuple(f"name {c}" for c in range(classes)), (range(0, 3), range(3, 6), range(6, 7)),
                       images, labels, images, labels)


def drawn(figure):
    """(row, place, grey level) of each image."""
    (axis,) = figure.axes
    return [(round(picture.get_extent()[3] / pictures.stream.ROW), round(picture.get_extent()[0]), int(picture.get_array().max()))
            for picture in axis.images]


def test_each_step_is_a_row_with_the_first_image_of_its_classes():
    figure = pictures.stream.class_stream(small_stream(), "stream")
    assert drawn(figure) == [(0, 0, 0), (0, 1, 10), (0, 2, 20), (1, 0, 30), (1, 1, 40), (1, 2, 50), (2, 0, 60)]
    words = [text.get_text() for text in figure.axes[0].texts]
    assert [word for word in words if word.isdecimal()] == ["0", "1", "2", "3", "4", "5", "6"]
    assert [word for word in words if "step" in word] == ["step 1\nclasses 0 to 2", "step 2\nclasses 3 to 5", "step 3\nclass 6"]


def test_fewer_are_spread_over_the_step_and_the_words_name_what_is_shown():
    figure = pictures.stream.class_stream(small_stream(), "stream", per_step=2)
    assert drawn(figure) == [(0, 0, 0), (0, 1, 20), (1, 0, 30), (1, 1, 50), (2, 0, 60)]
    assert "step 1 brings classes 0 to 2, among them name 0, name 2; step 2" in figure.alt_text
    assert "step 3 brings class 6, among them name 6." in figure.alt_text


@pytest.mark.parametrize("channels, shape", [(1, (4, 4)), (3, (4, 4, 3))])
def test_grey_and_colour_images_can_be_drawn(channels, shape):
    figure = pictures.stream.class_stream(small_stream(channels), "stream", per_step=1)
    assert figure.axes[0].images[0].get_array().shape == shape
    assert figure.axes[0].images[0].get_clim() == (0, 255)      # dark images stay dark
    assert plots.png(figure).startswith(b"\x89PNG")


def test_nothing_to_show_is_refused():
    with pytest.raises(ValueError, match="per_step 0"):
        pictures.stream.class_stream(small_stream(), "stream", per_step=0)
