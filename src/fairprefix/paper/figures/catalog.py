"""All figures by name."""

from __future__ import annotations

from fairprefix.paper.figures import fig04, fig07, frontier, sweeps, timelines, turns, validation

_ALL = (
    validation.FIGURE,
    fig07.FIGURE,
    *sweeps.FIGURES,
    fig04.FIGURE,
    *timelines.FIGURES,
    frontier.FIGURE,
    turns.FIGURE,
)
_ORDER = ("validation", "1", "4", "7", "8", "9", "10", "11", "12", "frontier", "quantum")
FIGURES = {name: next(figure for figure in _ALL if figure.name == name) for name in _ORDER}
"""By name, in the order in which they are shown."""
