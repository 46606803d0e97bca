"""What computes a model: transformers alone, our decoding on dense weights, or on packed ones."""

from dataclasses import dataclass

from owled_ros.driver.graphed import graphed_step, GraphedStep
from owled_ros.driver.stepping import language_step, LanguageStep
from owled_ros.errors import UserError
from owled_ros.sparse.linear import kernels_for, make_dense, make_sparse, packed_layers
import torch

BACKENDS = ('auto', 'dense', 'sparse', 'transformers')
PACKING_BACKENDS = ('auto', 'sparse')   # those that take a model with packed layers


@dataclass(frozen=True)
class Backend:
    """What was chosen, and why; step is None where tokens go through the model's own forward."""

    name: str
    reason: str
    step: LanguageStep | GraphedStep | None = None

    @property
    def keeps_caches(self):
        return self.name != 'transformers'


def choose_backend(model, wanted='auto'):
    """Prepare a model, in place, for one of BACKENDS; returns the Backend.

    auto measures on this computer: pruned projections are packed where an action comes earlier
    so. sparse packs them without asking. Raises UserError for
    an unknown backend, and for sparse when nothing in the model is pruned.
    """
    if wanted not in BACKENDS:
        raise UserError(f'the backend {wanted!r} is unknown; use one of {", ".join(BACKENDS)}')
    where = f'{str(model.dtype).removeprefix("torch.")} on {model.device}'
    if wanted == 'transformers':
        return Backend('transformers', f'{where}; asked for')
    chosen, why = ('dense', 'asked for') if wanted == 'dense' else _pack(model, wanted)
    step, unfit = language_step(model)
    if step is None:
        why += f"; tokens go through the model's own forward ({unfit})"
    elif model.device.type == 'cuda':
        step, failed = graphed_step(model, step)
        why += f'; no CUDA graphs ({failed})' if failed else '; single tokens as CUDA graphs'
    return Backend(chosen, f'{where}, {torch.get_num_threads()} threads; {why}', step)


def _pack(model, wanted):
    by = f'kernels: {kernels_for(model.device).name}'
    measured, failed = [], ''
    try:
        measured = make_sparse(model, measure=wanted == 'auto')
    except Exception as error:  # a driver or compiler of this computer; dense needs neither
        if wanted != 'auto':
            raise
        failed = f'packed weights failed here ({type(error).__name__}: {error}), {by}'
    if failed:
        make_dense(model)
        return 'dense', failed
    packed = packed_layers(model)
    if wanted == 'sparse':
        if not packed:
            raise UserError('the backend sparse was asked for, but no projection of the model is '
                            'pruned; use auto or dense, or calibrate the model first')
        return 'sparse', f'asked for, {len(packed)} projections packed, {by}'
    if not measured:
        return 'dense', 'nothing in the model is pruned'
    found = ', '.join(group.words() for group in measured[:8])
    more = f' and {len(measured) - 8} other shapes' if len(measured) > 8 else ''
    return ('sparse' if packed else 'dense',
            f'measured, packed against dense: {found}{more}; {len(packed)} of '
            f'{sum(group.count for group in measured)} pruned projections packed, {by}')
