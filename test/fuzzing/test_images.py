"""Image messages: a picture or an UnreadableImage, whatever the message says."""

from pathlib import Path
import sys
from types import SimpleNamespace

import cv2
from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from mutations import mutated  # noqa: E402, I100
from owled_ros.bags.images import BYTES_PER_PIXEL, to_rgb, UnreadableImage  # noqa: E402

PIXELS = 1 << 16   # allowed in these tests
PICTURE = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
JPEG = cv2.imencode('.jpg', PICTURE)[1].tobytes()
GREY = cv2.imencode('.jpg', PICTURE[:, :, 0])[1].tobytes()
PROGRESSIVE = cv2.imencode('.jpg', PICTURE, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
PNG = cv2.imencode('.png', PICTURE)[1].tobytes()


def read_or_refuse(message):
    """Convert; check that what comes out is a picture of a size that was allowed."""
    try:
        picture = to_rgb(message, max_pixels=PIXELS)
    except UnreadableImage as refusal:
        assert len(str(refusal).splitlines()) == 1
        return None
    height, width, channels = picture.shape
    assert picture.dtype == np.uint8 and channels == 3 and 0 < height * width <= PIXELS
    return picture


@given(encoding=st.sampled_from(sorted(BYTES_PER_PIXEL)) | st.text(max_size=12),
       height=st.integers(0, 40) | st.integers(0, 2**32 - 1),
       width=st.integers(0, 40) | st.integers(0, 2**32 - 1),
       padding=st.integers(-9, 40) | st.integers(-2**31, 2**32),
       missing=st.integers(-9, 9), big=st.integers(0, 255), seed=st.integers(0, 99))
def test_raw_images(bounded, encoding, height, width, padding, missing, big, seed):
    """Every encoding, any size and step, with data that fit or do not."""
    row = width * BYTES_PER_PIXEL.get(encoding.lower(), 3)
    step = min(max(row + padding, 0), 2**32 - 1)
    size = min(max(step * height - missing, 0), 1 << 18)
    data = np.random.default_rng(seed).integers(0, 256, size, np.uint8).tobytes()
    message = SimpleNamespace(height=height, width=width, encoding=encoding, step=step,
                              is_bigendian=big, data=data)
    with bounded():
        picture = read_or_refuse(message)
    if picture is not None:
        assert picture.shape[:2] == (height, width) and size == step * height and step >= row


@pytest.mark.parametrize('encoding', sorted(BYTES_PER_PIXEL))
def test_every_encoding_can_be_read(encoding):
    """The other side: what is right is not refused, whatever pads its rows."""
    for padding in (0, 1, 7):
        step = 8 * BYTES_PER_PIXEL[encoding] + padding
        message = SimpleNamespace(height=6, width=8, encoding=encoding, step=step,
                                  is_bigendian=0, data=bytes(6 * step))
        assert read_or_refuse(message).shape == (6, 8, 3)


@given(data=st.sampled_from((JPEG, GREY, PROGRESSIVE, PNG)).flatmap(mutated)
       | st.binary(max_size=200), form=st.text(max_size=12))
def test_compressed_images(bounded, data, form):
    with bounded():
        read_or_refuse(SimpleNamespace(format=form, data=data))


@given(width=st.integers(0, 2**16 - 1), height=st.integers(0, 2**16 - 1), png=st.booleans())
def test_sizes_in_headers(bounded, width, height, png):
    """A header that promises more than is allowed is refused before anything is unpacked."""
    if png:
        data = PNG[:16] + width.to_bytes(4, 'big') + height.to_bytes(4, 'big') + PNG[24:]
    else:
        at = JPEG.index(b'\xff\xc0') + 5
        data = JPEG[:at] + height.to_bytes(2, 'big') + width.to_bytes(2, 'big') + JPEG[at + 4:]
    with bounded():
        read_or_refuse(SimpleNamespace(format='', data=data))
