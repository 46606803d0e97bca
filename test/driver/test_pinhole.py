"""Pictures of known lenses come out as an ideal camera would have taken them."""

import math
from types import SimpleNamespace

import cv2
import numpy as np
from owled_ros.driver.pinhole import (
    as_pinhole,
    Camera,
    camera_info_beside,
    camera_of,
    check_field,
    ideal_lens,
    Lens,
    widest_field,
)
from owled_ros.errors import UserError
import pytest

WIDTH, HEIGHT = 640, 480
LENSES = {
    'plumb_bob': Lens(420.0, 425.0, 325.0, 236.0, 'plumb_bob',
                      (-0.28, 0.08, 0.001, -0.0007, -0.008)),
    'rational_polynomial': Lens(400.0, 400.0, 318.0, 243.0, 'rational_polynomial',
                                (0.6, 0.1, 0.0005, 0.0003, 0.01, 0.95, 0.25, 0.02)),
    'equidistant': Lens(260.0, 262.0, 322.0, 238.0, 'equidistant', (0.02, -0.005, 0.002, -0.0003)),
}


def shown_at(lens, x, y):
    """Where a lens shows a ray, by the formulas of the papers and not by OpenCV."""
    r = math.hypot(x, y)
    if lens.model == 'equidistant':
        angle = math.atan(r)
        k1, k2, k3, k4 = lens.distortion
        bent = angle * (1 + k1 * angle**2 + k2 * angle**4 + k3 * angle**6 + k4 * angle**8)
        scale = bent / r if r else 1.0
        return lens.fx * x * scale + lens.cx, lens.fy * y * scale + lens.cy
    k1, k2, p1, p2, k3, *below = lens.distortion
    scale = 1 + k1 * r**2 + k2 * r**4 + k3 * r**6
    if below:
        scale /= 1 + below[0] * r**2 + below[1] * r**4 + below[2] * r**6
    across = x * scale + 2 * p1 * x * y + p2 * (r**2 + 2 * x**2)
    down = y * scale + p1 * (r**2 + 2 * y**2) + 2 * p2 * x * y
    return lens.fx * across + lens.cx, lens.fy * down + lens.cy


def dots(places):
    """Return a picture with a white dot at each place (u, v)."""
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for u, v in places:
        cv2.circle(picture, (round(u * 16), round(v * 16)), 3 * 16, (255, 255, 255), -1,
                   cv2.LINE_AA, 4)
    return picture


def centre_near(picture, u, v, reach=9):
    """Return the centre of what is white around a place."""
    left, top = round(u) - reach, round(v) - reach
    part = picture[top:top + 2 * reach + 1, left:left + 2 * reach + 1, 0].astype(float)
    assert part.max() > 100, (u, v)
    rows, columns = np.mgrid[:part.shape[0], :part.shape[1]]
    return left + (columns * part).sum() / part.sum(), top + (rows * part).sum() / part.sum()


def message(lens=None, **changed):
    lens = lens or LENSES['plumb_bob']
    roi = SimpleNamespace(x_offset=0, y_offset=0, width=0, height=0)
    return SimpleNamespace(**{
        'width': WIDTH, 'height': HEIGHT, 'distortion_model': lens.model,
        'd': list(lens.distortion), 'k': lens.matrix.ravel(), 'p': np.zeros(12), 'binning_x': 0,
        'binning_y': 0, 'roi': roi} | changed)


@pytest.mark.parametrize('model', LENSES)
@pytest.mark.parametrize('field', [0.0, math.radians(54)])
def test_a_grid_of_points_comes_out_straight_and_where_the_field_of_view_has_it(model, field):
    lens = LENSES[model]
    camera = camera_of(message(lens))
    asked = field or widest_field(lens, (WIDTH, HEIGHT))
    focal = WIDTH / 2 / math.tan(asked / 2)
    rays = [((u - 319.5) / focal, (v - 239.5) / focal)
            for u in range(20, WIDTH - 19, 60) for v in range(20, HEIGHT - 19, 44)]
    picture = dots(shown_at(lens, x, y) for x, y in rays)
    straight = as_pinhole(picture, camera, True, field)
    assert straight.shape == picture.shape and straight.dtype == np.uint8
    errors = []
    for x, y in rays:
        expected = (x * focal + 319.5, y * focal + 239.5)
        errors.append(math.dist(centre_near(straight, *expected), expected))
    assert max(errors) < 0.5
    # And it was not straight before.
    bent = [math.dist(shown_at(lens, x, y), shown_at(Lens(lens.fx, lens.fy, lens.cx, lens.cy),
                                                     x, y)) for x, y in rays]
    assert max(bent) > 5


@pytest.mark.parametrize('model', LENSES)
def test_the_widest_field_leaves_no_border_empty_and_no_more_would_do(model):
    lens = LENSES[model]
    widest = widest_field(lens, (WIDTH, HEIGHT))
    focal = WIDTH / 2 / math.tan(widest / 2)
    edge = [(u, v) for u in (-320, 0, 320) for v in (-240, 0, 240)]
    shown = np.array([shown_at(lens, u / focal, v / focal) for u, v in edge])
    spare = np.minimum(shown + 0.5, np.array([WIDTH, HEIGHT]) - 0.5 - shown)
    assert -1e-6 < spare.min() < 0.01
    white = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    assert as_pinhole(white, camera_of(message(lens)), True, 0.0).min() == 255


def test_a_rectified_picture_is_only_cropped():
    """P tells of it, and neither K nor D."""
    projection = [380.0, 0, 319.5, 0, 0, 380.0, 239.5, 0, 0, 0, 1, 0]
    camera = camera_of(message(p=np.array(projection), distortion_model='of my own'))
    focal = WIDTH / 2 / math.tan(0.4)
    place = (319.5 + 380 * 0.3, 239.5 - 380 * 0.2)
    expected = (319.5 + focal * 0.3, 239.5 - focal * 0.2)
    cropped = as_pinhole(dots([place]), camera, False, 0.8)
    assert math.dist(centre_near(cropped, *expected), expected) < 0.1
    with pytest.raises(UserError, match="model 'of my own'; it must be one of plumb_bob"):
        as_pinhole(dots([place]), camera, True, 0.8)


def test_an_ideal_camera_sees_as_before():
    lens = ideal_lens((WIDTH, HEIGHT), 1.2)
    assert widest_field(lens, (WIDTH, HEIGHT)) == pytest.approx(1.2, abs=1e-5)
    picture = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    camera = camera_of(message(lens))
    for undistort in (False, True):     # P is all zero: K counts for both
        np.testing.assert_array_equal(as_pinhole(picture, camera, undistort, 1.2), picture)


def test_the_field_of_view_of_the_whole_camera_may_be_asked_for_in_round_numbers():
    """The principal point of simulators is half a pixel off, and people round."""
    focal = WIDTH / 2 / math.tan(math.radians(54) / 2)
    lens = Lens(focal, focal, WIDTH / 2, HEIGHT / 2)
    white = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    assert as_pinhole(white, camera_of(message(lens)), True, 0.943).min() == 255


@pytest.mark.parametrize('across, down, left, top, width, height', [
    (1, 1, 100, 60, 400, 300), (2, 2, 0, 0, 0, 0), (2, 4, 40, 80, 560, 320)])
def test_a_region_of_interest_and_binning(across, down, left, top, width, height):
    lens = LENSES['plumb_bob']
    roi = SimpleNamespace(x_offset=left, y_offset=top, width=width, height=height)
    camera = camera_of(message(lens, roi=roi, binning_x=across, binning_y=down))
    whole = np.random.default_rng(1).integers(0, 255, (HEIGHT // 8, WIDTH // 8, 3), np.uint8)
    whole = cv2.resize(whole, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    sent = whole[top:top + (height or HEIGHT), left:left + (width or WIDTH)]
    sent = sent.reshape(len(sent) // down, down, sent.shape[1] // across, across, 3).mean(
        (1, 3)).astype(np.uint8)
    assert (camera.width, camera.height) == (sent.shape[1], sent.shape[0])
    found = as_pinhole(sent, camera, True, 0.4)
    expected = as_pinhole(whole, camera_of(message(lens)), True, 0.4)
    # The same rays, in pictures of different sizes.
    focal, focal_sent = (size / 2 / math.tan(0.2) for size in (WIDTH, camera.width))
    half = 0.9 * min(camera.height / 2 / focal_sent, HEIGHT / 2 / focal)
    for x, y in ((0, 0), (0.15, half / 2), (-0.18, -half), (0.05, half)):
        here = found[round(y * focal_sent + (camera.height - 1) / 2),
                     round(x * focal_sent + (camera.width - 1) / 2)].astype(int)
        u, v = round(x * focal + 319.5), round(y * focal + 239.5)
        around = expected[v - 6:v + 7, u - 6:u + 7].reshape(-1, 3).astype(int)
        assert (np.abs(around - here).max(1)).min() < 14, (x, y)


@pytest.mark.parametrize('changed, words', [
    ({'k': np.zeros(9)}, 'focal lengths 0 and 0'),
    ({'k': np.array([math.nan, 0, 320, 0, 400, 240, 0, 0, 1])}, 'K is not 9 finite numbers'),
    ({'k': np.array([400.0, 0, 320, 0, -400, 240, 0, 0, 1])}, 'focal lengths 400 and -400'),
    ({'k': np.array([400.0, 0, 9320, 0, 400, 240, 0, 0, 1])}, 'nothing is seen'),
    ({'k': np.array([1e300, 0, 320, 0, 1e300, 240, 0, 0, 1])}, 'nothing is seen'),
    ({'p': np.full(12, math.inf)}, 'P is not 12 finite numbers'),
    ({'d': [math.nan] * 5}, 'D must be 4 or 5 finite numbers for plumb_bob'),
    ({'d': [0.0] * 8}, 'D must be 4 or 5 finite numbers for plumb_bob'),
    ({'d': [-1e300, 1e300, 0.0, 0.0, 0.0]}, 'nothing is seen'),
    ({'distortion_model': ''}, "the distortion model ''"),
    ({'distortion_model': 'thin_prism_fisheye'}, "'thin_prism_fisheye'; it must be one of"),
    ({'width': 0, 'height': 0}, '0x0 pixels'),
    ({'width': 100000}, '100000x480 pixels'),
    ({'roi': SimpleNamespace(x_offset=600, y_offset=0, width=100, height=480)}, 'a region of'),
    ({'roi': SimpleNamespace(x_offset=0, y_offset=0, width=0, height=9)}, 'a region of 0x9'),
    ({'binning_x': 1000}, 'pictures of 0x480 pixels'),
])
def test_camera_info_that_makes_no_sense_is_refused_in_a_sentence(changed, words):
    camera = camera_of(message(**changed))
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for _ in range(2):
        with pytest.raises(UserError, match=words) as raised:
            as_pinhole(picture, camera, True, 0.0)
        assert '\n' not in str(raised.value)


def test_frames_of_another_size_are_refused():
    camera = camera_of(message())
    with pytest.raises(UserError, match='has 320x240 pixels, and 640x480 by its camera info'):
        as_pinhole(np.zeros((240, 320, 3), np.uint8), camera, True, 0.9)


def test_nothing_is_made_of_the_size_that_camera_info_claims(monkeypatch):
    monkeypatch.setattr(cv2, 'initUndistortRectifyMap', lambda *arguments: pytest.fail('it is'))
    camera = camera_of(message(Lens(20000.0, 20000.0, 16000.0, 16000.0), width=32000,
                               height=32000))
    with pytest.raises(UserError, match='has 320x240 pixels, and 32000x32000 by its camera info'):
        as_pinhole(np.zeros((240, 320, 3), np.uint8), camera, True, 0.0)


@pytest.mark.parametrize('model', LENSES)
def test_more_than_the_camera_sees_is_refused_with_what_it_sees(model):
    widest = widest_field(LENSES[model], (WIDTH, HEIGHT))
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    camera = camera_of(message(LENSES[model]))
    as_pinhole(picture, camera, True, widest - 0.001)
    with pytest.raises(UserError, match=f'sees only {widest:.3f} rad'):
        as_pinhole(picture, camera, True, widest + 0.05)


def test_a_distortion_that_turns_back_does_not_show_anything_twice():
    """Beyond its turning point the polynomial comes back into the picture."""
    lens = Lens(200.0, 200.0, 319.5, 239.5, 'plumb_bob', (-0.25, 0.0, 0.0, 0.0, 0.0))
    turn = math.sqrt(1 / (3 * 0.25))    # where d/dr of r - 0.25 r^3 is zero
    assert max(shown_at(lens, r / 100, 0)[0] for r in range(300)) < WIDTH - 0.5
    corner = math.hypot(1, HEIGHT / WIDTH) * math.tan(widest_field(lens, (WIDTH, HEIGHT)) / 2)
    assert corner == pytest.approx(turn, rel=1e-3)


def test_a_camera_that_sees_all_around_needs_a_field_of_view():
    lens = Lens(150.0, 150.0, 319.5, 239.5, 'equidistant', (0.0,) * 4)
    camera = camera_of(message(lens))
    picture = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    with pytest.raises(UserError, match='set field_of_view'):
        as_pinhole(picture, camera, True, 0.0)
    assert as_pinhole(picture, camera, True, 1.5).min() == 255


def test_the_map_is_made_once_per_camera(monkeypatch):
    made = []
    real = cv2.initUndistortRectifyMap
    monkeypatch.setattr(cv2, 'initUndistortRectifyMap',
                        lambda *arguments: made.append(1) or real(*arguments))
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for distortion in ([-0.2, 0, 0, 0, 0], [-0.2, 0, 0, 0, 0], [-0.1, 0, 0, 0, 0]):
        for _ in range(3):
            as_pinhole(picture, camera_of(message(d=distortion)), True, 0.7)
    assert len(made) == 2


def test_cameras_that_say_the_same_are_equal():
    assert camera_of(message()) == camera_of(message())
    assert camera_of(message()) != camera_of(message(d=[0.0] * 5))
    assert isinstance(camera_of(message(k=np.zeros(9))), Camera)


def test_where_camera_info_is_by_custom():
    assert camera_info_beside('/front/image_raw') == '/front/camera_info'
    assert camera_info_beside('/front/image_raw/compressed') == '/front/camera_info'
    assert camera_info_beside('/image') == '/camera_info'
    assert camera_info_beside('image') == 'camera_info'


@pytest.mark.parametrize('field', [-0.1, 2.7, math.nan, math.inf])
def test_a_field_of_view_that_cannot_be(field):
    with pytest.raises(UserError, match='it must be from 0'):
        check_field(field)
