"""The SROS2 policy allows what the running nodes have, and nothing else."""

from pathlib import Path
import subprocess
import sys
import threading
import time
from xml.etree import ElementTree

import pytest
import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor

POLICY = Path(__file__).parents[2] / 'config' / 'sros2_policy.xml'
PATIENCE = 90.0  # s
SETTLED = 2.0    # s without anything new in the graph
# Each node in both of its ways: raw and compressed images, odometry or speed and steering.
WAYS = {
    'driving_node': (('image_transport:=raw', 'outputs:=twist', 'undistort:=true'),
                     ('image_transport:=compressed', 'odom_type:=speed_steering',
                      'use_sim_time:=true')),
    'calibration_node': (('command_topic:=/command', 'field_of_view:=0.9'),
                         ('image_transport:=compressed', 'use_sim_time:=true')),
}
# Where the packages of bond, ackermann_msgs and autoware_control_msgs are; from Jazzy on.
OPTIONAL = {('publish', '/bond'), ('publish', '/owled/ackermann'),
            ('publish', '/owled/autoware_control'), ('reply', '/driving_node/get_type_description'),
            ('reply', '/calibration_node/get_type_description')}


def allowed(node):
    """Return {(right, full name)} of a node's profile, checking its form on the way."""
    root = ElementTree.parse(POLICY).getroot()
    assert root.tag == 'policy' and root.get('version') == '0.2.0'
    (enclave,) = [e for e in root.iter('enclave') if e.get('path') == f'/owled_ros/{node}']
    (profile,) = enclave.iter('profile')
    assert (profile.get('ns'), profile.get('node')) == ('/', node)
    rights = set()
    for group in profile:
        assert group.tag in ('topics', 'services')
        kinds = [kind for kind in ('publish', 'subscribe', 'request', 'reply') if group.get(kind)]
        assert kinds and all(group.get(kind) == 'ALLOW' for kind in kinds)
        for item in group:
            name = item.text.strip()
            assert '*' not in name
            full = f'/{node}/{name[1:]}' if name[0] == '~' else \
                name if name[0] == '/' else f'/{name}'
            rights |= {(kind, full) for kind in kinds}
    return rights


class Observer:
    """A node that looks at the graph."""

    def __init__(self):
        self.context = Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node('observer', context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.thread = threading.Thread(target=self.executor.spin, daemon=True)
        self.thread.start()

    def rights(self, node, namespace):
        """Return {(right, name)} that a node uses; names as if it were in the root namespace."""
        found = set()
        for right, ask in (
                ('publish', self.node.get_publisher_names_and_types_by_node),
                ('subscribe', self.node.get_subscriber_names_and_types_by_node),
                ('reply', self.node.get_service_names_and_types_by_node),
                ('request', self.node.get_client_names_and_types_by_node)):
            found |= {(right, name.replace(f'{namespace}/', '/', 1))
                      for name, _ in ask(node, namespace)}
        return found

    def close(self):
        self.executor.shutdown()
        self.context.try_shutdown()
        self.thread.join(10)


def rights_when_settled(observer, node, namespaces):
    """Return what the nodes in all the namespaces use, once nothing is added any more."""
    end, seen, since = time.monotonic() + PATIENCE, {}, time.monotonic()
    while time.monotonic() < end:
        try:
            now = {space: observer.rights(node, space) for space in namespaces}
        except rclpy.node.NodeNameNonExistentError:
            now = {}
        if now != seen or not now:
            seen, since = now, time.monotonic()
        if seen and all(('reply', f'/{node}/change_state') in rights for rights in seen.values()) \
                and time.monotonic() - since > SETTLED:
            return set().union(*seen.values())
        time.sleep(0.1)
    pytest.fail(f'{node} did not come up: {seen}')


@pytest.mark.parametrize('node', sorted(WAYS))
def test_the_policy_is_what_the_node_uses(node, ros_domain):
    processes, namespaces = [], []
    observer = Observer()
    try:
        for number, parameters in enumerate(WAYS[node]):
            namespaces.append(f'/way{number}')
            words = ('autostart:=false', *parameters)
            processes.append(subprocess.Popen(
                [sys.executable, '-m', f'owled_ros.{node}', '--ros-args', '-r',
                 f'__ns:={namespaces[-1]}', *(part for word in words for part in ('-p', word))]))
        used = rights_when_settled(observer, node, namespaces)
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(30)
        observer.close()
    policy = allowed(node)
    assert used - policy == set(), 'the node does what the policy forbids'
    assert policy - used <= OPTIONAL, 'the policy allows what the node never does'


def test_every_node_has_a_profile():
    root = ElementTree.parse(POLICY).getroot()
    assert {profile.get('node') for profile in root.iter('profile')} == set(WAYS)
