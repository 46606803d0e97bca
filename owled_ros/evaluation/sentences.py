"""Reads the explanations of the rendered scenes back into what they say."""

from dataclasses import dataclass
import re

SENTENCE = re.compile(
    r'^(?:No light|(?P<light>Red|Amber|Green) light (?P<light_distance>\d+) m ahead), '
    r'(?:no vehicle|(?P<braking>braking )?vehicle (?P<lead_distance>\d+) m ahead), '
    r'(?:no pedestrian|pedestrian (?P<place>in the lane|at the side) '
    r'(?P<pedestrian_distance>\d+) m ahead): '
    r'(?P<deed>I [a-z ]+) because (?P<reason>[a-z ]+)\.$')


@dataclass(frozen=True)
class Statement:
    """What a sentence says: distances in metres, None where there is no such thing."""

    light: str                   # 'none', 'red', 'amber' or 'green'
    light_distance: float
    lead_distance: float
    lead_braking: bool
    pedestrian: str              # 'none', 'in the lane' or 'at the side'
    pedestrian_distance: float
    deed: str
    reason: str


def read_sentence(text):
    """Return the Statement that an explanation makes, or None where it makes none."""
    match = SENTENCE.match(text)
    if match is None:
        return None

    def metres(name):
        return float(match[name]) if match[name] else None

    return Statement(
        light=(match['light'] or 'none').lower(), light_distance=metres('light_distance'),
        lead_distance=metres('lead_distance'), lead_braking=bool(match['braking']),
        pedestrian=match['place'] or 'none', pedestrian_distance=metres('pedestrian_distance'),
        deed=match['deed'], reason=match['reason'])
