"""
Whole models on this computer: dense, packed, and through transformers alone, turn by turn.

A model of a directory decides on a frame and goes on to explain it. Of a size there is the language
model alone, with random weights: it is given a prompt of text tokens and goes on from there.
"""

from collections.abc import Callable
import copy
from dataclasses import dataclass
from pathlib import Path
import re

from owled_ros.driver.action import EgoState
from owled_ros.driver.backend import choose_backend
from owled_ros.driver.decoding import Decoder
from owled_ros.driver.driver import Driver
from owled_ros.driver.stepping import CachePool, language_step, SteppedDecoder
from owled_ros.errors import UserError
from owled_ros.sparse.linear import make_sparse, packed_bytes, pruned_linears, SparseLinear
from owled_ros.sparse.sizes import Shape, SPARSITIES
from owled_ros.sparse.timing import Contestant, copying, in_turn, rotation_bytes, Times
import torch
from torch import nn

TOKENS = 8              # timed one after the other in each round
PROMPT_TOKENS = 128     # of a size's language model
NEXT = 1                # any token: what the model would say may be the end
SPEED = 8.0             # m/s that the frame is decided on with


@dataclass(frozen=True)
class Entrant:
    """
    A model that takes part, and how it computes.

    :param what: transformers, dense or sparse
    :param first: what is done once: the prompt, or all up to the action
    :param token: decodes one token after it
    :param prepare: called between the two, and not timed
    :param products: the products of a token alone
    """

    what: str
    model: nn.Module
    first: Callable[[], object]
    token: Callable[[], object]
    prepare: Callable[[], object] | None = None
    products: Callable[[], object] | None = None

    @property
    def type(self) -> str:
        """Return the type that it computes in."""
        return str(self.model.dtype).removeprefix('torch.')

    @property
    def sparsity(self) -> float:
        """Return the share of the packed weights that is zero, of all of them together."""
        packed = [layer.packed for layer in self.model.modules()
                  if isinstance(layer, SparseLinear)]
        weights = sum(weight.rows * weight.columns for weight in packed)
        return 1 - sum(weight.count for weight in packed) / weights if packed else 0.0

    @property
    def name(self) -> str:
        """Return what tells it from the others."""
        return f'{self.what} {self.type} {self.sparsity:.4f}'


def weight_bytes(model: nn.Module) -> int:
    """Return what the weights of a model take in memory, packed ones included."""
    return sum(parameter.nbytes for parameter in model.parameters()) + packed_bytes(model)


def token_bytes(model: nn.Module) -> int:
    """Return how many bytes of weights a token reads: the language model's, and the head's."""
    decoder = model.get_decoder()
    embeddings = {id(module.weight) for module in decoder.modules()
                  if isinstance(module, nn.Embedding)}
    read = {id(parameter): parameter.nbytes for parameter in decoder.parameters()
            if id(parameter) not in embeddings}
    head = model.get_output_embeddings()
    read |= {id(parameter): parameter.nbytes for parameter in head.parameters()}
    return sum(read.values()) + packed_bytes(decoder) + packed_bytes(head)


# -- measuring -----------------------------------------------------------------------------------

def measure(entrants: list[Entrant], *, rounds: int, device, tokens: int = TOKENS) -> list[dict]:
    """
    Time entrants in turn, with a copy beside them.

    :return: a row for each; ratios are to the fastest dense one
    """
    device = torch.device(device)
    copied = copying(rotation_bytes(device), device)
    contestants = [copied]
    for entrant in entrants:
        contestants += [Contestant(f'{entrant.name} first', [entrant.first]),
                        Contestant(f'{entrant.name} token', [entrant.token] * tokens,
                                   prepare=entrant.prepare)]
        if entrant.products is not None:
            contestants.append(Contestant(f'{entrant.name} products', [entrant.products] * tokens))
    times = in_turn(contestants, rounds, device)
    speed = copied.bytes / 1e9 / times.median('copy')
    dense = {entrant.name: entrant for entrant in entrants if entrant.what == 'dense'}
    best = {part: min(dense, key=lambda name: times.median(f'{name} {part}'))
            for part in ('first', 'token')}
    read = token_bytes(dense[best['token']].model)
    return [_row(entrant, times, best, read, speed) for entrant in entrants]


def _row(entrant: Entrant, times: Times, best: dict[str, str], dense_bytes: int,
         copy_speed: float) -> dict:
    row: dict = {
        'what': entrant.what, 'type': entrant.type, 'sparsity': entrant.sparsity,
        'weight_bytes': weight_bytes(entrant.model), 'token_bytes': token_bytes(entrant.model)}
    for part, against in best.items():
        name = f'{entrant.name} {part}'
        measured = {f'seconds_{part}': times.spread(name),
                    f'times_dense_{part}': times.ratio(f'{against} {part}', name)}
        for key, (middle, low, high) in measured.items():
            row |= {key: middle, f'{key}_low': low, f'{key}_high': high}
    row['gb_per_s'] = row['token_bytes'] / row['seconds_token'] / 1e9
    row['of_copy'] = row['gb_per_s'] / copy_speed
    row['limit'] = dense_bytes / row['token_bytes']
    row['of_limit'] = row['times_dense_token'] / row['limit']
    if entrant.products is not None:
        row['explained'] = 1 / times.ratio(f'{entrant.name} token', f'{entrant.name} products')[0]
    return row


def free_bytes(device: torch.device) -> int | None:
    """Return how much memory a device has free, None where the system does not tell."""
    if device.type == 'cuda':
        return torch.cuda.mem_get_info(device)[0]
    try:
        found = re.search(r'^MemAvailable: +(\d+) kB', Path('/proc/meminfo').read_text(), re.M)
    except OSError:
        return None
    return int(found[1]) << 10 if found else None


def room_lacking(needed: int, device: torch.device) -> str:
    """Say that so many bytes are not free; '' where they are."""
    free = free_bytes(device)
    if free is None or needed <= free:
        return ''
    return f'it takes about {needed / 1e9:.1f} GB of memory, {free / 1e9:.1f} GB are free'


# -- the language model of a size ----------------------------------------------------------------

def random_model(shape: Shape, dtype=torch.bfloat16) -> nn.Module:
    """Make a language model of random weights; its head is tied to its embedding."""
    from transformers import Qwen2Config, Qwen2ForCausalLM
    config = Qwen2Config(
        vocab_size=shape.vocabulary, hidden_size=shape.hidden, num_hidden_layers=shape.layers,
        intermediate_size=shape.intermediate, num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_heads, head_dim=shape.head_size, tie_word_embeddings=True,
        dtype=dtype)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        return Qwen2ForCausalLM(config).eval()
    finally:
        torch.set_default_dtype(before)


@torch.no_grad()
def cut(model: nn.Module, share: float) -> None:
    """Set a share of what each projection has to zero, anywhere, in place."""
    for module in model.get_decoder().modules():
        if isinstance(module, nn.Linear):
            module.weight *= torch.rand(module.weight.shape, device=module.weight.device) >= share


def packed_copy(model: nn.Module) -> nn.Module:
    """Return a model with packed projections that shares all else with one that stays dense."""
    shared = copy.deepcopy(model, {id(parameter): parameter for parameter in model.parameters()})
    make_sparse(shared)
    return shared


def require_room(shape: Shape, device: torch.device, sparsities=SPARSITIES) -> None:
    """Raise UserError when the memory does not hold a model dense, and packed at each sparsity."""
    weights = shape.layers * shape.layer_weights()
    shares = [1 - sparsity + 1 / 16 for sparsity in sparsities]
    # Packed weights are copied once, into huge pages.
    needed = 2 * (shape.vocabulary * shape.hidden + weights * (1 + sum(shares) + max(shares)))
    lacking = room_lacking(int(needed), device)
    if lacking:
        raise UserError(f'the model cannot be measured whole: {lacking}; measure some of its '
                        f'{shape.layers} layers with --layers')


def bench_model(shape: Shape, *, device, rounds: int, sparsities=SPARSITIES, dtype=torch.bfloat16,
                tokens: int = TOKENS, prompt: int = PROMPT_TOKENS) -> list[dict]:
    """
    Time the language model of a size: its prompt, and a token.

    `explained` is the share of a packed token's time that its products alone take: the packed
    projections, each timed in the order of the model, and the dense head.

    :return: rows of `measure`: through transformers, dense, and packed at each sparsity
    """
    device = torch.device(device)
    dense = random_model(shape, dtype).to(device)
    ids = {'input_ids': torch.randint(0, shape.vocabulary, (1, prompt), device=device)}
    packed, cut_before = [], 0.0
    for sparsity in sorted(sparsities):     # each goes on from what the one before left
        cut(dense, (sparsity - cut_before) / (1 - cut_before))
        cut_before = sparsity
        packed.append(packed_copy(dense))
    with torch.inference_mode():
        entrants = [_language(dense, ids, 'transformers', Decoder(dense, ids)),
                    _language(dense, ids, 'dense', _stepped(dense, ids))]
        entrants += [_language(model, ids, 'sparse', _stepped(model, ids),
                               products=_products(model, device)) for model in packed]
    return measure(entrants, rounds=rounds, device=device, tokens=tokens)


def _stepped(model, ids) -> SteppedDecoder:
    return SteppedDecoder(model, ids, CachePool(), language_step(model)[0])


def _language(model, ids, what, decoder, products=None) -> Entrant:
    def first():
        model(**ids, use_cache=True, logits_to_keep=1)
    return Entrant(what, model, first, lambda: _decode_next(decoder), products=products)


def _decode_next(decoder) -> None:
    decoder.feed([NEXT])
    decoder.next_logits()


def _products(model, device) -> Callable[[], object]:
    """Return a call that runs a model's products alone, in their order."""
    layers = [module for module in model.modules() if isinstance(module, SparseLinear)]
    inputs = {layer.in_features: torch.randn(1, layer.in_features, device=device,
                                             dtype=model.dtype) for layer in layers}
    hidden = torch.randn(1, model.lm_head.in_features, device=device, dtype=model.dtype)

    def run():
        for layer in layers:
            layer(inputs[layer.in_features])
        model.lm_head(hidden)
    return run


# -- a model directory ---------------------------------------------------------------------------

def bench_directory(model, *, device, rounds: int, types) -> tuple[list[dict], list[dict]]:
    """
    Time a model as a driver: a frame to its action, and a token of the explanation.

    Dense and packed in each of the types; through transformers in the first.

    :param types: of torch
    :return: rows of `measure`, and what did not take part and why
    :raises UserError: when the model cannot be used
    """
    drivers, absent = [], []
    for dtype in types:
        name = str(dtype).removeprefix('torch.')
        lacking = _lacking(drivers[0].model, dtype, device) if drivers else ''
        if lacking:
            absent.append({'what': f'dense and sparse {name}', 'why': lacking})
            continue
        drivers += _drivers(model, device, name, with_transformers=not drivers)
        if drivers[-1].backend != 'sparse':
            absent.append({'what': f'sparse {name}', 'why': 'no projection of the model is '
                           'pruned'})
    frame = _frame()
    return measure([_deciding(driver, frame) for driver in drivers], rounds=rounds,
                   device=device), absent


def _lacking(loaded, dtype, device) -> str:
    """Say that a loaded model does not fit a second time in another type; '' where it does."""
    # Dense, and dense once more while the other is being packed.
    needed = 2 * weight_bytes(loaded) * dtype.itemsize // loaded.dtype.itemsize
    return room_lacking(needed, torch.device(device))


def _drivers(model, device, dtype, with_transformers) -> list[Driver]:
    """Load a model dense and, if it is pruned, packed."""
    dense = Driver.load(model, device=device, dtype=dtype, backend='dense')
    drivers = [dense]
    if with_transformers:
        alone = Driver(dense.model, dense.processor, dense.format,
                       backend=choose_backend(dense.model, 'transformers'))
        alone.prepare()
        drivers.insert(0, alone)
    if pruned_linears(dense.model):
        drivers.append(Driver.load(model, device=device, dtype=dtype, backend='sparse'))
    return drivers


def _frame():
    from owled_ros.scenes.render import render
    from owled_ros.scenes.sampling import held_out_seeds, random_scene
    return render(random_scene(held_out_seeds(1)[0]))


def _deciding(driver: Driver, frame) -> Entrant:
    decoders = []

    def first():
        decoders[:] = [driver.decide(frame, EgoState(SPEED))._decoder]
    # The fixed text between the action and the explanation goes through before tokens are timed.
    return Entrant(driver.backend, driver.model, first, lambda: _decode_next(decoders[0]),
                   prepare=lambda: decoders[0].next_logits())
