"""Films of recorded drives, with a driver whose decisions are known."""

from types import SimpleNamespace

import cv2
import numpy as np
from owled_ros.bags.samples import Drive, Sample, Source
from owled_ros.bags.writing import DriveWriter
from owled_ros.driver.action import Action, Command, EgoState, Maneuver
from owled_ros.errors import UserError
from owled_ros.film.files import Film
from owled_ros.film.overlay import RED
from owled_ros.film.rendering import Cut, render_drive
from PIL import Image
import pytest

START = 1_000 * 10**9
GREY = 120


class Scripted:
    """Brakes, and says so; counts what it was asked."""

    def __init__(self, acceleration=-2.0):
        self.acceleration = acceleration
        self.decided, self.explained = [], 0

    def decide(self, frame, ego, command):
        self.decided.append(frame.shape)
        return SimpleNamespace(action=Action(self.acceleration, 0.01, Maneuver.STOP, 0.9),
                               compute_time=0.02)

    def explain(self, decision):
        self.explained += 1
        return SimpleNamespace(advance=lambda tokens: True, text='braking for a test')


@pytest.fixture
def drive(tmp_path):
    """4 s at 10 Hz, of which the frames from 2.0 to 2.5 s are missing."""
    with DriveWriter(tmp_path / 'bag') as writer:
        for tick in range(200):
            stamp = START + tick * 20_000_000
            ego = EgoState(5.0)
            writer.write_odometry(stamp, (0.0, 0.0, 0.0), ego)
            if tick % 5 == 0 and not 100 <= tick < 125:
                writer.write_frame(stamp, np.full((90, 160, 3), GREY, np.uint8))
    return Drive(tmp_path / 'bag', Source())


def pictures_of(path):
    film = cv2.VideoCapture(str(path))
    found = []
    while (read := film.read())[0]:
        found.append(read[1])
    return film.get(cv2.CAP_PROP_FPS), found


def test_a_second_of_the_film_is_a_second_of_the_drive(drive, tmp_path):
    driver = Scripted()
    rendered = render_drive(driver, drive, tmp_path / 'drive.mp4', Cut(width=320))
    rate, pictures = pictures_of(tmp_path / 'drive.mp4')
    assert rate == pytest.approx(10.0)
    # Frames with a second of motion after them: up to 2.9 s, five of which are missing.
    assert rendered.frames == len(driver.decided) == 25
    assert rendered.pictures == len(pictures) == 30 and rendered.seconds == pytest.approx(3.0)
    assert rendered.refused == 0
    assert set(driver.decided) == {(90, 160, 3)}    # as recorded, whatever the film's size
    assert {picture.shape for picture in pictures} == {(180, 320, 3)}
    assert driver.explained == 3
    assert all(np.abs(p[60:120, 20:60].mean() - GREY) < 3 for p in pictures)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['bag', 'drive.mp4']


def test_a_gif_of_a_part(drive, tmp_path):
    driver = Scripted()
    rendered = render_drive(driver, drive, tmp_path / 'drive.gif',
                            Cut(start=1.0, seconds=1.0, rate=5.0, width=128))
    with Image.open(tmp_path / 'drive.gif') as film:
        shown, lasts = film.n_frames, []
        for number in range(shown):
            film.seek(number)
            lasts.append(film.info['duration'])
        assert film.size == (128, 72)
    assert rendered.frames == rendered.pictures == 5
    assert sum(lasts) == 1000


def test_what_may_not_be_driven_is_said(drive, tmp_path):
    rendered = render_drive(Scripted(float('nan')), drive, tmp_path / 'drive.mp4', Cut())
    _, pictures = pictures_of(tmp_path / 'drive.mp4')
    assert rendered.refused == rendered.frames == 25
    red = np.abs(pictures[0][:60].astype(int) - RED[::-1]).max(axis=2)
    assert red.min() < 60


def test_nothing_is_left_of_a_film_that_failed(drive, tmp_path):
    class Failing(Scripted):

        def decide(self, frame, ego, command):
            if len(self.decided) == 5:
                raise RuntimeError('the model broke')
            return super().decide(frame, ego, command)

    with pytest.raises(RuntimeError, match='broke'):
        render_drive(Failing(), drive, tmp_path / 'drive.mp4', Cut())
    with pytest.raises(RuntimeError, match='broke'):
        render_drive(Failing(), drive, tmp_path / 'drive.gif', Cut())
    assert [path.name for path in tmp_path.iterdir()] == ['bag']


@pytest.mark.parametrize('cut, complaint', [
    ({'start': 60.0}, 'there is none from 60.0 s on'), ({'start': -1.0}, 'start is -1.0'),
    ({'width': 8}, 'width is 8'), ({'rate': -2.0}, 'rate is -2.0'),
    ({'seconds': 0.0}, 'seconds is 0.0'),
])
def test_cuts_that_cannot_be_are_refused(drive, tmp_path, cut, complaint):
    with pytest.raises(UserError, match=complaint):
        render_drive(Scripted(), drive, tmp_path / 'drive.mp4', Cut(**cut))


def test_places_that_cannot_be_written_are_refused(drive, tmp_path):
    (tmp_path / 'there.mp4').write_text('something')
    driver = Scripted()
    for name, complaint in (('there.mp4', 'there already'), ('drive.avi', 'neither an .mp4'),
                            ('no/drive.mp4', 'no directory')):
        with pytest.raises(UserError, match=complaint):
            render_drive(driver, drive, tmp_path / name, Cut())
    assert not driver.decided
    assert (tmp_path / 'there.mp4').read_text() == 'something'


def test_a_gif_keeps_the_time_at_any_rate(tmp_path):
    with Film(tmp_path / 'film.gif', 30.0) as film:
        for number in range(30):
            film.add(np.full((16, 24, 3), 8 * number, np.uint8))
    with Image.open(tmp_path / 'film.gif') as shown:
        lasts = []
        for number in range(shown.n_frames):
            shown.seek(number)
            lasts.append(shown.info['duration'])
    assert len(lasts) == 30 and sum(lasts) == 1000 and set(lasts) == {30, 40}


@pytest.mark.parametrize('rate', [71.953, 29.9701, 0.5])
def test_an_mp4_of_any_rate(tmp_path, rate):
    with Film(tmp_path / 'film.mp4', rate) as film:
        film.add(np.zeros((16, 24, 3), np.uint8), 3)
    assert pictures_of(tmp_path / 'film.mp4')[0] == pytest.approx(rate, abs=0.01)


def test_a_film_that_cannot_be_is_refused(tmp_path):
    with pytest.raises(UserError, match='at most 50'):
        Film(tmp_path / 'film.gif', 60.0)
    with pytest.raises(UserError, match='have one size, 24x16, and one has 16x24'):
        with Film(tmp_path / 'film.mp4', 10.0) as film:
            film.add(np.zeros((16, 24, 3), np.uint8))
            film.add(np.zeros((24, 16, 3), np.uint8))
    assert not list(tmp_path.iterdir())


def test_a_film_that_is_not_whole_does_not_stay(tmp_path, monkeypatch):
    with pytest.raises(UserError, match='some of it is missing; the disk may be full'):
        with Film(tmp_path / 'film.mp4', 10.0) as film:
            film.add(np.zeros((16, 24, 3), np.uint8), 3)
            monkeypatch.setattr(film._file, 'add', lambda picture, times: None)     # as if full
            film.add(np.zeros((16, 24, 3), np.uint8))
    assert not list(tmp_path.iterdir())


def test_frames_that_were_recorded_out_of_order_are_passed_over(tmp_path):
    samples = [Sample(np.full((90, 160, 3), GREY, np.uint8), EgoState(5.0), Command(), None, '',
                      START + tick * 100_000_000, 'bag') for tick in (0, 1, 3, 2, 4, 5)]
    drive = SimpleNamespace(
        frames=lambda: ((sample, None) for sample in samples), source=Source(),
        samples=lambda stamps: (sample for sample in samples if sample.stamp in stamps))
    driver = Scripted()
    rendered = render_drive(driver, drive, tmp_path / 'drive.mp4', Cut())
    assert rendered.frames == len(driver.decided) == 5
    assert rendered.pictures == 6


def test_an_empty_film_leaves_nothing(tmp_path):
    with Film(tmp_path / 'drive.mp4', 10.0):
        pass
    assert not list(tmp_path.iterdir())
