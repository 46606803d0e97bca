"""Renders a recorded drive as a film: what the driver would have done at every frame of it."""

from dataclasses import dataclass
import math
from pathlib import Path
from statistics import median

import cv2
from owled_ros.bags.samples import nothing_usable
from owled_ros.driver.action import ActionLimiter, InvalidAction, Limits, Status
from owled_ros.errors import UserError
from owled_ros.film.files import Film
from owled_ros.film.overlay import draw_action, draw_refusal

SLICE = 16  # tokens of an explanation that are written at a time


@dataclass(frozen=True)
class Cut:
    """Which part of a drive is shown, and how.

    start and seconds [s] in the drive; width [pixels], the height follows; rate: pictures a
    second, 0 for as many as the camera made; explain_every [s]: so often is an explanation
    written.
    """

    start: float = 0.0
    seconds: float = math.inf
    width: int = 640
    rate: float = 0.0
    explain_every: float = 1.0

    def __post_init__(self):
        for name, low, high in (('start', 0, math.inf), ('seconds', 1e-3, math.inf),
                                ('width', 64, 4096), ('rate', 0, 240),
                                ('explain_every', 0, math.inf)):
            value = getattr(self, name)
            if not low <= value <= high:
                raise UserError(f'{name} is {value}; it must be from {low} to {high}')


@dataclass(frozen=True)
class Rendered:
    """What was written: pictures, seconds of film, frames decided on, and those refused."""

    path: Path
    pictures: int
    seconds: float
    frames: int
    refused: int


def render_drive(driver, drive, path, cut, *, wheelbase=2.7, progress=lambda text: None):
    """Let a Driver decide on frames of a recorded Drive; write a film of that to `path`.

    It decides on those that are shown: all of them, unless the film's rate is lower.
    A second of the film is a second of the drive: where frames are missing it stands still.
    Actions are limited as the driving node limits them by default. wheelbase [m]. Returns a
    Rendered. Raises UserError.
    """
    stamps = _stamps(drive, cut)
    rate = cut.rate or _rate_of(stamps)
    places = _places(stamps, rate)
    passenger = _Passenger(driver, ActionLimiter(Limits(), wheelbase, drive.source.horizon),
                           stamps[0], cut)
    picture = None
    with Film(path, rate) as film:
        for sample in drive.samples(set(places)):
            if picture is not None:     # it is shown until the next one
                if places[sample.stamp] <= film.pictures:
                    continue            # recorded out of order
                film.add(picture, places[sample.stamp] - film.pictures)
            picture = passenger.drawn(sample)
            if passenger.frames % 50 == 0:
                progress(f'{passenger.frames} of {len(places)} frames')
        if picture is None:
            raise UserError(nothing_usable([drive]))
        film.add(picture)
    return Rendered(film.path, film.pictures, film.pictures / rate, passenger.frames,
                    passenger.refused)


class _Passenger:
    """Sits beside the driver and draws what it decides."""

    def __init__(self, driver, limiter, began, cut):
        self._driver, self._limiter = driver, limiter
        self._began, self._cut = began, cut
        self._text, self._explained = '', -math.inf
        self.frames = self.refused = 0

    def drawn(self, sample):
        """Return a Sample's frame with the driver's decision on it, as wide as asked for."""
        self.frames += 1
        time, frame = sample.stamp / 1e9, _fit(sample.frame, self._cut.width)
        try:
            decision = self._driver.decide(sample.frame, sample.ego, sample.command)
            action = self._limiter.apply(decision.action, sample.ego, sample.command, time,
                                         decision.compute_time)
        except (InvalidAction, FloatingPointError) as error:
            self.refused += 1
            self._limiter.restart()
            return draw_refusal(frame, Status.INVALID_OUTPUT, str(error))
        if time - self._explained >= self._cut.explain_every:
            self._explained = time
            self._text = self._explanation(decision)
        return draw_action(frame, action, self._text,
                           f'{(sample.stamp - self._began) / 1e9:.1f} s   now '
                           f'{sample.ego.speed:.1f} m/s   decided in '
                           f'{1000 * decision.compute_time:.0f} ms')

    def _explanation(self, decision):
        stream = self._driver.explain(decision)
        while not stream.advance(SLICE):
            pass
        return stream.text


def _stamps(drive, cut):
    """Return the stamps [ns] of the frames of a cut, in order."""
    stamps = sorted(moment.stamp for moment, _ in drive.frames())
    if not stamps:
        raise UserError(nothing_usable([drive]))
    first = stamps[0] + cut.start * 1e9
    chosen = [stamp for stamp in stamps if 0 <= stamp - first < cut.seconds * 1e9]
    if not chosen:
        raise UserError(f'{drive.path} has frames for {(stamps[-1] - stamps[0]) / 1e9:.1f} s; '
                        f'there is none from {cut.start} s on')
    return chosen


def _rate_of(stamps):
    periods = [after - before for before, after in zip(stamps, stamps[1:])]
    return 1e9 / median(periods) if periods else 1.0


def _places(stamps, rate):
    """Return, for each stamp that is shown at a rate [1/s], the number of its picture."""
    shown = {}     # number of the picture -> the first frame that is due for it
    for stamp in stamps:
        shown.setdefault(round((stamp - stamps[0]) / 1e9 * rate), stamp)
    return {stamp: place for place, stamp in shown.items()}


def _fit(frame, width):
    """Return a frame as wide as asked for, both sides even, as films want them."""
    height = round(frame.shape[0] * width / frame.shape[1])
    return cv2.resize(frame, (width // 2 * 2, max(height // 2 * 2, 2)),
                      interpolation=cv2.INTER_AREA if width < frame.shape[1]
                      else cv2.INTER_LINEAR)
