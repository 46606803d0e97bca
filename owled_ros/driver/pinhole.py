"""Pictures as an ideal pinhole camera would take them.

They are without distortion, and of the field of view that a model was trained with.

Pixels are counted as in OpenCV and ROS: whole numbers are the centres of pixels, so that a picture
reaches from -0.5 to width - 0.5. An ideal camera has square pixels, looks through the middle of
its picture, and has a field of view of 2 atan(width / (2 focal length)) across.
"""

from dataclasses import dataclass, replace
from functools import lru_cache
import math

import cv2
import numpy as np
from owled_ros.errors import UserError

# How many numbers describe the distortion, by the model's name in sensor_msgs/CameraInfo.
DISTORTION_MODELS = {'plumb_bob': (4, 5), 'rational_polynomial': (8,), 'equidistant': (4,)}
LARGEST_FIELD = 2.6   # rad; beyond it the middle of a flat picture has hardly any pixels
LARGEST_SIDE = 32766  # pixels that OpenCV's remap can address
# Pixels beyond the edge that are filled with those at it: calibrations are no better than that.
SLACK = 1.0
GRID = 33             # points along each side of a picture at which a lens is looked at
STEP = 1e-5           # between two rays (tangent of the angle) to tell what lies between them


@dataclass(frozen=True)
class Lens:
    """Focal lengths and principal point [pixels]; distortion: the numbers of its `model`."""

    fx: float
    fy: float
    cx: float
    cy: float
    model: str = 'plumb_bob'
    distortion: tuple = (0.0,) * 5

    @property
    def matrix(self):
        return np.array([[self.fx, 0, self.cx], [0, self.fy, self.cy], [0, 0, 1.0]])


@dataclass(frozen=True)
class Camera:
    """How a camera sees: size of its pictures, its lens, and that of rectified pictures of it.

    A lens is None where the camera does not tell it in a way that makes sense; `fault` says why.
    """

    width: int
    height: int
    raw: Lens | None
    rectified: Lens | None
    fault: str = ''


def camera_of(message):
    """Return the Camera that a sensor_msgs/CameraInfo tells, from rosbags or rclpy.

    A region of interest and binning are honoured as REP 104 has them.
    """
    try:
        return _camera_of(message)
    except UserError as error:
        return Camera(int(message.width), int(message.height), None, None, str(error))


def _camera_of(message):
    matrix = _numbers(message.k, 9, 'K')
    _check_matrix(matrix.reshape(3, 3), 'K')
    raw, fault = None, ''
    try:
        raw = Lens(matrix[0], matrix[4], matrix[2], matrix[5], message.distortion_model,
                   _distortion(message))
    except UserError as error:
        fault = str(error)
    projection = _numbers(message.p, 12, 'P')
    rectified = Lens(matrix[0], matrix[4], matrix[2], matrix[5])
    if projection.any():  # it is left zero by cameras that nobody rectifies
        _check_matrix(projection.reshape(3, 4)[:, :3], 'P')
        rectified = Lens(projection[0], projection[5], projection[2], projection[6])
    return _part_that_is_sent(Camera(int(message.width), int(message.height), raw, rectified,
                                     fault), message)


def _numbers(values, count, name):
    numbers = np.asarray(values, float)
    if numbers.shape != (count,) or not np.isfinite(numbers).all():
        raise UserError(f'the camera info is unusable: {name} is not {count} finite numbers')
    return numbers


def _check_matrix(matrix, name):
    (fx, skew, _), (shear, fy, _), last = matrix
    if not (fx > 0 and fy > 0) or skew or shear or last.tolist() != [0, 0, 1]:
        raise UserError(f'the camera info is unusable: {name} has the focal lengths {fx:g} and '
                        f'{fy:g}, or is of another form than fx 0 cx, 0 fy cy, 0 0 1; calibrate '
                        'the camera')


def _distortion(message):
    model = message.distortion_model
    if model not in DISTORTION_MODELS:
        raise UserError(f'the camera info has the distortion model {model!r}; it must be one of '
                        f'{", ".join(DISTORTION_MODELS)}')
    numbers = np.asarray(message.d, float)
    counts = DISTORTION_MODELS[model]
    if numbers.size not in counts or not np.isfinite(numbers).all():
        raise UserError(f'the camera info is unusable: D must be '
                        f'{" or ".join(map(str, counts))} finite numbers for {model}')
    return tuple(numbers.tolist())


def _part_that_is_sent(camera, message):
    """Return the Camera of the pictures: of the region of interest, binned."""
    roi = message.roi
    across, down = max(1, int(message.binning_x)), max(1, int(message.binning_y))
    left, top = int(roi.x_offset), int(roi.y_offset)
    width, height = int(roi.width), int(roi.height)
    if not (width or height or left or top):  # all zero: the whole
        width, height = camera.width, camera.height
    if not (0 < width <= camera.width - left and 0 < height <= camera.height - top):
        raise UserError(f'the camera info is unusable: a region of {width}x{height} pixels at '
                        f'{left}, {top} of {camera.width}x{camera.height}')

    def of_part(lens):
        return lens and replace(
            lens, fx=lens.fx / across, fy=lens.fy / down,
            cx=(lens.cx - left + 0.5) / across - 0.5, cy=(lens.cy - top + 0.5) / down - 0.5)

    width, height = width // across, height // down
    if not (0 < width <= LARGEST_SIDE and 0 < height <= LARGEST_SIDE):
        raise UserError(f'the camera info is unusable: pictures of {width}x{height} pixels')
    return replace(camera, width=width, height=height, raw=of_part(camera.raw),
                   rectified=of_part(camera.rectified))


def is_asked(undistort, field_of_view):
    """Return whether pictures are to be changed at all."""
    return undistort or field_of_view > 0


def check_field(field_of_view):
    """Raise UserError unless it is a field of view [rad] that may be asked for; 0 is none."""
    if not 0 <= field_of_view <= LARGEST_FIELD:
        raise UserError(f'field_of_view is {field_of_view} rad; it must be from 0 (as wide as the '
                        f'camera) to {LARGEST_FIELD}')


def camera_info_beside(image_topic):
    """Return where, by the custom of ROS, the camera info of the images on a topic is."""
    before, slash, _ = image_topic.removesuffix('/compressed').rpartition('/')
    return f'{before}{slash}camera_info'


def as_pinhole(picture, camera, undistort, field_of_view):
    """Return a picture (H, W, 3) of a Camera as an ideal one would have taken it, as large.

    undistort: the picture is as the lens made it; else it is taken for rectified already.
    field_of_view [rad], across; 0: the widest that leaves no border empty. Raises UserError where
    the camera does not see that.
    """
    if fault := fault_of(camera, undistort, field_of_view):
        raise UserError(fault)
    height, width = picture.shape[:2]
    if (width, height) != (camera.width, camera.height):
        raise UserError(f'the frame has {width}x{height} pixels, and {camera.width}x'
                        f'{camera.height} by its camera info')
    # Only now: of a picture as large as camera info may claim, the maps fill the memory.
    maps = _maps(camera, undistort, field_of_view)
    return cv2.remap(picture, *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


@lru_cache(maxsize=1)  # a camera stays what it is
def fault_of(camera, undistort, field_of_view):
    """Return why no frame of a Camera can be seen so, '' where it can."""
    try:
        _view(camera, undistort, field_of_view)
    except UserError as error:
        return str(error)
    return ''


@lru_cache(maxsize=1)  # they are as large as two pictures
def _maps(camera, undistort, field_of_view):
    """Return where each pixel of the ideal camera is in the picture, as cv2.remap wants it."""
    lens, ideal = _view(camera, undistort, field_of_view)
    arguments = (lens.matrix, np.array(lens.distortion), None, ideal.matrix,
                 (camera.width, camera.height), cv2.CV_16SC2)
    if lens.model == 'equidistant':
        return cv2.fisheye.initUndistortRectifyMap(*arguments)
    return cv2.initUndistortRectifyMap(*arguments)


def _view(camera, undistort, field_of_view):
    """Return the Lens that took a picture and the ideal one; raise UserError for what cannot be."""
    lens, size = camera.raw if undistort else camera.rectified, (camera.width, camera.height)
    if lens is None:
        raise UserError(camera.fault)
    ideal = ideal_lens(size, field_of_view or widest_field(lens, size))
    if not sees(lens, size, ideal, SLACK):
        raise UserError(f'field_of_view is {field_of_view:g} rad, and the camera sees only '
                        f'{widest_field(lens, size):.3f} rad without empty borders; set it to '
                        'no more')
    return lens, ideal


def ideal_lens(size, field_of_view):
    """Return the Lens without distortion of a picture of `size` (width, height)."""
    width, height = size
    focal = width / 2 / math.tan(field_of_view / 2)
    return Lens(focal, focal, (width - 1) / 2, (height - 1) / 2)


def widest_field(lens, size):
    """Return the widest field of view [rad] that an ideal camera can have behind this lens."""
    if sees(lens, size, ideal_lens(size, LARGEST_FIELD), 0):
        raise UserError(f'the camera sees more than {LARGEST_FIELD} rad, which no flat picture '
                        'can hold; set field_of_view')
    low, high = 0.0, LARGEST_FIELD
    while high - low > 1e-6:
        middle = (low + high) / 2
        seen = sees(lens, size, ideal_lens(size, middle), 0)
        low, high = (middle, high) if seen else (low, middle)
    if low < 0.01:
        raise UserError('the camera info is unusable: behind its distortion nothing is seen')
    return low


def sees(lens, size, ideal, slack):
    """Return whether all that an ideal camera looks at is in the picture of a lens, once.

    What lies up to `slack` pixels beyond the picture's edges counts as in it. A distortion is a
    polynomial, which beyond the angles that it was fitted to may turn back.
    """
    width, height = size
    u, v = np.meshgrid(np.linspace(-0.5, width - 0.5, GRID), np.linspace(-0.5, height - 0.5, GRID))
    rays = np.stack([(u.ravel() - ideal.cx) / ideal.fx, (v.ravel() - ideal.cy) / ideal.fy], 1)
    points = seen_at(lens, rays)
    inside = np.isfinite(points) & (points >= -0.5 - slack) & \
        (points <= np.array(size) - 0.5 + slack)
    if not inside.all():
        return False
    right, down = (seen_at(lens, rays + step) - points for step in ((STEP, 0), (0, STEP)))
    return bool((right[:, 0] * down[:, 1] > right[:, 1] * down[:, 0]).all())


def seen_at(lens, rays):
    """Return the pixels (N, 2) at which a lens shows rays (N, 2): x / z right, y / z down."""
    points = np.concatenate([rays, np.ones((len(rays), 1))], 1)[None]
    project = cv2.fisheye.projectPoints if lens.model == 'equidistant' else cv2.projectPoints
    nothing = np.zeros(3)
    return project(points, nothing, nothing, lens.matrix, np.array(lens.distortion))[0].reshape(
        -1, 2)
