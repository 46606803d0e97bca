"""Image messages to RGB on a live graph: with the ROS cv_bridge where it can be trusted.

Both ways go through the same checks (owled_ros/bags/images.py) and give the same pixels.
"""

from dataclasses import replace

import numpy as np
from owled_ros.bags.images import decode, RawImage, to_rgb, UnreadableImage

__all__ = ['UnreadableImage', 'choose_decoder', 'to_rgb']


def choose_decoder():
    """Return (decode, name): cv_bridge if it is there and right, else rosbags-image."""
    try:
        from cv_bridge import CvBridge
        with_cv_bridge = CvBridgeDecoder(CvBridge())
        if _agrees(with_cv_bridge):
            return with_cv_bridge, 'cv_bridge'
        return decode, 'rosbags-image (the cv_bridge found here converts wrongly)'
    except ImportError:
        return decode, 'rosbags-image'
    # A cv_bridge built for another NumPy or OpenCV fails in ways of its own.
    except Exception as error:
        return decode, f'rosbags-image (the cv_bridge found here fails: {type(error).__name__})'


class CvBridgeDecoder:
    """Converts checked raw images with cv_bridge; compressed ones go through OpenCV anyway."""

    def __init__(self, bridge):
        self._bridge = bridge

    def __call__(self, image):
        """Return (H, W, 3) uint8 RGB of a RawImage or CompressedImage."""
        if not isinstance(image, RawImage):
            return decode(image)
        try:
            return np.ascontiguousarray(self._bridge.imgmsg_to_cv2(image, 'rgb8'))
        except Exception as error:  # cv_bridge has an exception type per way to fail
            raise UnreadableImage(
                f'the {image.encoding} image cannot be decoded ({error})') from None


def _agrees(decoder):
    """Return whether `decoder` gives the pixels of rosbags-image; a wrong one is wrong silently."""
    pixels = np.arange(48, dtype=np.uint8)
    image = RawImage(height=4, width=4, encoding='bgr8', is_bigendian=False, step=12, data=pixels)
    grey = replace(image, encoding='mono8', width=12)
    return all(np.array_equal(decoder(picture), decode(picture)) for picture in (image, grey))
