"""Drives and a model in, a pruned model out: what the calibration node and the command do."""

from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

from owled_ros.bags.choosing import choose_samples, kind_of, split_held_out
from owled_ros.bags.images import to_rgb, UnreadableImage, UnsupportedEncoding
from owled_ros.bags.samples import check_bag, Drive, nothing_usable, Source
from owled_ros.driver.checkpoint import load_processor, locate
from owled_ros.driver.prompt import DrivingFormat, teacher_forced
from owled_ros.errors import UserError
from owled_ros.pruning import prune, PruningSettings
from owled_ros.pruning.shards import Shards


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to calibrate on, what to prune, and where the result goes."""

    output: Path
    model: str = 'embedded'     # or a directory, or the name of a model on the hub
    bags: tuple[Path, ...] = ()
    source: Source = field(default_factory=Source)
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
    """Prune a model on the drives of `request`; return what was done, as in owled.json.

    `progress` is told in a line what goes on; what it raises stops the work. The output appears
    when it is whole. Work that was stopped goes on where it was when the request is repeated;
    after a UserError nothing is left behind.
    """
    model_dir = check(request)
    teacher = Teacher(model_dir)
    drives = []
    for path in request.bags:
        progress(f'reading the drive in {path}')
        drives.append(Drive(path, request.source))
    moments = [moment for drive in drives for moment, _ in drive.frames()]
    if not moments:
        raise UserError(nothing_usable(drives))
    dropped = sum((drive.dropped for drive in drives), Counter())
    chosen, held_out = choose(request, moments)
    progress(f'{len(moments)} frames can be used; calibrating on {len(chosen)} of them')
    exchanges = {}
    for drive in drives:
        stamps = {m.stamp for m in chosen + held_out if m.bag == str(drive.path)}
        for sample in drive.samples(stamps):
            exchanges[sample.bag, sample.stamp] = teacher.exchange(sample)
    return prune_on(request, model_dir, chosen, held_out, exchanges, progress, {
        'bags': [path.name for path in request.bags],
        'usable_frames': len(moments), 'left_out_frames': dict(sorted(dropped.items()))})


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
            sample = moment.with_frame(to_rgb(message))
        except UnsupportedEncoding as error:
            raise UserError(f'{request.source.image_topic}: {error}') from None
        except UnreadableImage:
            continue
        moments.append(moment)
        exchanges[moment.bag, moment.stamp] = teacher.exchange(sample)
        progress(f'collected {len(moments)} of {wanted} frames')
        if len(moments) == wanted:
            break
    chosen, held_out = choose(request, moments)
    return prune_on(request, model_dir, chosen, held_out, exchanges, progress,
                    {'bags': [], 'usable_frames': len(moments)})


def choose(request, moments):
    """Part moments into those to calibrate on and, apart from them in time, those held out."""
    ours, unseen = split_held_out(moments) if request.held_out else (moments, [])
    seed = request.pruning.seed
    return choose_samples(ours, request.samples, seed), choose_samples(
        unseen, request.held_out, seed)


def prune_on(request, model_dir, chosen, held_out, exchanges, progress, describe):
    """Prune on chosen Moments, whose exchanges are given by (bag, stamp); return the report."""
    def of(moments):
        keys = ((moment.bag, moment.stamp) for moment in moments)
        return [exchanges[key] for key in keys if key in exchanges]

    source = asdict(request.source)
    kinds = Counter(kind_of(moment.action) for moment in chosen)
    describe = describe | {
        'source': source, 'kinds_of_driving': len(kinds),
        'labels': 'truth' if request.source.truth_topic else 'recorded motion'}
    return prune(model_dir, of(chosen), request.pruning, request.output,
                 held_out=of(held_out), describe=describe, progress=progress)


def check(request):
    """Find what a user can get wrong before any work is done; return the model's directory."""
    for path in request.bags:
        check_bag(path, request.source)
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
