"""A picture of an embedding space: similarity histograms, spectrum, a map coloured by label."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from sentemb.evaluate.statistics.geometry import SpaceGeometry
from sentemb.files import atomic_file

_COLOURS = 10  # labels that get a colour of their own, the most frequent ones
_POINTS = 5_000


def draw_panel(path: Path, space: SpaceGeometry, *, title: str) -> None:
    """Write a PNG with three plots, atomically."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4), layout="constrained")  # no pyplot: no global state, no display
    FigureCanvasAgg(figure)
    histogram, spectrum, plane = figure.subplots(1, 3)
    _histogram(histogram, space)
    spectrum.plot(np.arange(1, len(space.spectrum) + 1), space.spectrum)
    spectrum.set(
        xscale="log",
        yscale="log",
        xlabel="principal component",
        ylabel="share of variance",
        title=f"effective rank {space.metrics['effective_rank']:.0f}, IsoScore {space.metrics['isoscore']:.3f}",
    )
    _map(plane, space)
    figure.suptitle(title)
    with atomic_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)


def _histogram(axes: Any, space: SpaceGeometry) -> None:
    bins = np.linspace(-0.5, 1.0, 76)
    axes.hist(space.negative, bins=bins, density=True, alpha=0.6, label="random pairs")
    if len(space.positive):
        axes.hist(space.positive, bins=bins, density=True, alpha=0.6, label="positive pairs")
    alignment = f"alignment {space.metrics['alignment']:.3f}, " if "alignment" in space.metrics else ""
    axes.set(xlabel="cosine", ylabel="density", title=f"{alignment}uniformity {space.metrics['uniformity']:.3f}")
    axes.legend()


def _map(axes: Any, space: SpaceGeometry) -> None:
    points = space.plane[:_POINTS]
    labels = np.array(space.labels[:_POINTS]) if len(space.labels) else np.full(len(points), "")
    names, counts = np.unique(labels, return_counts=True)
    frequent = [str(name) for name in names[np.argsort(-counts, kind="stable")][:_COLOURS]]
    others = ~np.isin(labels, frequent)
    axes.scatter(points[others, 0], points[others, 1], s=4, color="0.8")
    for number, name in enumerate(frequent):
        rows = labels == name
        axes.scatter(points[rows, 0], points[rows, 1], s=4, color=f"C{number}", label=name[:24] or None)
    if any(frequent):
        axes.legend(fontsize="x-small", markerscale=3)
    axes.set(
        xlabel="first component",
        ylabel="second component",
        title=f"hubness {space.metrics['hubness']:.2f}, mean cosine {space.metrics['average_cosine']:.3f}",
    )
