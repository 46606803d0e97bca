#!/usr/bin/env python3
"""Trains the embedded model: first the encoder alone on dense labels, then all of it.

    python training/render_dataset.py --output DATA --scenes 106000
    python training/train.py --data DATA --output RUN

Whole-image answers alone do not teach an encoder of this size to see: in the first stage every
patch is told what is in it and how far it is, and this dense loss is kept while the language
model learns the answers. Numbers are learned against a Gaussian around the right one (HL-Gauss,
arXiv 2403.03950), so that a near miss costs less than a far one.

The learning rate rises, stays, and falls to zero over the last --decay steps; a run that was
stopped goes on from its last checkpoint, so more steps can be added to a finished run.
"""

import argparse
import json
from pathlib import Path
import threading
from queue import Queue
import time

import cv2
import numpy as np
from safetensors.torch import load_file, save_file
import torch
from torch import nn
from torch.nn import functional as F
from transformers import AttentionInterface

from embedded_model import DISTANCES, FORMAT, GRID, WIDTH, build_model, build_processor
from owled_ros.driver.action import Action, Command, EgoState, Maneuver
from owled_ros.driver.prompt import answer_tokens
from owled_ros.scenes.render import OBJECTS
from owled_ros.scenes.scene import LIGHT_STATES

IGNORE = -100
TEXT_LENGTH = 44  # tokens, prompt and answer, without the image's
OBJECT_WEIGHTS = torch.tensor([0.3, 1.0, 1.0, 0.7, 3.0, 1.5])
LIGHT_WEIGHTS = torch.tensor([0.3, 1.0, 1.5, 1.0])


class Batches:
    """Decodes shards in the background into batches of tensors, in a seeded order."""

    def __init__(self, directory, processor, batch, seed):
        self.processor, self.batch, self.seed = processor, batch, seed
        self.directory = Path(directory)
        self.queue = Queue(maxsize=24)
        threading.Thread(target=self._run, daemon=True).start()

    def next(self):
        return self.queue.get()

    def _run(self):
        random = np.random.default_rng(self.seed)
        while True:
            shards = sorted(self.directory.glob('*.npz'))  # rendering may still be going on
            for index in random.permutation(len(shards)):
                shard = dict(np.load(shards[index]))
                order = random.permutation(len(shard['ends']))
                for first in range(0, len(order) - self.batch + 1, self.batch):
                    self.queue.put(self._batch(shard, order[first:first + self.batch]))

    def _batch(self, shard, rows):
        starts = np.concatenate([[0], shard['ends'][:-1]])
        images = np.stack([cv2.imdecode(shard['jpeg'][starts[r]:shard['ends'][r]],
                                        cv2.IMREAD_COLOR)[:, :, ::-1] for r in rows])
        tokens, targets = self._tokens(shard, rows)
        return {
            'pixels': torch.from_numpy(images).permute(0, 3, 1, 2),
            'tokens': tokens, 'targets': targets,
            'objects': torch.from_numpy(shard['objects'][rows].astype(np.int64)).flatten(1),
            'distances': torch.from_numpy(shard['distances'][rows].astype(np.float32)).flatten(1),
            'lights': torch.from_numpy(shard['lights'][rows].astype(np.int64)).flatten(1),
            'light_distances': torch.from_numpy(
                shard['light_distances'][rows].astype(np.float32)).flatten(1),
            'curvature': torch.from_numpy(shard['curvature'][rows]),
        }

    def _tokens(self, shard, rows):
        """Text tokens after the image, and the targets of the answer; (batch, length) each."""
        sequences = []
        for r in rows:
            ego, command = EgoState(float(shard['speed'][r])), Command(
                speed_limit=float(shard['speed_limit'][r]))
            action = Action(float(shard['acceleration'][r]), float(shard['curvature'][r]),
                            Maneuver(int(shard['maneuver'][r])))
            prompt = FORMAT.prompt_text(ego, command).replace('{image}', '')
            asked = self.processor.tokenizer(prompt, add_special_tokens=False)['input_ids']
            answer = answer_tokens(self.processor, FORMAT, action, shard['text'][r].decode())
            sequences.append((asked, answer))
        tokens = torch.full((len(rows), TEXT_LENGTH), self.processor.tokenizer.pad_token_id)
        targets = torch.full((len(rows), TEXT_LENGTH), IGNORE)
        for i, (asked, answer) in enumerate(sequences):
            tokens[i, :len(asked) + len(answer)] = torch.tensor(asked + answer)
            targets[i, len(asked):len(asked) + len(answer)] = torch.tensor(answer)
        return tokens, targets


class DenseHeads(nn.Module):
    """What every patch shows, and where the road goes; only used in training."""

    def __init__(self):
        super().__init__()
        self.patch = nn.Linear(WIDTH, len(OBJECTS) + 1 + len(LIGHT_STATES) + 1)
        self.road = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 64), nn.GELU(),
                                  nn.Flatten(), nn.Linear(64 * GRID * GRID, 1))
        self.norm = nn.LayerNorm(WIDTH)

    def loss(self, features, batch):
        """features: (batch, patches, width)."""
        sizes = [len(OBJECTS), 1, len(LIGHT_STATES), 1]
        objects, distance, lights, light_distance = self.patch(
            self.norm(features)).float().split(sizes, -1)
        loss = F.cross_entropy(objects.flatten(0, 1), batch['objects'].flatten(), OBJECT_WEIGHTS)
        loss += F.cross_entropy(lights.flatten(0, 1), batch['lights'].flatten(), LIGHT_WEIGHTS)
        loss += 0.5 * log_distance_loss(distance, batch['distances'])
        loss += 0.5 * log_distance_loss(light_distance, batch['light_distances'])
        curvature = self.road(features).float()[:, 0]
        return loss + 5 * F.smooth_l1_loss(curvature, 50 * batch['curvature'], beta=0.1)


def log_distance_loss(answer, metres):
    seen = metres > 0
    if not seen.any():
        return answer.sum() * 0
    return F.smooth_l1_loss(answer[..., 0][seen], metres[seen].log(), beta=0.1)


def soft_targets(processor, size):
    """A row per token: itself for words, a Gaussian over its neighbours for numbers."""
    rows = torch.eye(size)
    tokens = processor.tokenizer.get_vocab()
    for numbers, width in ((FORMAT.acceleration, 1.2), (FORMAT.curvature, 1.5), (DISTANCES, 0.8)):
        ids = torch.tensor([tokens[' ' + text] for text, _ in numbers.choices()])
        index = torch.arange(len(ids), dtype=torch.float)
        weights = torch.exp(-((index[:, None] - index) / width) ** 2 / 2)
        weights[weights < 1e-3] = 0
        block = torch.zeros(len(ids), size)
        block[:, ids] = weights / weights.sum(1, keepdim=True)
        rows[ids] = block
    return rows


def answer_loss(logits, targets, soft, first_weight=3.0):
    """Cross entropy of the answer; the action's tokens, first in it, weigh more."""
    asked = targets != IGNORE
    weights = torch.where(asked.cumsum(1) <= 4, first_weight, 1.0)[asked]
    losses = -(soft[targets[asked]] * F.log_softmax(logits[asked].float(), -1)).sum(-1)
    return (losses * weights).sum() / weights.sum()


def losses(model, heads, batch, soft, with_language):
    pixels = batch['pixels'].float() / 127.5 - 1
    seen = model.model.get_image_features(pixel_values=pixels)
    dense = heads.loss(seen.hidden_states[-1], batch)
    if not with_language:
        return dense, torch.zeros(())
    image = torch.stack(list(seen.pooler_output))
    text = model.model.language_model.embed_tokens(batch['tokens'])
    hidden = model.model.language_model(
        inputs_embeds=torch.cat([image.to(text.dtype), text], 1), use_cache=False)
    predicting = hidden.last_hidden_state[:, image.shape[1] - 1:-1]
    return dense, answer_loss(model.lm_head(predicting), batch['targets'], soft)


def plain_attention(module, query, key, value, mask, scaling=None, **unused):
    """Attention as two products: on a CPU in bf16 far faster, backwards, than the fused one.

    query, key, value: (batch, heads, tokens, width); padding follows the tokens that count, so
    the causal mask is the only one that is needed.
    """
    weights = torch.matmul(query * scaling, key.transpose(2, 3))
    if module.is_causal:
        size = query.shape[2]
        weights = weights + torch.full((size, size), -1e9, dtype=weights.dtype).triu(1)
    return torch.matmul(weights.softmax(-1), value).transpose(1, 2).contiguous(), None


def speed_up(model):
    """Use `plain_attention` and compile blocks; the saved model knows nothing of it."""
    AttentionInterface.register('plain', plain_attention)
    model.set_attn_implementation('plain')
    for block in (*model.model.vision_tower.encoder.layers, *model.model.language_model.layers):
        block.compile(dynamic=False)


def learning_rate(step, arguments):
    rise = min(1.0, (step + 1) / 300)
    fall = min(1.0, (arguments.steps - step) / arguments.decay)
    return arguments.learning_rate * rise * max(fall, 0.0)


class Run:
    """Model, heads and optimizer with their step, in files that a later run can go on from."""

    def __init__(self, model, heads, optimizer, directory):
        self.model, self.heads, self.optimizer = model, heads, optimizer
        self.path = directory / 'checkpoint.safetensors'
        self.step = 0

    def parameters(self):
        yield from (('model.' + name, p) for name, p in self.model.named_parameters())
        yield from (('heads.' + name, p) for name, p in self.heads.named_parameters())

    def save(self):
        tensors = {'step': torch.tensor(self.step)}
        for name, parameter in self.parameters():
            tensors[name] = parameter.detach()
            for key, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f'{key}:{name}'] = torch.as_tensor(value)
        partial = self.path.with_suffix('.partial')
        save_file({name: value.contiguous() for name, value in tensors.items()}, partial)
        partial.rename(self.path)

    def resume(self):
        if not self.path.exists():
            return
        tensors = load_file(self.path)
        self.step = int(tensors['step'])
        for name, parameter in self.parameters():
            parameter.data.copy_(tensors[name])
            if f'exp_avg:{name}' in tensors:
                self.optimizer.state[parameter] = {
                    key: tensors[f'{key}:{name}'] for key in ('step', 'exp_avg', 'exp_avg_sq')}


def train(arguments):
    torch.manual_seed(arguments.seed)
    torch.set_num_threads(arguments.threads)
    cv2.setNumThreads(1)
    processor = build_processor()
    model, heads = build_model(processor), DenseHeads()
    speed_up(model)
    parameters = [*model.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(parameters, weight_decay=0.02, betas=(0.9, 0.98))
    run = Run(model, heads, optimizer, arguments.output)
    run.resume()
    soft = soft_targets(processor, len(processor.tokenizer))
    batches = Batches(arguments.data, processor, arguments.batch, arguments.seed + run.step)
    started, first, sums = time.monotonic(), run.step, np.zeros(2)
    log = open(arguments.output / 'log.txt', 'a')
    while run.step < arguments.steps:
        for group in optimizer.param_groups:
            group['lr'] = learning_rate(run.step, arguments)
        with torch.autocast('cpu', torch.bfloat16):
            dense, answer = losses(model, heads, batches.next(), soft,
                                   run.step >= arguments.dense_steps)
        optimizer.zero_grad(set_to_none=True)
        (arguments.dense_weight * dense + answer).backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        run.step += 1
        sums += [dense.item(), answer.item()]
        if run.step % 100 == 0:
            speed = (run.step - first) * arguments.batch / (time.monotonic() - started)
            line = (f'step {run.step} of {arguments.steps}: dense {sums[0] / 100:.4f}, answer '
                    f'{sums[1] / 100:.4f}, {speed:.0f} scenes a second')
            print(line, flush=True)
            print(line, file=log, flush=True)
            sums[:] = 0
        if run.step % 200 == 0:
            run.save()
    run.save()
    return model, processor


def write_model(model, processor, directory):
    """Write what `from_pretrained` loads: weights as fp16 safetensors."""
    model.half().save_pretrained(directory)
    processor.save_pretrained(directory)
    FORMAT.write(directory)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--data', type=Path, required=True)
    parser.add_argument('--output', type=Path, required=True)
    parser.add_argument('--steps', type=int, default=7_200)
    parser.add_argument('--dense-steps', type=int, default=2_000)
    parser.add_argument('--decay', type=int, default=2_600)
    parser.add_argument('--batch', type=int, default=32)
    parser.add_argument('--learning-rate', type=float, default=8e-4)
    parser.add_argument('--dense-weight', type=float, default=1.0)
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument('--seed', type=int, default=0)
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    settings = {name: str(value) for name, value in sorted(vars(arguments).items())
                if name not in ('data', 'output')}
    (arguments.output / 'settings.json').write_text(json.dumps(settings, indent=2) + '\n')
    model, processor = train(arguments)
    write_model(model, processor, arguments.output / 'model')


if __name__ == '__main__':
    main()
