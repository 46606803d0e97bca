#!/usr/bin/env python3
"""Trains the embedded model: first the encoder alone on dense labels, then all of it.

    python training/train.py --data DATA --output RUN --render 2

Whole-image answers alone do not teach an encoder of this size to see: in the first stage every
patch is told what is in it and how far it is, and this dense loss is kept while the language
model learns the answers. Numbers are learned against a Gaussian around the right one (HL-Gauss,
arXiv 2403.03950), so that a near miss costs less than a far one.

With --render N the scenes are rendered by N other processes while it trains; else DATA is what
render_dataset.py wrote. It uses a GPU where there is one. Which scenes are in which batch depends
on the seed and the step alone; a run that was stopped goes on from its last checkpoint, so more
steps can be added to a finished run. The learning rate rises, stays, and falls to zero over the
last --decay steps.
"""

import argparse
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
import json
from multiprocessing import get_context
import os
from pathlib import Path
import time

import cv2
from embedded_model import build_model, build_processor, DISTANCES, FORMAT, GRID, WIDTH
import numpy as np
from owled_ros.scenes.mixture import Mixture
from owled_ros.scenes.pool import settle
from owled_ros.scenes.render import OBJECTS
from owled_ros.scenes.scene import LIGHT_STATES
from render_dataset import render_dataset, SHARD, shard_path, TEXT_LENGTH
from safetensors.torch import load_file, save_file
import torch
from torch import nn
from torch.nn import functional as F
from transformers import AttentionInterface

IGNORE = -100
AHEAD = 6         # batches that are decoded while others are learned from
PATIENCE = 600.0  # s to wait for a shard that is being rendered
OBJECT_WEIGHTS = torch.tensor([0.3, 1.0, 1.0, 0.7, 3.0, 1.5])
LIGHT_WEIGHTS = torch.tensor([0.3, 1.0, 1.5, 1.0])


class Batches:
    """The batch of every step: decided by seed and step alone, decoded ahead by threads.

    The first pass takes the shards in the order in which they are rendered, and waits for them;
    later passes in an order of their own.
    """

    def __init__(self, directory, scenes, batch, seed, threads):
        self.directory, self.batch, self.seed = directory, batch, seed
        self.shards = -(-scenes // SHARD)
        self.per_shard = SHARD // batch
        self.decoders = ThreadPoolExecutor(threads)
        self.load = lru_cache(maxsize=2)(self._load)

    def from_step(self, step):
        """Yield the batches from a step on, without an end."""
        ahead = []
        while True:
            while len(ahead) < AHEAD:
                ahead.append(self._start(step + len(ahead)))
            columns, pictures = ahead.pop(0)
            step += 1
            yield {**columns, 'pixels': torch.from_numpy(np.stack(
                [picture.result() for picture in pictures])).permute(0, 3, 1, 2)}

    def place(self, step):
        """Return the number of the shard and its rows that make a step's batch."""
        sweep, within = divmod(step, self.shards * self.per_shard)
        position, part = divmod(within, self.per_shard)
        order = np.arange(self.shards)
        if sweep:
            np.random.default_rng((self.seed, sweep)).shuffle(order)
        number = int(order[position])
        rows = np.random.default_rng((self.seed, sweep, number)).permutation(SHARD)
        return number, rows[part * self.batch:(part + 1) * self.batch]

    def _start(self, step):
        """Return a batch's columns, and the futures of its pictures."""
        number, rows = self.place(step)
        shard = self.load(number)
        starts = np.concatenate([[0], shard['ends'][:-1]])
        pictures = [self.decoders.submit(decode, shard['jpeg'][starts[r]:shard['ends'][r]])
                    for r in rows]
        tokens = torch.from_numpy(shard['tokens'][rows].astype(np.int64))
        place = torch.arange(TEXT_LENGTH)
        answered = (place >= torch.from_numpy(shard['asked'][rows].astype(np.int64))[:, None]) & (
            tokens != 0)
        flat = {name: torch.from_numpy(shard[name][rows]).flatten(1)
                for name in ('objects', 'lights', 'distances', 'light_distances')}
        return {'tokens': tokens, 'targets': torch.where(answered, tokens, IGNORE),
                'curvature': torch.from_numpy(shard['curvature'][rows]),
                'objects': flat['objects'].long(), 'lights': flat['lights'].long(),
                'distances': flat['distances'].float(),
                'light_distances': flat['light_distances'].float()}, pictures

    def _load(self, number):
        path, end = shard_path(self.directory, number), time.monotonic() + PATIENCE
        while not path.exists():
            if time.monotonic() > end:
                raise SystemExit(f'{path} does not come; is anything rendering it (--render)?')
            time.sleep(0.5)
        return dict(np.load(path))


def decode(jpeg):
    return cv2.cvtColor(cv2.imdecode(jpeg, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


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
        loss = F.cross_entropy(objects.flatten(0, 1), batch['objects'].flatten(),
                               OBJECT_WEIGHTS.to(features.device))
        loss += F.cross_entropy(lights.flatten(0, 1), batch['lights'].flatten(),
                                LIGHT_WEIGHTS.to(features.device))
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
    """Return a row per token: itself for words, a Gaussian over its neighbours for numbers."""
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
    dense = heads.loss(seen.last_hidden_state[:, 1:], batch)  # without the class token
    if not with_language:
        return dense, torch.zeros((), device=pixels.device)
    image = seen.pooler_output
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
    """On a CPU use `plain_attention` and compile blocks; the saved model knows nothing of it."""
    AttentionInterface.register('plain', plain_attention)
    model.set_attn_implementation('plain')
    for block in (*model.model.vision_tower.encoder.layer, *model.model.language_model.layers):
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
                    'step': tensors[f'step:{name}'],  # stays on the CPU, as AdamW has it
                    **{key: tensors[f'{key}:{name}'].to(parameter.device)
                       for key in ('exp_avg', 'exp_avg_sq')}}


def train(arguments):
    torch.manual_seed(arguments.seed)
    torch.set_num_threads(arguments.threads)
    cv2.setNumThreads(1)
    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    processor = build_processor()
    model, heads = build_model(processor, arguments.share).to(device), DenseHeads().to(device)
    if device.type == 'cpu':
        speed_up(model)
    parameters = [*model.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(parameters, weight_decay=0.02, betas=(0.9, 0.98))
    run = Run(model, heads, optimizer, arguments.output)
    run.resume()
    soft = soft_targets(processor, len(processor.tokenizer)).to(device)
    batches = Batches(arguments.data, arguments.scenes, arguments.batch, arguments.seed,
                      arguments.threads).from_step(run.step)
    journal = Journal(arguments, run.step)
    while run.step < arguments.steps:
        for group in optimizer.param_groups:
            group['lr'] = learning_rate(run.step, arguments)
        batch = {name: value.to(device, non_blocking=True)
                 for name, value in next(batches).items()}
        with torch.autocast(device.type, torch.bfloat16):
            dense, answer = losses(model, heads, batch, soft, run.step >= arguments.dense_steps)
        optimizer.zero_grad(set_to_none=True)
        (arguments.dense_weight * dense + answer).backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        run.step += 1
        journal.add(run.step, dense.detach(), answer.detach())
        if run.step % arguments.save_every == 0:
            run.save()
    run.save()
    return model.cpu(), processor


class Journal:
    """Prints and appends to log.txt the mean losses of every hundred steps."""

    def __init__(self, arguments, step):
        self.arguments, self.first, self.started = arguments, step, time.monotonic()
        self.losses = []

    def add(self, step, dense, answer):
        self.losses.append((dense, answer))  # read only every hundred steps: that waits for a GPU
        if step % 100:
            return
        arguments = self.arguments
        dense, answer = (float(torch.stack(values).mean()) for values in zip(*self.losses))
        speed = (step - self.first) * arguments.batch / (time.monotonic() - self.started)
        line = (f'step {step} of {arguments.steps}: dense {dense:.4f}, answer {answer:.4f}, '
                f'{speed:.0f} scenes a second')
        print(line, flush=True)
        with open(arguments.output / 'log.txt', 'a') as log:
            print(line, file=log)
        self.losses.clear()


def write_model(model, processor, directory):
    """Write what `from_pretrained` loads: weights as fp16 safetensors."""
    model.half().save_pretrained(directory)
    processor.save_pretrained(directory)
    FORMAT.write(directory)


def render_meanwhile(*request):
    """Render in a process of its own, which ends with the training."""
    settle()
    render_dataset(*request)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0],
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument('--data', type=Path, required=True)
    parser.add_argument('--output', type=Path, required=True)
    parser.add_argument('--scenes', type=int, default=200_000, help='how many different ones')
    parser.add_argument('--render', type=int, default=0, help='processes that render meanwhile')
    parser.add_argument('--mixture', type=Mixture.parse, default=Mixture(),
                        help='goes with --render: see render_dataset.py')
    parser.add_argument('--steps', type=int, default=14_000)
    parser.add_argument('--dense-steps', type=int, default=3_000)
    parser.add_argument('--decay', type=int, default=5_000)
    parser.add_argument('--batch', type=int, default=32)
    parser.add_argument('--learning-rate', type=float, default=8e-4)
    parser.add_argument('--dense-weight', type=float, default=1.0)
    parser.add_argument('--share', type=float, default=1.0, help='of the layers; 0.5: the half')
    parser.add_argument('--save-every', type=int, default=500, help='steps')
    parser.add_argument('--threads', type=int, default=os.cpu_count())
    parser.add_argument('--seed', type=int, default=0)
    return parser.parse_args()


def main():
    arguments = parse_arguments()
    arguments.output.mkdir(parents=True, exist_ok=True)
    settings = {name: str(value) for name, value in sorted(vars(arguments).items())
                if name not in ('data', 'output', 'render', 'threads')}
    (arguments.output / 'settings.json').write_text(json.dumps(settings, indent=2) + '\n')
    renderer = get_context('spawn').Process(target=render_meanwhile, args=(
        arguments.data, arguments.scenes, arguments.mixture, arguments.render))
    if arguments.render:
        renderer.start()
    try:
        model, processor = train(arguments)
    finally:
        if arguments.render:
            renderer.terminate()
    write_model(model, processor, arguments.output / 'model')


if __name__ == '__main__':
    main()
