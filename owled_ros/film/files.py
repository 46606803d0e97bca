"""Writes films: MP4 with OpenCV, GIF with Pillow. A file appears only when it is whole."""

from pathlib import Path

import cv2
from owled_ros.errors import UserError
from PIL import Image


def check_path(path):
    """Raise UserError unless a film can be written to `path`."""
    path = Path(path)
    if path.exists():
        raise UserError(f'{path} is there already; remove it or choose another name')
    if path.suffix.lower() not in KINDS:
        raise UserError(f'{path} is neither an .mp4 nor a .gif; choose one of these')
    if not path.parent.is_dir():
        raise UserError(f'there is no directory {path.parent} to put the film in')


class Film:
    """A film as a context manager: whatever fails inside, nothing is left behind."""

    def __init__(self, path, rate):
        """Take where to write, an .mp4 or .gif that is not there yet, and pictures a second.

        Raises UserError where that cannot be.
        """
        check_path(path)
        self.path, self.rate, self.pictures = Path(path), rate, 0
        self._kind = KINDS[self.path.suffix.lower()]
        if rate > self._kind.fastest:
            raise UserError(f'a {self.path.suffix} cannot show {rate:g} pictures a second; give '
                            f'a rate of at most {self._kind.fastest}')
        self._partial = self.path.with_name(f'.{self.path.stem}.partial{self.path.suffix}')
        self._file = self._size = None

    def add(self, picture, times=1):
        """Show a picture, (height, width, 3) uint8 RGB, so many times; all are of one size."""
        if self._file is None:
            self._size = picture.shape
            self._file = self._kind(self._partial, picture.shape[1::-1], self.rate)
        if picture.shape != self._size:
            raise UserError(f'the pictures of a film have one size, {_pixels(self._size)}, and '
                            f'one has {_pixels(picture.shape)}; cut them apart with start and '
                            'seconds')
        self._file.add(picture, times)
        self.pictures += times

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        try:
            if self._file is not None:
                self._finish(whole=kind is None)
        finally:
            self._partial.unlink(missing_ok=True)

    def _finish(self, whole):
        try:
            self._file.close(whole)
            if whole:
                if self._file.written() != self.pictures:
                    raise OSError('some of it is missing; the disk may be full')
                self._partial.rename(self.path)
        except OSError as error:
            raise UserError(f'{self.path} cannot be written: {error}') from error


class _Mp4:
    fastest = 240

    def __init__(self, path, size, rate):
        self._path = path
        # The coder takes no finer fractions of a second than 1 / 65535.
        self._writer = cv2.VideoWriter(
            str(path), cv2.VideoWriter_fourcc(*'mp4v'), round(rate, 2), size)
        if not self._writer.isOpened():
            raise UserError(f'OpenCV cannot write an MP4 into {path.parent}: choose a directory '
                            'that you may write to, or a .gif')

    def add(self, picture, times):
        for _ in range(times):
            self._writer.write(picture[:, :, ::-1])

    def close(self, whole):
        self._writer.release()

    def written(self):
        """Return how many pictures the file holds: the writer tells of no error."""
        film = cv2.VideoCapture(str(self._path))
        try:
            return int(film.get(cv2.CAP_PROP_FRAME_COUNT))
        finally:
            film.release()


class _Gif:
    """Its pictures wait in memory, in few colours: for short films."""

    fastest = 50    # its times are hundredths of a second, and viewers take 1 for 10
    colours = 128

    def __init__(self, path, size, rate):
        self._path, self._rate, self._pictures, self._ends = path, rate, [], [0]

    def add(self, picture, times):
        self._pictures.append(Image.fromarray(picture).quantize(self.colours))
        self._ends.append(self._ends[-1] + times)

    def close(self, whole):
        if whole:
            moments = [round(100 * end / self._rate) for end in self._ends]
            first, *others = self._pictures
            first.save(self._path, format='GIF', save_all=True, append_images=others, loop=0,
                       duration=[10 * (b - a) for a, b in zip(moments, moments[1:])])

    def written(self):
        return self._ends[-1]


KINDS = {'.mp4': _Mp4, '.gif': _Gif}


def _pixels(shape):
    return f'{shape[1]}x{shape[0]}'
