"""Image messages to RGB arrays; for messages from a bag and from a live topic alike.

The pixels are converted by rosbags-image. What it leaves to its caller is done here first: rows
padded by `step` are cut (it would shear the picture silently), sizes that do not fit the data
are refused, and a compressed image is refused by the size in its header before it is unpacked.
"""

from dataclasses import dataclass
import struct

import cv2
import numpy as np
from owled_ros.errors import UserError
from rosbags.image import compressed_image_to_cvimage, image_to_cvimage, ImageError

# An 8K frame. More than that is no driving camera, but a mistake or a decompression bomb.
MAX_PIXELS = 7680 * 4320

# Bytes per pixel of the encodings that say what their channels are. Others (8UC3, 16UC1, ...)
# do not, and guessing between RGB and BGR would show the model a red light as a blue one.
BYTES_PER_PIXEL = {
    'mono8': 1, 'mono16': 2,
    'rgb8': 3, 'bgr8': 3, 'rgba8': 4, 'bgra8': 4,
    'rgb16': 6, 'bgr16': 6, 'rgba16': 8, 'bgra16': 8,
    'bayer_rggb8': 1, 'bayer_bggr8': 1, 'bayer_gbrg8': 1, 'bayer_grbg8': 1,
    'bayer_rggb16': 2, 'bayer_bggr16': 2, 'bayer_gbrg16': 2, 'bayer_grbg16': 2,
    'uyvy': 2, 'yuv422': 2, 'yuyv': 2, 'yuv422_yuy2': 2,
}
PACKED_PAIRS = ('uyvy', 'yuv422', 'yuyv', 'yuv422_yuy2')

PNG_START = b'\x89PNG\r\n\x1a\n'
PNG_END = b'IEND\xaeB`\x82'
JPEG_START = b'\xff\xd8\xff'
JPEG_END = b'\xff\xd9'


class UnreadableImage(UserError):
    """The message is no picture that can be driven by; the text says why."""


class UnsupportedEncoding(UnreadableImage):
    """No message of this kind can be read, so the next one is no better."""


@dataclass(frozen=True)
class RawImage:
    """The part of sensor_msgs/Image that matters here, rows without padding."""

    height: int
    width: int
    encoding: str
    is_bigendian: bool
    step: int
    data: np.ndarray  # (height * step,) uint8


@dataclass(frozen=True)
class CompressedImage:
    """The part of sensor_msgs/CompressedImage that matters here, and the size in its header."""

    height: int
    width: int
    format: str
    data: bytes


def decode(image):
    """Convert a RawImage or CompressedImage to (H, W, 3) uint8 RGB with rosbags-image."""
    try:
        if isinstance(image, RawImage):
            pixels = image_to_cvimage(image, 'rgb8')
        else:
            pixels = compressed_image_to_cvimage(image)
            # The size was checked in the header that was found; a picture of another size came
            # from another header, and nobody has asked how large it may be. (OpenCV turns a JPEG
            # that says that its camera was held upright.)
            if sorted(pixels.shape[:2]) != sorted((image.height, image.width)):
                raise UnreadableImage(
                    f'the {image.format} image has {pixels.shape[1]}x{pixels.shape[0]} pixels, '
                    f'and {image.width}x{image.height} in its header')
            grey = pixels.ndim == 2
            pixels = cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB if grey else cv2.COLOR_BGR2RGB)
    except (ImageError, AssertionError, cv2.error) as error:
        name = image.encoding if isinstance(image, RawImage) else image.format
        raise UnreadableImage(f'the {name} image cannot be decoded ({error})') from None
    return np.ascontiguousarray(pixels)


def to_rgb(message, decode=decode, max_pixels=MAX_PIXELS):
    """Return the picture in an image message as an (H, W, 3) uint8 RGB array of its own.

    `message` is anything with the fields of sensor_msgs/Image or sensor_msgs/CompressedImage
    (JPEG or PNG), from rosbags or rclpy. `decode` turns a checked RawImage (rows without
    padding) or CompressedImage into RGB. Raises UnreadableImage with one sentence.
    """
    if hasattr(message, 'format'):
        checked = _checked_compressed(message, max_pixels)
    else:
        checked = _checked_raw(message, max_pixels)
    pixels = decode(checked)
    # A frame of rgb8 would otherwise stay a view into the message's own memory.
    return pixels.copy() if pixels.base is not None else pixels


def _checked_raw(message, max_pixels):
    height, width, step = int(message.height), int(message.width), int(message.step)
    encoding = message.encoding.lower()
    if encoding not in BYTES_PER_PIXEL:
        raise UnsupportedEncoding(
            f'the image encoding {message.encoding!r} cannot be read; publish one of '
            f'{", ".join(sorted(BYTES_PER_PIXEL))}, or JPEG or PNG')
    _check_size(height, width, max_pixels)
    if encoding in PACKED_PAIRS and width % 2:
        raise UnreadableImage(f'a {encoding} image cannot be {width} pixels wide: '
                              'its pixels come in pairs')
    row = width * BYTES_PER_PIXEL[encoding]
    data = np.frombuffer(message.data, np.uint8)
    if step < row or data.size != step * height:
        raise UnreadableImage(
            f'a {width}x{height} {encoding} image with a step of {step} bytes cannot hold '
            f'{data.size} bytes of data')
    if step > row:
        data = data.reshape(height, step)[:, :row].ravel()
    return RawImage(height, width, encoding, bool(message.is_bigendian), row, data)


def _checked_compressed(message, max_pixels):
    data = bytes(message.data)
    if not data:
        raise UnreadableImage('a compressed image has no data')
    if data.startswith(PNG_START):
        width, height = _png_size(data)
        whole = PNG_END in data[-64:]
    elif data.startswith(JPEG_START):
        width, height = _jpeg_size(data)
        # OpenCV fills what is missing of a cut JPEG with grey and only warns.
        whole = data.rstrip(b'\0').endswith(JPEG_END)
    else:
        raise UnsupportedEncoding(
            f'a compressed image of format {message.format!r} is neither JPEG nor PNG')
    _check_size(height, width, max_pixels)
    if not whole:
        raise UnreadableImage(f'a compressed image of {len(data)} bytes is cut short')
    return CompressedImage(height, width, message.format, data)


def _check_size(height, width, max_pixels):
    if height < 1 or width < 1:
        raise UnreadableImage(f'an image of {width}x{height} pixels is empty')
    if height * width > max_pixels:
        raise UnreadableImage(
            f'an image of {width}x{height} pixels is larger than the {max_pixels} allowed')


def _png_size(data):
    if len(data) < 24:
        raise UnreadableImage(f'a compressed image of {len(data)} bytes is cut short')
    if data[12:16] != b'IHDR':
        raise UnreadableImage('a PNG image does not begin with its header')
    return struct.unpack('>II', data[16:24])


def _jpeg_size(data):
    """Width and height from the start-of-frame segment (ITU-T T.81, B.2)."""
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack('>HH', data[at + 5:at + 9])
            return width, height
        if marker == 0x01 or 0xD0 <= marker <= 0xD7:  # TEM and RST stand alone, without a length
            at += 2
            continue
        at += 2 + struct.unpack('>H', data[at + 2:at + 4])[0]
    raise UnreadableImage('a JPEG image has no header that gives its size')
