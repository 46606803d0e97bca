"""What all prompts begin with (text before the image, as a system prompt), computed once.

Keys and values of a token depend on the tokens before it alone, in models whose attention is causal
and whose positions count tokens. Which models are such is written down here: where the numbers are
rounded to 16 bits a trial would not always tell. It is tried nevertheless.
"""

from dataclasses import dataclass

from owled_ros.driver.stepping import check_same, KeptLayer, SteppedDecoder
import torch
from transformers.cache_utils import Cache

WORTH_KEEPING = 8   # tokens
CAUSAL = ('idefics3', 'internvl', 'llava', 'llava_onevision', 'smolvlm')


@dataclass(frozen=True)
class Beginning:
    """Tokens (tokens,), and their (keys, values) in every layer, (1, heads, tokens, head size)."""

    tokens: torch.Tensor
    states: list[tuple[torch.Tensor, torch.Tensor]]

    def begins(self, ids):
        """Return whether ids (1, length) begin with it, and go on."""
        count = len(self.tokens)
        return ids.shape[1] > count and torch.equal(ids[0, :count], self.tokens)


def common_tokens(prompts, image):
    """Return what several ids (1, length) begin with, up to the image's token."""
    columns = zip(*(ids[0].tolist() for ids in prompts))
    common = []
    for first, *others in columns:
        if first == image or any(token != first for token in others):
            break
        common.append(first)
    return common


@torch.inference_mode()
def keep_beginning(model, prompts, image, caches, step):
    """Let `caches` begin with what prompts have in common; return how many tokens that are.

    prompts: inputs of the model, batch 1, of which the last is tried; image: the image's token.
    0 where it is not worth it, and where the model would compute something else then.
    """
    if model.config.model_type not in CAUSAL:
        return 0
    tokens = common_tokens([inputs['input_ids'] for inputs in prompts], image)
    if len(tokens) < WORTH_KEEPING:
        return 0
    expected = SteppedDecoder(model, prompts[-1], caches, step).next_logits()
    try:
        caches.begin_with(_computed(model, tokens))
        check_same(SteppedDecoder(model, prompts[-1], caches, step).next_logits(), expected)
    except Exception:   # of a model that cannot be asked so; it drives without
        caches.begin_with(None)
        return 0
    return len(tokens)


def _computed(model, tokens):
    ids = torch.tensor([tokens], device=model.device)
    cache = Cache(layer_class_to_replicate=KeptLayer)
    model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
    return Beginning(ids[0], [(layer.keys.clone(), layer.values.clone())
                              for layer in cache.layers])
