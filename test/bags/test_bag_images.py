"""Image messages of every supported kind become the RGB picture that was put in."""

import array
from types import SimpleNamespace

import cv2
import numpy as np
from owled_ros.bags.images import (
    BYTES_PER_PIXEL,
    CompressedImage,
    decode,
    MAX_PIXELS,
    to_rgb,
    UnreadableImage,
)
import pytest

PICTURE = np.zeros((6, 8, 3), np.uint8)
PICTURE[:3, :4] = (200, 30, 40)
PICTURE[3:, :4] = (20, 180, 60)
PICTURE[:3, 4:] = (10, 50, 220)
PICTURE[3:, 4:] = (90, 90, 90)


def raw(pixels, encoding, pad=0, is_bigendian=0):
    """Make an Image message of (H, W) or (H, W, C) pixels, with `pad` bytes after each row."""
    rows = np.ascontiguousarray(pixels).view(np.uint8).reshape(len(pixels), -1)
    rows = np.pad(rows, ((0, 0), (0, pad)), constant_values=77)
    return SimpleNamespace(
        height=pixels.shape[0], width=pixels.shape[1], encoding=encoding,
        is_bigendian=is_bigendian, step=rows.shape[1], data=rows.ravel())


def compressed(pixels, kind):
    done, data = cv2.imencode(kind, pixels)
    assert done
    return SimpleNamespace(format=kind[1:], data=data.ravel())


@pytest.mark.parametrize('pad', [0, 1, 5, 64])
@pytest.mark.parametrize('encoding, order', [
    ('rgb8', [0, 1, 2]), ('bgr8', [2, 1, 0]), ('rgba8', [0, 1, 2, 0]), ('bgra8', [2, 1, 0, 0])])
def test_colour_encodings_with_padded_rows(encoding, order, pad):
    frame = to_rgb(raw(PICTURE[:, :, order], encoding, pad))
    assert frame.dtype == np.uint8 and frame.flags['C_CONTIGUOUS']
    np.testing.assert_array_equal(frame, PICTURE)


@pytest.mark.parametrize('pad', [0, 3])
def test_mono8(pad):
    grey = PICTURE[:, :, 0]
    np.testing.assert_array_equal(to_rgb(raw(grey, 'mono8', pad)), np.dstack([grey] * 3))


@pytest.mark.parametrize('is_bigendian', [0, 1])
def test_sixteen_bits_in_both_byte_orders(is_bigendian):
    wide = (PICTURE.astype(np.uint16) * 257).astype('>u2' if is_bigendian else '<u2')
    frame = to_rgb(raw(wide, 'rgb16', 4, is_bigendian))
    assert np.abs(frame.astype(int) - PICTURE).max() <= 1
    grey = to_rgb(raw(np.ascontiguousarray(wide[:, :, 1]), 'mono16', 2, is_bigendian))
    assert np.abs(grey[:, :, 0].astype(int) - PICTURE[:, :, 1]).max() <= 1


@pytest.mark.parametrize('encoding, cells', [
    ('bayer_rggb8', [[0, 1], [1, 2]]), ('bayer_bggr8', [[2, 1], [1, 0]]),
    ('bayer_gbrg8', [[1, 2], [0, 1]]), ('bayer_grbg8', [[1, 0], [2, 1]])])
def test_bayer_patterns(encoding, cells):
    pattern = np.tile(np.array(cells), (8, 8))
    colour = np.array([200, 100, 30], np.uint8)
    frame = to_rgb(raw(colour[pattern], encoding, 3))
    np.testing.assert_array_equal(frame[2:-2, 2:-2], np.broadcast_to(colour, (12, 12, 3)))


@pytest.mark.parametrize('encoding, layout', [
    ('uyvy', 'u0v1'), ('yuv422', 'u0v1'), ('yuyv', '0u1v'), ('yuv422_yuy2', '0u1v')])
def test_packed_yuv(encoding, layout):
    # Red in BT.601 studio range.
    values = {'0': 82, '1': 82, 'u': 90, 'v': 240}
    pair = np.array([values[name] for name in layout], np.uint8).reshape(1, 2, 2)
    frame = to_rgb(raw(np.tile(pair, (4, 3, 1)), encoding, 2))
    assert frame.shape == (4, 6, 3)
    assert np.abs(frame.astype(int) - (255, 0, 0)).max() <= 3


def test_jpeg_and_png():
    bgr = np.ascontiguousarray(PICTURE[:, :, ::-1])
    np.testing.assert_array_equal(to_rgb(compressed(bgr, '.png')), PICTURE)
    flat = np.full((16, 16, 3), (30, 60, 200), np.uint8)
    jpeg = to_rgb(compressed(flat, '.jpg'))
    assert np.abs(jpeg.astype(int) - (200, 60, 30)).max() <= 4


def test_grey_jpeg_becomes_three_channels():
    frame = to_rgb(compressed(np.full((16, 16), 90, np.uint8), '.jpg'))
    assert frame.shape == (16, 16, 3) and np.abs(frame.astype(int) - 90).max() <= 2


def test_the_array_outlives_the_message_and_takes_rclpy_data():
    message = raw(PICTURE, 'rgb8')
    message.data = array.array('B', message.data.tobytes())
    frame = to_rgb(message)
    message.data[0] = 1
    np.testing.assert_array_equal(frame, PICTURE)


@pytest.mark.parametrize('change, says', [
    ({'encoding': '8UC3'}, "'8UC3' cannot be read"),
    ({'encoding': 'nv12'}, "'nv12' cannot be read"),
    ({'step': 5}, 'step of 5 bytes'),
    ({'height': 7}, 'cannot hold 144 bytes'),
    ({'width': 0}, 'is empty'),
    ({'encoding': 'yuyv', 'width': 7}, 'come in pairs'),
    ({'height': 100000, 'width': 100000}, 'larger than'),
])
def test_raw_images_that_do_not_fit_are_refused(change, says):
    message = raw(PICTURE, 'rgb8')
    vars(message).update(change)
    with pytest.raises(UnreadableImage, match=says):
        to_rgb(message)


def test_every_encoding_named_is_decoded():
    for encoding, size in BYTES_PER_PIXEL.items():
        message = SimpleNamespace(height=4, width=4, encoding=encoding, is_bigendian=0,
                                  step=4 * size, data=np.zeros(16 * size, np.uint8))
        assert to_rgb(message).shape == (4, 4, 3), encoding


@pytest.mark.parametrize('kind', ['.jpg', '.png'])
def test_cut_or_foreign_data_is_refused(kind):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    message = compressed(noise, kind)
    whole = bytes(message.data)
    for data in (whole[:-20], whole[:len(whole) // 2], whole[:12], b'', b'GIF89a' + whole):
        message.data = data
        with pytest.raises(UnreadableImage):
            to_rgb(message)


@pytest.mark.parametrize('kind, header', [
    ('.png', lambda data: data[:16] + b'\x00\x01\x00\x00\x00\x01\x00\x00' + data[24:]),
    ('.jpg', lambda data: data.replace(b'\x00\x11\x08\x00\x40\x00\x40',
                                       b'\x00\x11\x08\xff\xff\xff\xff'))])
def test_a_decompression_bomb_is_refused_by_its_header(kind, header):
    message = compressed(np.zeros((64, 64, 3), np.uint8), kind)
    message.data = header(bytes(message.data))
    with pytest.raises(UnreadableImage, match=f'larger than the {MAX_PIXELS}'):
        to_rgb(message)


def test_the_header_that_counts_cannot_be_hidden():
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    message = compressed(noise, '.jpg')
    whole = bytes(message.data)
    # Markers that stand alone: whoever takes what follows for a length jumps over the header.
    message.data = whole[:2] + b'\xff\x01' + whole[2:]
    assert to_rgb(message).shape == (64, 64, 3)
    message.data = message.data.replace(b'\x00\x11\x08\x00\x40\x00\x40',
                                        b'\x00\x11\x08\xff\xff\xff\xff')
    with pytest.raises(UnreadableImage, match='larger than'):
        to_rgb(message)
    message = compressed(noise, '.png')
    message.data = bytes(message.data).replace(b'IHDR', b'tEXt')
    with pytest.raises(UnreadableImage, match='begin with its header'):
        to_rgb(message)


def test_a_picture_of_another_size_than_its_header_is_refused():
    noise = np.random.default_rng(0).integers(0, 255, (64, 48, 3), np.uint8)
    data = bytes(compressed(noise, '.jpg').data)
    assert decode(CompressedImage(48, 64, 'jpeg', data)).shape == (64, 48, 3)  # turned by EXIF
    with pytest.raises(UnreadableImage, match='48x64 pixels, and 8x8 in its header'):
        decode(CompressedImage(8, 8, 'jpeg', data))
