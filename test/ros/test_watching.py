"""What `owled watch` tells, of messages and of a graph."""

import io
import json
import subprocess
import sys
import time

from owled_ros.cli import main
from owled_ros.msg import DrivingAction, Explanation
from owled_ros.ros import watching
from owled_ros.ros.watching import Heard, printable
import pytest
import rclpy
from rclpy.context import Context


def action(**fields):
    return DrivingAction(**{'status': DrivingAction.OK, 'maneuver': DrivingAction.SLOW_DOWN,
                            'acceleration': -1.25, 'steering_angle': 0.1, 'target_speed': 4.5,
                            'model': 'embedded 0123', **fields})


def test_an_action_is_told_in_words():
    heard = Heard('/owled/action')
    assert heard.lines(0.0) == ['/owled/action  nothing yet']
    for _ in range(3):
        heard.take(action())
    topic, words, model = heard.lines(time.monotonic())
    assert topic.startswith('/owled/action  ') and topic.endswith(' Hz')
    assert words == '  OK  slow down  -1.25 m/s2  +5.7 deg  -> 4.5 m/s'
    assert model == '  0 ms after its frame, by embedded 0123'
    heard.take(action(status=DrivingAction.STALE_INPUT, reason='no frame for 0.3 s'))
    assert heard.lines(time.monotonic())[1] == '  STALE_INPUT  no frame for 0.3 s'
    assert heard.summary()['statuses'] == {'OK': 3, 'STALE_INPUT': 1}


def test_silence_is_told():
    heard = Heard('/owled/action')
    heard.take(action())
    now = time.monotonic()
    assert 'SILENT for 3 s' in heard.lines(now + 3)[0]
    assert 'SILENT for > 5 s' in heard.lines(now + 60)[0]


def test_a_rate_is_that_of_the_last_seconds(monkeypatch):
    now = 100.0
    monkeypatch.setattr(time, 'monotonic', lambda: now)
    heard = Heard('/owled/action')
    for _ in range(100):
        heard.take(action())
        now += 0.1
    assert heard.rate(now) == pytest.approx(10.0, rel=0.03)
    assert heard.rate(now + 60) == 0.0


def test_what_other_nodes_say_moves_no_cursor_and_breaks_nothing():
    heard = Heard('/owled/explanation')
    heard.take(Explanation(text='braking\x1b[2J for\nthe light', complete=True))
    assert heard.lines(time.monotonic())[1:] == ['  braking [2J for the light']
    heard = Heard('/owled/action')
    heard.take(action(status=77))
    assert 'Status 77' in heard.lines(time.monotonic())[1]
    heard.take(action(maneuver=99))
    assert 'maneuver 99' in heard.lines(time.monotonic())[1]
    assert printable('a\tb') == 'a b'


def test_it_finds_the_topics_of_a_graph(ros_domain):
    context = Context()
    rclpy.init(context=context)
    node = rclpy.create_node('driver', context=context)
    actions = node.create_publisher(DrivingAction, 'left/owled/action', 1)
    words = node.create_publisher(Explanation, 'left/owled/explanation', 1)
    watching = subprocess.Popen(
        [sys.executable, '-m', 'owled_ros.cli', 'watch', '--seconds', '6', '--json'],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while watching.poll() is None:
        actions.publish(action())
        words.publish(Explanation(text='braking for the light', complete=True))
        time.sleep(0.05)
    told, lines = watching.communicate()
    context.try_shutdown()
    assert watching.returncode == 0, lines
    found = json.loads(told)
    assert set(found) == {'/left/owled/action', '/left/owled/explanation'}
    assert found['/left/owled/action']['statuses']['OK'] > 10
    assert found['/left/owled/explanation']['text'] == 'braking for the light'
    assert '  OK  slow down  -1.25 m/s2' in lines and '  braking for the light' in lines


def test_lines_where_there_is_no_terminal(ros_domain):
    from owled_ros.ros.watching import watch
    stream = io.StringIO()
    assert watch(0.5, stream) == {}
    assert 'no driving node to be heard yet' in stream.getvalue()
    assert '\x1b' not in stream.getvalue()


@pytest.mark.parametrize('topics', [{}, {'/owled/action': {'messages': 0, 'rate': 0.0}}])
def test_nothing_heard_is_no_success(monkeypatch, capsys, topics):
    monkeypatch.setattr(watching, 'watch', lambda seconds, stream: topics)
    assert main(['watch', '--seconds', '1', '--json']) == 1
    told = capsys.readouterr()
    assert json.loads(told.out) == topics
    assert told.err.startswith('owled: no action') and told.err.count('\n') == 1
