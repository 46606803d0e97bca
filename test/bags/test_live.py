"""The live drive pairs as a bag does, keeps little, and survives a clock that starts again."""

from types import SimpleNamespace

from owled_ros.bags.live import LiveDrive
from owled_ros.bags.samples import Source
from owled_ros.driver.action import Route
from owled_ros.errors import UserError
import pytest

TICK = 20_000_000


def stamped(stamp, **values):
    time = SimpleNamespace(sec=stamp // 10**9, nanosec=stamp % 10**9)
    return SimpleNamespace(header=SimpleNamespace(stamp=time), **values)


def odometry(stamp, speed=5.0, frame='base_link'):
    twist = SimpleNamespace(linear=SimpleNamespace(x=speed), angular=SimpleNamespace(z=0.1))
    return stamped(stamp, child_frame_id=frame, twist=SimpleNamespace(twist=twist))


def drive(live, ticks, start=10**9):
    pairs = []
    for tick in range(ticks):
        stamp = start + tick * TICK
        live.add_frame(stamped(stamp))
        pairs += live.add_odometry(odometry(stamp, 5 + 0.02 * tick))
    return pairs


def test_frames_are_ready_when_their_horizon_is_over():
    pairs = drive(LiveDrive(Source(horizon=0.5), spacing=0.2), 101)
    assert [moment.stamp for moment, _ in pairs] == [10**9 + k * 10 * TICK for k in range(8)]
    assert all(moment.action.acceleration == pytest.approx(1) for moment, _ in pairs)
    assert pairs[0][1].header.stamp.sec == 1


def test_a_loop_of_what_plays_begins_a_new_lap():
    live = LiveDrive(Source(horizon=0.5), spacing=0.2)
    first, second = drive(live, 101), drive(live, 101)
    assert {moment.bag for moment, _ in first} == {'live 1'}
    assert {moment.bag for moment, _ in second} == {'live 2'}
    # The first frame comes before the odometry that tells of the new lap.
    assert len(second) >= 7


def test_camera_info_goes_with_the_frames_after_it():
    left_out = []
    live = LiveDrive(Source(horizon=0.5, field_of_view=0.4), spacing=0.2, left_out=left_out.append)
    roi = SimpleNamespace(x_offset=0, y_offset=0, width=0, height=0)
    for stamp, focal in ((10**9 + 15 * TICK, 30.0), (10**9 + 35 * TICK, 40.0),
                         (10**9 + 65 * TICK, 0.0)):
        live.add_camera_info(stamped(
            stamp, width=24, height=16, distortion_model='plumb_bob', d=[0.0] * 5,
            k=[focal, 0, 11.5, 0, focal, 7.5, 0, 0, 1], p=[0.0] * 12, binning_x=0, binning_y=0,
            roi=roi))
    pairs = drive(live, 101)
    assert [moment.stamp for moment, _ in pairs] == [10**9 + k * 10 * TICK for k in range(2, 7)]
    assert [moment.camera.raw.fx for moment, _ in pairs] == [30.0] * 2 + [40.0] * 3
    assert left_out[:2] == ['before any camera info'] * 2 and len(left_out) == 3
    assert left_out[2].startswith('because the camera info is unusable: K has the focal lengths 0')


def test_commands_and_wrong_frames():
    live = LiveDrive(Source(horizon=0.5), spacing=0.2)
    live.add_command(stamped(10**9 + 1, route=1, speed_limit=8.0))
    live.add_command(stamped(10**9 + 2, route=77, speed_limit=8.0))
    routes = [moment.command.route for moment, _ in drive(live, 60)]
    assert routes == [Route.FOLLOW] + [Route.LEFT] * 3
    with pytest.raises(UserError, match="moves the frame 'imu'"):
        live.add_odometry(odometry(5 * 10**9, frame='imu'))
