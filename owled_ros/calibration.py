"""The work of the calibration node and of the command: samples and a model in, a pruned model out.

The samples are those of drives, texts or images.
"""

from collections import Counter
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
import shlex

from owled_ros.bags.choosing import account_of, choose_samples, split_held_out
from owled_ros.bags.images import UnsupportedEncoding
from owled_ros.bags.samples import check_bag, Drive, nothing_usable, sample_of, Source
from owled_ros.corpora import check_sources, Gathered, PROMPT, read_images, read_texts, TOKENS
from owled_ros.driver.checkpoint import load_processor, locate
from owled_ros.driver.prompt import DrivingFormat, teacher_forced
from owled_ros.errors import UserError
from owled_ros.pruning import prune, PruningSettings
from owled_ros.pruning.shards import Shards


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to calibrate on, what to prune, and where the result goes.

    Bags, texts and images may be given together: each kind of them gives the same number of
    samples.
    """

    output: Path
    model: str = 'embedded'     # or a directory, or the name of a model on the hub
    bags: tuple[Path, ...] = ()
    source: Source = field(default_factory=Source)
    texts: tuple[Path, ...] = ()
    tokens: int = TOKENS        # of a piece of text
    images: Path | None = None  # a folder
    prompt: str = PROMPT        # about an image
    pruning: PruningSettings = field(default_factory=PruningSettings)
    samples: int = 64           # to calibrate on
    held_out: int = 16          # to measure the losses on

    def __post_init__(self):
        for name, least in (('samples', self.pruning.minimum_samples), ('held_out', 0)):
            if getattr(self, name) < least:
                raise UserError(f'{name} is {getattr(self, name)}; it must be at least {least}')


class Teacher:
    """Turns samples into what a model reads when it is shown the recorded answer."""

    def __init__(self, model_dir):
        """Load a model directory's processor; raises UserError where it has none."""
        self.format = DrivingFormat.of_model(model_dir)
        self.processor = load_processor(model_dir)

    def exchange(self, sample):
        """Return the tensors (batch 1) of the prompt and the answer of a Sample."""
        return teacher_forced(self.processor, self.format, sample.frame, sample.ego,
                              sample.command, sample.action, sample.explanation)


def calibrate(request, progress=print):
    """Prune a model on what `request` names; return what was done, as in owled.json.

    `progress` is told in a line what goes on; what it raises stops the work. The output appears
    when it is whole. Work that was stopped goes on where it was when the request is repeated;
    after a UserError nothing is left behind.
    """
    model_dir = check(request)
    readers = [read for given, read in ((request.bags, gather_drives),
                                        (request.texts, gather_texts),
                                        (request.images, gather_images)) if given]
    if not readers:
        raise UserError('there is nothing to calibrate on; name bags, text files or a folder of '
                        'images')
    if readers == [gather_texts]:
        check_texts_reach(request, model_dir)
    parts = zip(readers, evenly(request.samples, len(readers)),
                evenly(request.held_out, len(readers)))
    gathered = [read(request, model_dir, samples, held_out, progress)
                for read, samples, held_out in parts]
    return prune_on(request, model_dir, gathered, progress, {'command': command_of(request)})


def calibrate_live(request, pairs, progress=print):
    """Like `calibrate`, on a drive that is happening.

    pairs: yields (Moment, image message), see bags/live.py, for as long as it is asked to.
    """
    model_dir = check(request)
    teacher = Teacher(model_dir)
    wanted = request.samples + request.held_out
    moments, exchanges = [], {}
    progress(f'collecting {wanted} frames')
    for moment, message in pairs:
        try:
            sample = sample_of(moment, message, request.source)
        except UnsupportedEncoding as error:  # the next frame is no better
            raise UserError(f'{request.source.image_topic}: {error}') from None
        except UserError as error:
            progress(f'left out a frame because {error}')
            continue
        moments.append(moment)
        exchanges[moment.bag, moment.stamp] = teacher.exchange(sample)
        progress(f'collected {len(moments)} of {wanted} frames')
        if len(moments) == wanted:
            break
    chosen, held_out = choose(moments, request.samples, request.held_out, request.pruning.seed)
    drive = of_drives(request, moments, chosen, held_out, exchanges, {'kind': 'live drive'})
    return prune_on(request, model_dir, [drive], progress, {})


def check_texts_reach(request, model_dir):
    """Raise UserError where texts alone are to prune what only images go through."""
    blind = set(request.pruning.pruned_components) - {'language', 'head'}
    if blind and getattr(load_processor(model_dir), 'image_processor', None) is not None:
        raise UserError(f'texts do not reach the {" and the ".join(sorted(blind))} of the model '
                        f'in {model_dir}; give images or bags too, or choose the components '
                        'language')


def evenly(count, parts):
    """Share a number out among parts: the first get what is left over."""
    return [count // parts + (part < count % parts) for part in range(parts)]


def gather_drives(request, model_dir, samples, held_out, progress):
    """Choose frames of the bags, and turn them into what the model is shown."""
    teacher = Teacher(model_dir)
    drives = []
    for path in request.bags:
        progress(f'reading the drive in {path}')
        drives.append(Drive(path, request.source))
    moments = [moment for drive in drives for moment, _ in drive.frames()]
    if not moments:
        raise UserError(nothing_usable(drives))
    dropped = sum((drive.dropped for drive in drives), Counter())
    chosen, unseen = choose(moments, samples, held_out, request.pruning.seed)
    progress(f'{len(moments)} frames can be used; calibrating on {len(chosen)} of them')
    exchanges = {}
    for drive in drives:
        stamps = {m.stamp for m in chosen + unseen if m.bag == str(drive.path)}
        for sample in drive.samples(stamps):
            exchanges[sample.bag, sample.stamp] = teacher.exchange(sample)
    return of_drives(request, moments, chosen, unseen, exchanges, {
        'kind': 'bags', 'names': [Path(path).name for path in request.bags],
        'left_out': dict(sorted(dropped.items()))})


def gather_texts(request, model_dir, samples, held_out, progress):
    """Choose pieces of the text files."""
    progress(f'reading {len(request.texts)} text files')
    return read_texts(model_dir, request.texts, samples=samples, held_out=held_out,
                      tokens=request.tokens, seed=request.pruning.seed)


def gather_images(request, model_dir, samples, held_out, progress):
    """Choose images of the folder."""
    progress(f'reading the images in {request.images}')
    return read_images(model_dir, request.images, samples=samples, held_out=held_out,
                       prompt=request.prompt, seed=request.pruning.seed)


def choose(moments, samples, held_out, seed):
    """Part moments into those to calibrate on and, apart from them in time, those held out."""
    ours, unseen = split_held_out(moments) if held_out else (moments, [])
    return choose_samples(ours, samples, seed), choose_samples(unseen, held_out, seed)


def of_drives(request, moments, chosen, held_out, exchanges, source):
    """Return chosen Moments, whose exchanges are given by (bag, stamp), as Gathered."""
    chosen, held_out = ([m for m in group if (m.bag, m.stamp) in exchanges]
                        for group in (chosen, held_out))    # others could not be decoded
    source = source | {
        'usable': len(moments), 'calibration': len(chosen), 'held_out': len(held_out),
        'topics': asdict(request.source),
        'labels': 'truth' if request.source.truth_topic else 'recorded motion',
        **account_of(moments, chosen, held_out)}
    return Gathered([exchanges[m.bag, m.stamp] for m in chosen],
                    [exchanges[m.bag, m.stamp] for m in held_out], source)


def prune_on(request, model_dir, gathered, progress, describe):
    """Prune on what was gathered; return the report."""
    return prune(model_dir, [sample for part in gathered for sample in part.inputs],
                 request.pruning, request.output,
                 held_out=[sample for part in gathered for sample in part.held_out],
                 describe={**describe, 'sources': [part.source for part in gathered]},
                 progress=progress)


def check(request):
    """Find what a user can get wrong before any work is done; return the model's directory."""
    for path in request.bags:
        check_bag(path, request.source)
    check_sources(request.texts, request.images)
    output = Path(request.output)
    occupied = output.exists() and (not output.is_dir() or any(output.iterdir()))
    # An earlier result is for `prune` to judge: of the very same request it is the answer.
    if occupied and not (output / 'owled.json').is_file():
        raise UserError(f'the output {output} already holds something; choose another place or '
                        'remove it')
    if not output.absolute().parent.is_dir():
        raise UserError(f'there is no directory {output.absolute().parent} to put the output in')
    model_dir = locate(request.model)
    Shards(model_dir)  # raises where the weights cannot be read
    return model_dir


def command_of(request):
    """Return the command that does the same again, without what is as by default.

    The output is OUTPUT, so that the bytes of a report do not depend on where it lies.
    """
    words = ['owled', 'calibrate', *map(str, request.bags)]
    for values, names in ((request, ('model', 'texts', 'tokens', 'images', 'prompt')),
                          (request.source, [f.name for f in fields(Source)]),
                          (request.pruning, request.pruning.record()),
                          (request, ('samples', 'held_out'))):
        defaults = {f.name: f.default for f in fields(values)}
        for name in names:
            if getattr(values, name) != defaults[name]:
                words += option(name, getattr(values, name))
    return shlex.join([*words, '--output', 'OUTPUT'])


def option(name, value):
    """Return a setting as words of the command line."""
    flag = '--' + {'texts': 'text'}.get(name, name).replace('_', '-')
    if value is True:
        return [flag]
    if isinstance(value, dict):
        return [word for key, share in value.items() for word in (flag, f'{key}={share}')]
    if name == 'texts':
        return [flag, *map(str, value)]
    if isinstance(value, tuple):
        return [word for item in value for word in (flag, item)]
    return [flag, str(value)]
