"""The choice between cv_bridge and rosbags-image, and that both give the same pixels."""

import sys
from types import ModuleType

import numpy as np
from owled_ros.bags.images import decode, RawImage, UnreadableImage
from owled_ros.ros.images import choose_decoder, CvBridgeDecoder
import pytest

ENCODINGS = {'rgb8': 3, 'bgr8': 3, 'rgba8': 4, 'bgra8': 4, 'mono8': 1, 'bayer_rggb8': 1,
             'bayer_bggr8': 1, 'bayer_gbrg8': 1, 'bayer_grbg8': 1}


def raw(encoding, channels, height=8, width=10):
    size = height * width * channels
    data = np.random.default_rng(5).integers(0, 256, size, np.uint8)
    return RawImage(height, width, encoding, False, width * channels, data)


def install(monkeypatch, convert):
    """Put a cv_bridge into the place of the real one."""
    class CvBridge:

        def imgmsg_to_cv2(self, message, encoding):
            return convert(message)

    module = ModuleType('cv_bridge')
    module.CvBridge = CvBridge
    monkeypatch.setitem(sys.modules, 'cv_bridge', module)


def test_cv_bridge_is_used_where_it_is_right(monkeypatch):
    install(monkeypatch, decode)
    decoder, name = choose_decoder()
    assert isinstance(decoder, CvBridgeDecoder) and name == 'cv_bridge'


def test_a_cv_bridge_that_is_wrong_is_left_alone(monkeypatch):
    install(monkeypatch, lambda message: decode(message)[:, :, ::-1])
    decoder, name = choose_decoder()
    assert decoder is decode and 'wrongly' in name


def test_a_cv_bridge_that_fails_is_left_alone(monkeypatch):
    def fail(message):
        raise TypeError('built for another NumPy')

    install(monkeypatch, fail)
    decoder, name = choose_decoder()
    assert decoder is decode and 'UnreadableImage' in name
    with pytest.raises(UnreadableImage, match='another NumPy'):
        CvBridgeDecoder(sys.modules['cv_bridge'].CvBridge())(raw('rgb8', 3))


def test_without_cv_bridge(monkeypatch):
    monkeypatch.setitem(sys.modules, 'cv_bridge', None)
    assert choose_decoder() == (decode, 'rosbags-image')


@pytest.mark.parametrize('encoding', ENCODINGS)
def test_both_give_the_same_pixels(encoding):
    cv_bridge = pytest.importorskip('cv_bridge')
    image = raw(encoding, ENCODINGS[encoding])
    np.testing.assert_array_equal(
        CvBridgeDecoder(cv_bridge.CvBridge())(image), decode(image))
