"""Parameters: what is refused, when, and in which words."""

from owled_ros.msg import DrivingAction


def test_changes_while_it_drives(start):
    rig = start()
    rig.wait_until_heard()
    rig.drive(lambda: rig.heard(DrivingAction.OK), 'an action')
    for name, value, words in (
            ('autostart', False, 'read-only'),
            ('image_transport', 'compressed', 'read-only'),
            ('model', 'other', 'while the node is unconfigured'),
            ('wheelbase', 3.0, 'while the node is unconfigured'),
            ('deadline', 1000.0, 'range'),
            ('deadline', 9.5, 'valid_for'),
            ('limits.emergency_deceleration', 1.0, 'at least as large'),
            ('deadline', 'soon', '')):
        refused = rig.set(name, value)
        assert not refused.successful, name
        assert words in refused.reason, refused.reason
    assert rig.set('limits.acceleration', 0.2).successful
    since = len(rig.actions)
    rig.drive(lambda: rig.statuses(since).count(DrivingAction.OK) >= 3, 'actions')
    assert rig.actions[-1].acceleration <= 0.2
    assert rig.actions[-1].limits_applied & DrivingAction.LIMIT_ACCELERATION
    assert abs(rig.infos[-1].limit_acceleration - 0.2) < 1e-6


def test_they_are_checked_together_at_configure(start):
    rig = start(autostart=False, deadline=0.2)
    assert not rig.change('configure')
    assert ('not configured: parameter max_frame_age (3 s) is more than deadline (0.2 s): '
            'a frame that old could not be answered in time') in rig.words()
    assert rig.set('max_frame_age', 0.1).successful
    assert rig.change('configure')


def test_an_impossible_override_ends_the_node_with_a_sentence(start):
    rig = start(wheelbase=99.0)
    assert rig.process.wait(30) == 2
    assert 'wheelbase' in rig.words() and 'Traceback' not in rig.words()
