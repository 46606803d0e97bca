#!/usr/bin/env python3
"""From a frame to its action: our decoding against transformers' generate, and what the node adds.

    benchmarks/latency.py --json latency.json      # on a quiet machine, some minutes
    benchmarks/latency.py --quick                  # the embedded model only, few rounds

The same dense weights on both sides; the frame's preprocessing counts on both sides. Beside it the
same model with half of its weights pruned and packed: prefill is bound by arithmetic, so that
little is gained there. The node is asked with a JPEG of 1280 x 720 over DDS; the bare call that
it is compared with decodes the same JPEG.
"""

import argparse
import copy
import json
import os
from pathlib import Path
import random
import re
import statistics
import subprocess
import sys
import time

import cv2
import numpy as np
from owled_ros.driver.action import Command, EgoState
from owled_ros.driver.backend import choose_backend
from owled_ros.driver.checkpoint import load_model, load_processor, locate
from owled_ros.driver.driver import Driver
from owled_ros.driver.prompt import answer_tokens, DrivingFormat, prompt_inputs
from owled_ros.scenes.render import render
from owled_ros.scenes.sampling import held_out_seeds, random_scene
from owled_ros.sparse.timing import Contestant, in_turn
from tokenizers import decoders, models, pre_tokenizers, Regex, Tokenizer
import torch
from transformers import (
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    SiglipVisionConfig,
)
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

EGO = EgoState(8.0)
PIXELS, PATCH = 192, 16     # of the 0.25B model's picture, which is square
STOPPED_AFTER_ACTION, WHOLE_ANSWER = 1.5, 4.0      # bars: times earlier
NODE_SHARE, NODE_SECONDS, DROPPED_SECONDS = 0.05, 0.003, 0.001
PATIENCE = 120.0    # s, for the node to come up


def word_processor(driving_format):
    """Make a processor whose tokens are words, signs and single digits.

    The action of the default format takes 22 of them. A model of the hub has a few more (24 with
    the tokenizer of SmolLM2, which cuts 'Acceleration' into three); the embedded model, whose
    numbers are single tokens, has 5.
    """
    pieces = re.compile(r' ?[A-Za-z]+| ?[+-]|\d| ?[^\sA-Za-z\d]|\s')
    texts = [driving_format.prompt, driving_format.answer, *driving_format.routes.values(),
             *driving_format.maneuvers.values(), driving_format.unknown, '0123456789+-.']
    words = {piece for text in texts for word in pieces.findall(text)
             for piece in (word.strip(), f' {word.strip()}')}
    vocabulary = ['<pad>', '</s>', '<unk>', '<image>', ' ', *sorted(words)]
    tokenizer = Tokenizer(models.WordLevel(
        {word: index for index, word in enumerate(dict.fromkeys(vocabulary))}, '<unk>'))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(pieces.pattern), 'isolated')
    tokenizer.decoder = decoders.Fuse()
    return LlavaProcessor(
        SiglipImageProcessorPil(size={'height': PIXELS, 'width': PIXELS}), PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, pad_token='<pad>', eos_token='</s>', unk_token='<unk>',
            extra_special_tokens={'image_token': '<image>'}),
        patch_size=PATCH, vision_feature_select_strategy='full')


def quarter_billion():
    """Make a Llava of 0.25 billion random weights, which reads 144 tokens of an image."""
    vision = SiglipVisionConfig(
        hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12,
        image_size=PIXELS, patch_size=PATCH, vision_use_head=False)
    text = LlamaConfig(
        vocab_size=1022, hidden_size=768, intermediate_size=2048, num_hidden_layers=24,
        num_attention_heads=12, num_key_value_heads=12, max_position_embeddings=1024,
        pad_token_id=0, bos_token_id=None, eos_token_id=1)
    torch.manual_seed(0)
    return LlavaForConditionalGeneration(LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=3,
        image_seq_length=(PIXELS // PATCH) ** 2, vision_feature_layer=-1,
        vision_feature_select_strategy='full')).eval()


def driver_of(model, processor, driving_format, backend):
    return Driver(model, processor, driving_format, backend=choose_backend(model, backend))


def prune_by_magnitude(model):
    """Cut the smaller half of every row, for the time it takes: not for its answers."""
    with torch.no_grad():
        for name, module in model.named_modules():
            if isinstance(module, torch.nn.Linear) and 'lm_head' not in name:
                middle = module.weight.abs().median(1, keepdim=True).values
                module.weight *= module.weight.abs() > middle
    return model


def bench_driver(name, model, processor, driving_format, rounds) -> dict:
    """Time decide, and generate of as many tokens as the action and the whole answer have."""
    ours = driver_of(model, processor, driving_format, 'dense')
    packed = driver_of(prune_by_magnitude(copy.deepcopy(model)), processor, driving_format,
                       'sparse')
    frame = render(random_scene(held_out_seeds(1)[0]))
    action = ours.decide(frame, EGO).action
    to_action = len(answer_tokens(ours.processor, ours.format, action, ''))
    whole = to_action + ours.format.explanation_tokens

    def generate(tokens):
        inputs = prompt_inputs(ours.processor, ours.format, frame, EGO, Command())
        return model.generate(**inputs, do_sample=False, min_new_tokens=tokens,
                              max_new_tokens=tokens)

    times = in_turn([
        Contestant('decide', [lambda: ours.decide(frame, EGO)]),
        Contestant('decide, packed', [lambda: packed.decide(frame, EGO)]),
        Contestant('generate the action', [lambda: generate(to_action)]),
        Contestant('generate the answer', [lambda: generate(whole)])], rounds, ours.device)
    return {
        'kind': 'driver', 'model': name,
        'parameters': sum(parameter.numel() for parameter in model.parameters()),
        'action_tokens': to_action, 'answer_tokens': whole,
        'seconds': {contestant: times.median(contestant) for contestant in times.seconds},
        'times_action': times.ratio('generate the action', 'decide'),
        'times_answer': times.ratio('generate the answer', 'decide'),
        'times_packed': times.ratio('decide', 'decide, packed')}


# -- the node ------------------------------------------------------------------------------------

class Node:
    """The driving node in a process of its own, asked one frame at a time."""

    def __init__(self):
        from nav_msgs.msg import Odometry
        from owled_ros.msg import DrivingAction, ModelInfo
        import rclpy
        from rclpy.qos import DurabilityPolicy, QoSProfile
        from sensor_msgs.msg import CompressedImage
        os.environ['ROS_DOMAIN_ID'] = str(random.SystemRandom().randrange(1, 102))
        os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
        values = {'image_transport': 'compressed', 'explain': 'false', 'backend': 'dense',
                  'max_frame_age': 5.0, 'deadline': 5.0, 'valid_for': 5.0, 'horizon': 5.0,
                  'max_ego_age': 5.0, 'max_frozen_frames': 0}
        options = [part for name, value in values.items() for part in ('-p', f'{name}:={value}')]
        self.process = subprocess.Popen(
            [sys.executable, '-m', 'owled_ros.driving_node', '--ros-args', *options],
            stdout=subprocess.DEVNULL)
        rclpy.init()
        self._rclpy, self._node = rclpy, rclpy.create_node('latency')
        self._image = self._node.create_publisher(CompressedImage, 'image/compressed', 10)
        self._odometry = self._node.create_publisher(Odometry, 'odom', 10)
        self._actions, self._infos = [], []
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._node.create_subscription(DrivingAction, 'owled/action', self._actions.append, 10)
        self._node.create_subscription(ModelInfo, 'owled/info', self._infos.append, latched)
        self._kinds = CompressedImage, Odometry
        self._wait(lambda: self._infos and self._image.get_subscription_count()
                   and self._odometry.get_subscription_count(), PATIENCE)

    def ask(self, jpegs):
        """Publish odometry and frames at once; return the seconds to the first OK action."""
        began = self._publish(jpegs)
        self._wait(self._has_answered, 10.0)
        return time.perf_counter() - began

    def wait_until_it_drives(self, jpeg):
        """Ask again and again: the node may have found one of the publishers, and not the other."""
        def answered():
            if time.monotonic() > self._next:
                self._publish([jpeg])
                self._next = time.monotonic() + 1.0
            return self._has_answered()
        self._next = 0.0
        self._wait(answered, PATIENCE)

    def _publish(self, jpegs):
        """Publish odometry, then frames; return when the first of them was."""
        image, odometry = self._kinds
        stamp = self._node.get_clock().now().to_msg()
        ego = odometry(child_frame_id='base_link')
        ego.header.stamp, ego.twist.twist.linear.x = stamp, EGO.speed
        self._odometry.publish(ego)
        time.sleep(0.02)
        messages = [image(format='jpeg', data=jpeg) for jpeg in jpegs]
        self._actions.clear()
        began = time.perf_counter()
        for message in messages:
            message.header.stamp = self._node.get_clock().now().to_msg()
            self._image.publish(message)
        return began

    def _has_answered(self):
        return any(action.status == action.OK for action in self._actions)

    def cpu_seconds(self):
        """Return the processor time that the node has taken."""
        fields = Path(f'/proc/{self.process.pid}/stat').read_text().rpartition(')')[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')

    def close(self):
        self.process.terminate()
        self.process.wait(10)
        self._rclpy.shutdown()

    def _wait(self, until, seconds):
        end = time.monotonic() + seconds
        while not until():
            if time.monotonic() > end or self.process.poll() is not None:
                raise SystemExit('latency.py: the node did not answer; see its messages above')
            self._rclpy.spin_once(self._node, timeout_sec=0.1)


def bench_node(rounds) -> dict:
    """Ask the node and call the driver in turn, with JPEGs of 1280 x 720."""
    driver = Driver.load('embedded', backend='dense')
    noise = np.random.default_rng(0)
    scene = cv2.resize(render(random_scene(held_out_seeds(1)[0])), (1280, 720))
    jpegs = [cv2.imencode('.jpg', np.clip(scene + noise.integers(-4, 5, scene.shape), 0, 255)
                          .astype(np.uint8))[1].tobytes() for _ in range(8)]

    def bare(jpeg):
        picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
        driver.decide(np.ascontiguousarray(picture[:, :, ::-1]), EGO)

    node = Node()
    try:
        node.wait_until_it_drives(jpegs[-1])
        asked, called = [], []
        for number in range(rounds + 3):
            jpeg = jpegs[number % len(jpegs)]
            asked.append(node.ask([jpeg]))
            began = time.perf_counter()
            bare(jpeg)
            called.append(time.perf_counter() - began)
        dropped = dropped_frame_seconds(node, jpegs, rounds)
    finally:
        node.close()
    asked, called = asked[3:], called[3:]     # the first ones warm up
    return {'kind': 'node', 'seconds_node': statistics.median(asked),
            'seconds_bare': statistics.median(called),
            'seconds_added': statistics.median(a - b for a, b in zip(asked, called)),
            'dropped_frame_cpu_seconds': dropped}


def dropped_frame_seconds(node, jpegs, rounds) -> float:
    """Return the processor time of a frame that comes while another is computed."""
    used = []
    for burst in (jpegs[:1], jpegs):
        before = node.cpu_seconds()
        for _ in range(rounds):
            node.ask(burst)
            node.ask(jpegs[:1])     # whatever of the burst was kept is done by then
        used.append(node.cpu_seconds() - before)
    # Of a burst the first is computed, and the last may be.
    return max(0.0, used[1] - used[0]) / (rounds * (len(jpegs) - 1))


# -- report --------------------------------------------------------------------------------------

def bars_of(rows) -> list[dict]:
    bars = []
    for row in rows:
        if row['kind'] == 'driver':
            for name, field, bar in (
                    ('generate stopped after the action', 'times_action', STOPPED_AFTER_ACTION),
                    ('generate of the whole answer', 'times_answer', WHOLE_ANSWER)):
                bars.append({'name': f'{row["model"]}: times earlier than {name}',
                             'value': row[field][0], 'bar': bar, 'met': row[field][0] >= bar})
        else:
            bar = max(NODE_SHARE * row['seconds_bare'], NODE_SECONDS)
            bars.append({'name': 'seconds that the node adds', 'value': row['seconds_added'],
                         'bar': bar, 'met': row['seconds_added'] <= bar})
            dropped = row['dropped_frame_cpu_seconds']
            bars.append({'name': 'processor seconds of a dropped frame', 'value': dropped,
                         'bar': DROPPED_SECONDS, 'met': dropped <= DROPPED_SECONDS})
    return bars


def measured(chosen):
    """Yield the rows."""
    rounds = 3 if chosen.quick else chosen.rounds
    directory = locate('embedded')
    yield bench_driver('embedded', load_model(directory, 'cpu'), load_processor(directory),
                       DrivingFormat.of_model(directory), rounds)
    if not chosen.quick:
        yield bench_driver('0.25B, random', quarter_billion(), word_processor(DrivingFormat()),
                           DrivingFormat(), rounds)
    yield bench_node(rounds)


def main(arguments=None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--rounds', type=int, default=15)
    parser.add_argument('--json', type=Path)
    parser.add_argument('--quick', action='store_true')
    chosen = parser.parse_args(arguments)
    rows = []
    for row in measured(chosen):
        print(json.dumps(row), flush=True)
        rows.append(row)
    bars = bars_of(rows)
    for bar in bars:
        print(f'{bar["name"]:60s} {bar["value"]:8.4f} {bar["bar"]:8.4f} '
              f'{"met" if bar["met"] else "NOT MET"}')
    if chosen.json:
        chosen.json.write_text(json.dumps({'rows': rows, 'bars': bars}, indent=1) + '\n')


if __name__ == '__main__':
    main()
