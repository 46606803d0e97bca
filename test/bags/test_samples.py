"""A bag becomes the frames, ego states and actions that were driven, whatever holds it."""

import math

import numpy as np
from owled_ros.bags.samples import Drive, read_samples, Source
from owled_ros.bags.writing import DriveWriter
from owled_ros.driver.action import Action, EgoState, Maneuver, Route
from owled_ros.driver.pinhole import as_pinhole, Camera, Lens
from owled_ros.errors import UserError
import pytest
from rosbags.rosbag2 import StoragePlugin

SQLITE3, MCAP = StoragePlugin.SQLITE3, StoragePlugin.MCAP


@pytest.mark.parametrize('storage', [SQLITE3, MCAP])
@pytest.mark.parametrize('image, pad', [
    ('bgr8', 0), ('rgb8', 0), ('rgb8', 5), ('mono8', 3), ('jpeg', 0), ('png', 0)])
def test_frames_of_every_kind_in_both_storages(tmp_path, recording, storage, image, pad):
    bag = recording.circle(tmp_path / 'bag', storage=storage, image=image, pad=pad)
    samples = list(read_samples([bag]))
    assert [s.stamp for s in samples] == [
        recording.start + k * 100_000_000 + 7_000_000 for k in range(15)]
    for number, sample in enumerate(samples):
        expected = recording.picture(number).astype(int)
        if image == 'mono8':
            expected = expected[:, :, :1].repeat(3, 2)
        blocks = [(slice(0, 6), slice(2, 22)), (slice(10, 16), slice(2, 10))]
        for block in blocks:  # away from the edges, at which JPEG rings
            error = np.abs(sample.frame[block].astype(int) - expected[block]).max()
            assert error <= (12 if image == 'jpeg' else 0)


def test_ego_state_and_action_are_those_of_the_motion(tmp_path, recording):
    samples = list(read_samples([recording.circle(tmp_path / 'bag')], horizon=0.8))
    assert len(samples) == 17
    for number, sample in enumerate(samples):
        speed = recording.speed + recording.acceleration * (0.1 * number + 0.007)
        assert sample.ego.speed == pytest.approx(speed)
        assert sample.ego.yaw_rate == pytest.approx(recording.curvature * speed)
        assert sample.action.acceleration == pytest.approx(recording.acceleration)
        assert sample.action.curvature == pytest.approx(recording.curvature)
        assert sample.action.maneuver == Maneuver.KEEP_LANE
        assert sample.command.route == Route.FOLLOW
        assert math.isnan(sample.command.speed_limit)
        assert sample.explanation == ''
    # The first 0.3 s have no past to take an acceleration from.
    assert [s.ego.acceleration for s in samples[:3]] == [0, 0, 0]
    assert samples[3].ego.acceleration == pytest.approx(recording.acceleration)


@pytest.mark.parametrize('odom', ['twist', 'twist_with_covariance'])
def test_a_twist_tells_the_motion_too(tmp_path, recording, odom):
    expected = list(read_samples([recording.circle(tmp_path / 'bag')]))
    found = list(read_samples([recording.circle(tmp_path / odom, odom=odom)]))
    assert [(s.stamp, s.ego, s.action) for s in found] == [
        (s.stamp, s.ego, s.action) for s in expected]
    with pytest.raises(UserError, match="moves the frame 'base_link', not 'vehicle'"):
        list(read_samples([tmp_path / odom], base_frame='vehicle'))


@pytest.mark.parametrize('storage', [SQLITE3, MCAP])
def test_a_velocity_report_of_autoware_tells_the_motion_too(tmp_path, recording, storage):
    expected = list(read_samples([recording.circle(tmp_path / 'bag')]))
    bag = recording.circle(tmp_path / 'autoware', odom='velocity_report', storage=storage)
    found = list(read_samples([bag]))
    assert [s.stamp for s in found] == [s.stamp for s in expected]
    for ours, theirs in zip(found, expected):   # its numbers have 32 bits
        assert ours.ego.speed == pytest.approx(theirs.ego.speed, rel=1e-6)
        assert ours.ego.yaw_rate == pytest.approx(theirs.ego.yaw_rate, rel=1e-6)
        assert ours.action.curvature == pytest.approx(theirs.action.curvature, rel=1e-5)


def test_speeds_without_stamps_are_refused(tmp_path, recording):
    recorder = recording.Recorder(tmp_path / 'bag')
    with recorder.writer:
        recorder.frame(recording.start, recording.picture(0))
        recorder.write('/speed', recorder.make('std_msgs/msg/Float64', data=5.0), recording.start)
    assert '/speed of the bag' in (text := sentence([tmp_path / 'bag'], odom_topic='/speed'))
    assert 'bears no stamps' in text


# -- what the model is shown -------------------------------------------------------------------

def record_with_camera_info(path, recording, infos, **options):
    """Record a straight drive of 2 s; infos: {tick of 20 ms: what differs in the camera info}."""
    recorder = recording.Recorder(path, **options)
    noise = np.random.default_rng(3).integers(0, 255, (16, 24, 3), np.uint8)
    with recorder.writer:
        for tick in range(101):
            stamp = recording.start + tick * 20_000_000
            recorder.odometry(stamp, 5.0, 0.0)
            if tick in infos:
                recorder.camera_info(stamp, **infos[tick])
            if tick % 5 == 0:
                recorder.frame(stamp, noise)
    return path, noise


@pytest.mark.parametrize('image', ['bgr8', 'png'])
def test_frames_are_as_the_node_shows_them(tmp_path, recording, image):
    distortion = (-0.2, 0.05, 0.0, 0.0, 0.0)
    bag, noise = record_with_camera_info(
        tmp_path / 'bag', recording, {0: {'distortion': distortion}, 25: {'focal': 40.0}},
        image=image)
    samples = list(read_samples([bag], undistort=True, field_of_view=0.5))
    assert len(samples) == 11
    lenses = [Lens(30.0, 30.0, 11.5, 7.5, 'plumb_bob', distortion), Lens(40.0, 40.0, 11.5, 7.5)]
    before, after = (as_pinhole(noise, Camera(24, 16, lens, lens), True, 0.5) for lens in lenses)
    assert not np.array_equal(before, after)
    for sample in samples:
        expected = before if sample.stamp < recording.start + 500_000_000 else after
        np.testing.assert_array_equal(sample.frame, expected)
    for sample in read_samples([bag]):
        np.testing.assert_array_equal(sample.frame, noise)


def test_frames_before_any_camera_info_are_dropped_and_counted(tmp_path, recording):
    bag, _ = record_with_camera_info(tmp_path / 'bag', recording, {13: {'topic': '/eye'}})
    drive = Drive(bag, Source(field_of_view=0.5, camera_info_topic='/eye'))
    assert [(s.stamp - recording.start) // 10**6 for s in drive.samples()] == list(
        range(300, 1001, 100))
    assert drive.dropped['before any camera info'] == 3


@pytest.mark.parametrize('info, words', [
    ({'distortion': (math.nan,) * 5}, 'D must be 4 or 5 finite numbers'),
    ({'focal': 0.0}, 'focal lengths 0 and 0'),
    ({'focal': 300.0}, 'field_of_view is 0.5 rad, and the camera sees only 0.080 rad'),
    ({'width': 48, 'height': 32}, '11 because the frame has 24x16 pixels, and 48x32 by its'),
])
def test_camera_info_that_makes_no_sense(tmp_path, recording, info, words):
    bag, _ = record_with_camera_info(tmp_path / 'bag', recording, {0: info})
    text = sentence([bag], undistort=True, field_of_view=0.5)
    assert f'no frame on /camera/image_raw of {bag} can be used: ' in text and words in text


def test_camera_info_that_makes_no_sense_for_a_while(tmp_path, recording):
    bag, _ = record_with_camera_info(
        tmp_path / 'bag', recording,
        {0: {}, 23: {'focal': 0.0}, 33: {'width': 48, 'height': 32}, 38: {}})
    drive = Drive(bag, Source(undistort=True))
    assert len(list(drive.samples())) == 11 - 2 - 1
    (before, two), (after, one) = sorted(drive.dropped.items(), key=lambda item: -item[1])[-2:]
    assert (two, one) == (2, 1)
    assert before.startswith('because the camera info is unusable: K has the focal lengths 0')
    assert after.startswith('because the frame has 24x16 pixels')


def test_camera_info_that_is_not_there(tmp_path, recording):
    bag = recording.circle(tmp_path / 'bag')
    assert 'no messages on /camera/camera_info' in sentence([bag], undistort=True)
    assert 'no messages on /info' in sentence([bag], undistort=True, camera_info_topic='/info')
    assert 'field_of_view is 7' in sentence([bag], field_of_view=7.0)


def test_pairing_is_by_stamp_not_by_time_of_recording(tmp_path, recording):
    prompt = list(read_samples([recording.circle(tmp_path / 'prompt')]))
    late = list(read_samples([recording.circle(tmp_path / 'late', receive_delay=350_000_000)]))
    assert [(s.stamp, s.ego, s.action) for s in late] == [
        (s.stamp, s.ego, s.action) for s in prompt]


def test_frames_without_future_are_dropped_and_counted(tmp_path, recording):
    drive = Drive(recording.circle(tmp_path / 'bag'), Source())
    assert len(list(drive.samples())) == 15
    # The last frame is stamped after the last odometry message.
    assert drive.dropped == {'without enough recorded motion after them': 10,
                             'without odometry around them': 1}


def test_holes_in_the_odometry_are_not_bridged(tmp_path, recording):
    bag = recording.circle(tmp_path / 'bag', seconds=4, holes=[(1.5, 1.68)])
    stamps = [(s.stamp - recording.start) / 1e9 for s in read_samples([bag])]
    # A frame must see no hole in the second after it, and have none around it.
    assert stamps == pytest.approx(
        [0.1 * k + 0.007 for k in range(41) if k < 5 or 17 <= k < 30])
    wide = list(read_samples([bag], max_ego_gap=0.2))
    assert len(wide) == 30
    assert wide[16].ego.speed == pytest.approx(recording.speed + recording.acceleration * 1.607)


def test_several_bags_one_after_the_other(tmp_path, recording):
    bags = [recording.circle(tmp_path / name, storage=storage)
            for name, storage in (('first', MCAP), ('second', SQLITE3))]
    samples = list(read_samples(bags))
    assert [s.bag for s in samples] == [str(bags[0])] * 15 + [str(bags[1])] * 15


def test_slow_turning_has_no_curvature(tmp_path, recording):
    recorder = recording.Recorder(tmp_path / 'bag')
    with recorder.writer:
        for tick in range(80):
            recorder.odometry(recording.start + tick * 20_000_000, 0.9, 0.3)
        recorder.frame(recording.start, recording.picture(0))
    sample, = read_samples([tmp_path / 'bag'])
    assert sample.action.curvature == 0
    assert sample.ego.yaw_rate == pytest.approx(0.3)


def test_a_broken_frame_is_left_out_and_counted(tmp_path, recording):
    recorder = recording.Recorder(tmp_path / 'bag')
    with recorder.writer:
        for tick in range(80):
            recorder.odometry(recording.start + tick * 20_000_000, 5.0, 0.0)
        recorder.frame(recording.start, recording.picture(0)[:0])
        recorder.frame(recording.start + 1, recording.picture(0))
        recorder.frame(recording.start + 1, recording.picture(0))
    drive = Drive(tmp_path / 'bag', Source())
    assert [s.stamp for s in drive.samples()] == [recording.start + 1]
    assert drive.dropped == {'that cannot be decoded': 1,
                             'with a stamp that was there before': 1}


def write_drive(path, storage='mcap', truths=10):
    """Write a drive that speeds up, with a truth that says something else than the motion."""
    with DriveWriter(path, storage) as writer:
        for tick in range(101):
            stamp = 10**9 + tick * 20_000_000
            ego = EgoState(5.0 + 0.02 * tick, 0.1)
            writer.write_odometry(stamp, (0.1 * tick, 0.0, 0.3), ego)
            if tick % 5 == 0:
                writer.write_frame(stamp, np.full((48, 64, 3), (250, 10, 60), np.uint8))
                if tick // 5 < truths:
                    action = Action(-1.5, 0.04, Maneuver.STOP)
                    writer.write_truth(stamp, ego, action, f'Red light at {tick}.')
    return path


@pytest.mark.parametrize('storage', ['mcap', 'sqlite3'])
def test_truth_replaces_the_recorded_motion(tmp_path, storage):
    bag = write_drive(tmp_path / 'bag', storage)
    by_motion = list(read_samples([bag]))
    assert len(by_motion) == 11
    assert by_motion[0].action.acceleration == pytest.approx(1)
    drive = Drive(bag, Source(truth_topic='/owled/truth',
                              explanation_topic='/owled/truth_explanation'))
    samples = list(drive.samples())
    assert len(samples) == 10 and drive.dropped == {'without a valid truth': 11}
    for number, sample in enumerate(samples):
        assert sample.action.acceleration == pytest.approx(-1.5)
        assert sample.action.curvature == pytest.approx(0.04)
        assert sample.action.maneuver == Maneuver.STOP
        assert sample.explanation == f'Red light at {5 * number}.'
        assert np.abs(sample.frame.astype(int) - (250, 10, 60)).max() <= 6


def test_commands_hold_for_a_while(tmp_path, recording):
    recorder = recording.Recorder(tmp_path / 'bag')
    with recorder.writer:
        for tick in range(201):
            stamp = recording.start + tick * 20_000_000
            recorder.odometry(stamp, 5.0, 0.0)
            if tick == 50:
                recorder.write('/command', recorder.make(
                    'owled_ros/msg/DrivingCommand', header=recorder.header(stamp), route=1,
                    speed_limit=8.0), stamp)
            if tick % 25 == 0:
                recorder.frame(stamp, recording.picture(0))
    samples = read_samples([tmp_path / 'bag'], command_topic='/command', max_command_age=0.6)
    assert [s.command.route for s in samples] == [
        Route.FOLLOW, Route.FOLLOW, Route.LEFT, Route.LEFT] + [Route.FOLLOW] * 3


# -- what a user can get wrong -----------------------------------------------------------------

def sentence(bags, **source):
    with pytest.raises(UserError) as error:
        list(read_samples(bags, **source))
    text = str(error.value)
    assert '\n' not in text
    return text


def test_no_bag(tmp_path):
    assert 'there is no bag at' in sentence([tmp_path / 'nothing'])
    (tmp_path / 'folder').mkdir()
    assert 'no metadata.yaml' in sentence([tmp_path / 'folder'])


@pytest.mark.parametrize('storage', [SQLITE3, MCAP])
def test_empty_bag(tmp_path, recording, storage):
    with recording.Recorder(tmp_path / 'bag', storage=storage).writer:
        pass
    assert 'is empty' in sentence([tmp_path / 'bag'])


@pytest.mark.parametrize('storage', [SQLITE3, MCAP])
def test_damaged_bag(tmp_path, recording, storage):
    bag = recording.circle(tmp_path / 'bag', storage=storage)
    file, = [path for path in bag.iterdir() if path.name != 'metadata.yaml']
    whole = file.read_bytes()
    for data in (whole[:len(whole) // 2], b'', b'no bag' * 1000):
        file.write_bytes(data)
        assert 'cannot be read' in sentence([bag])
    (bag / 'metadata.yaml').write_text('rosbag2_bagfile_information: [1')
    assert 'cannot be read' in sentence([bag])


def test_missing_topics_are_answered_with_those_there(tmp_path, recording):
    bag = recording.circle(tmp_path / 'bag')
    text = sentence([bag], image_topic='/front')
    assert 'no messages on /front' in text
    assert '/camera/image_raw (sensor_msgs/msg/Image), /odom (nav_msgs/msg/Odometry)' in text
    assert 'nav_msgs/msg/Odometry on /odom' in sentence([bag], image_topic='/odom')
    assert 'no messages on /odometry' in sentence([bag], odom_topic='/odometry')
    assert 'no messages on /truth' in sentence([bag], truth_topic='/truth')


def test_wrong_frame_and_unreadable_encoding(tmp_path, recording):
    recorder = recording.Recorder(tmp_path / 'bag', image='8UC3')
    with recorder.writer:
        for tick in range(80):
            recorder.odometry(recording.start + tick * 20_000_000, 5.0, 0.0, frame='imu')
        recorder.frame(recording.start, recording.picture(0))
    assert "moves the frame 'imu', not 'base_link'" in sentence([tmp_path / 'bag'])
    assert "encoding '8UC3' cannot be read" in sentence([tmp_path / 'bag'], base_frame='imu')


def test_nothing_usable_says_why(tmp_path, recording):
    bag = recording.circle(tmp_path / 'bag', seconds=0.5)
    text = sentence([bag])
    assert 'can be used: 5 without enough recorded motion' in text
    assert 'horizon is -1' in sentence([bag], horizon=-1)
