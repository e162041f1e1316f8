"""One picture of a film: the game, what the agent sees of it, and what goes on inside of it."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont

from ..agents.insight import Insight
from .play import Moment

PAPER, INK, SOFT, FAINT, NOTHING = (18, 20, 26), (222, 226, 234), (144, 150, 162), (74, 80, 92), (38, 41, 50)
COLD, WARM = (76, 152, 255), (255, 160, 64)
STOPS = np.array([(190, 238, 255), (48, 128, 232), PAPER, (222, 112, 28), (255, 232, 160)], dtype=float)
LARGEST = 4096  # pixels of a game's width or height, of which formats of video hold some more
HISTORY = 120  # steps in the line of values


class Row(NamedTuple):
    """A band on an axis from 0 to 1."""

    name: str
    begin: float
    end: float
    mark: float | None = None  # in it or near it
    warm: bool = False  # its colour


class Scene:
    """Draws pictures of one size.

    :param space: of observations, as the agent sees them
    :param actions: space of actions
    :param frame: the game's first picture [H, W, 3]
    :param scale: size of the game in the picture; a native pixel is so many wide and high
    :param names: of actions, where they have any
    :raises ValueError: if the game would be too large, or less than a pixel
    """

    def __init__(
        self,
        space: spaces.Space,
        actions: spaces.Space,
        frame: np.ndarray,
        scale: float,
        names: Sequence[str] | None = None,
    ) -> None:
        self.space, self.actions, self.names = space, actions, names
        height, width = frame.shape[:2]
        self.game = (round(width * scale), round(height * scale))
        if not 1 <= min(self.game) <= max(self.game) <= LARGEST:
            raise ValueError(
                f"a scale of {scale:g} makes a game of {width} x {height} pixels {self.game[0]} x {self.game[1]}: 1 to "
                f"{LARGEST} are possible"
            )
        self.height = max(self.game[1], 160)
        self.text = min(15, max(9, round(self.height / 28)))
        self.line = round(1.5 * self.text)
        self.gap = self.text
        self.values: deque[float] = deque(maxlen=HISTORY)
        self.least, self.most = math.inf, -math.inf  # of all values so far
        self.largest: dict[str, float] = {}  # what counts as bright in a heat map: the most that was seen so far

    def draw(self, moment: Moment) -> Image.Image:
        """All but the game itself, whose place is free; ``put`` shows one frame there."""
        insight = moment.insight
        panels = [self._caption(Image.new("RGB", self.game, PAPER), f"step {moment.step}   return {moment.total:.4g}")]
        panels.append(self._caption(self._observation(moment.observation), "what the agent sees"))
        if insight is not None:
            if moment.start:
                self.values.clear()
            self.values.append(insight.value)
            if pictures := leaf_pictures(insight.state):
                panels.append(self._leaves(pictures))
            panels.append(self._charts(insight, moment.action))
        width = sum(panel.width + self.gap for panel in panels) + self.gap
        height = self.height + self.line + 2 * self.gap
        whole = Image.new("RGB", (width + width % 2, height + height % 2), PAPER)  # even, as formats of video ask for
        x = self.gap
        for panel in panels:
            whole.paste(panel, (x, self.gap))
            x += panel.width + self.gap
        return whole

    def put(self, scene: Image.Image, frame: np.ndarray) -> np.ndarray:
        """The picture with a frame of the game in its place: [H, W, 3]."""
        whole = scene.copy()
        whole.paste(fit(frame, *self.game), (self.gap, self.gap + self.line))
        return np.asarray(whole)

    # ---------------------------------------------------------------- panels

    def _caption(self, content: Image.Image, text: str) -> Image.Image:
        """A panel of full height, with words above it."""
        panel = Image.new("RGB", (content.width, self.height + self.line), PAPER)
        self._write(ImageDraw.Draw(panel), 0, 0, text, width=content.width)
        panel.paste(content, (0, self.line))
        return panel

    def _write(
        self, draw: ImageDraw.ImageDraw, x: float, y: float, text: str, ink: Any = INK, width: float | None = None
    ) -> None:
        """A line of text, shortened to a width."""
        font = _font(self.text)
        while width is not None and len(text) > 1 and draw.textlength(text, font=font) > width:
            text = f"{text[:-2]}…"
        draw.text((x, y), text, fill=ink, font=font)

    def _observation(self, observation: Any) -> Image.Image:
        """Images as they are, side by side where there are several; other parts as bars below each other."""
        is_dict = isinstance(self.space, spaces.Dict)
        parts = dict(observation) if is_dict else {"": observation}
        pictures = [values[0] for values in parts.values() if is_picture(values[0])]
        numbers = {name: np.ravel(values[0]) for name, values in parts.items() if not is_picture(values[0])}
        shown = [fit(as_rgb(picture), self.height, self.height) for picture in pictures]
        if numbers:
            shown.append(self._numbers(numbers))
        panel = Image.new("RGB", (sum(each.width + self.gap for each in shown) - self.gap, self.height), PAPER)
        x = 0
        for each in shown:
            panel.paste(each, (x, 0))
            x += each.width + self.gap
        return panel

    def _numbers(self, parts: Mapping[str, np.ndarray]) -> Image.Image:
        """A bar for each number, or a heat map where there are too many of them."""
        panel = Image.new("RGB", (12 * self.text, self.height), PAPER)
        draw, y = ImageDraw.Draw(panel), 0
        share = self.height // len(parts)
        for name, values in parts.items():
            top = y
            if name:
                self._write(draw, 0, y, name.replace("_", " "), SOFT, panel.width)
                y += self.line
            if len(values) * self.line > share - (y - top):
                side = max(1, min(panel.width, share - (y - top)))
                panel.paste(self._heat(f"observation {name}", as_table(values), side, side), (0, y))
            else:
                for value in values:
                    self._bar(draw, y, panel.width, float(value) / self._bright(f"observation {name}", values))
                    y += self.line
            y = top + share
        return panel

    def _bar(self, draw: ImageDraw.ImageDraw, y: int, width: int, share: float) -> None:
        """From the middle to the right where a number is positive, else to the left."""
        middle, low, high = width / 2, y + 2, y + self.line - 3
        end = middle + share * (middle - 1)
        draw.rectangle((0, low, width - 1, high), outline=FAINT)
        draw.rectangle((min(middle, end), low, max(middle, end), high), fill=WARM if share >= 0 else COLD)

    def _leaves(self, pictures: Mapping[str, np.ndarray]) -> Image.Image:
        """The leaves of the memory as heat maps: up to three below each other, then in columns."""
        rows = min(len(pictures), 1 if len(pictures) == 1 else 2 if len(pictures) <= 4 else 3)
        columns = math.ceil(len(pictures) / rows)
        share = (self.height + self.line) // rows
        side = share - self.line - (self.gap // 2 if rows > 1 else 0)
        side = min(side, round(0.75 * self.height))
        panel = Image.new("RGB", (columns * (side + self.gap) - self.gap, self.height + self.line), PAPER)
        draw = ImageDraw.Draw(panel)
        for i, (name, table) in enumerate(pictures.items()):
            x, y = i // rows * (side + self.gap), i % rows * share
            words = name.replace("_", " ")
            fits = draw.textlength(words, font=_font(self.text)) <= side
            self._write(draw, x, y, words if fits else words.rpartition(" ")[0], INK, side)
            panel.paste(self._heat(name, table, side, side), (x, y + self.line))
        return panel

    def _heat(self, name: str, table: np.ndarray, width: int, height: int) -> Image.Image:
        """A table of numbers, NaN where there is none: warm where they are positive, cold where negative."""
        level = np.nan_to_num(table / self._bright(name, table)).clip(-1, 1)
        colours = np.stack([np.interp(level, np.linspace(-1, 1, len(STOPS)), channel) for channel in STOPS.T], axis=2)
        colours[np.isnan(table)] = NOTHING
        return fit(colours.astype(np.uint8), width, height)

    def _bright(self, name: str, values: np.ndarray) -> float:
        """What is shown as bright: nearly the largest number that was seen so far."""
        finite = np.abs(values[np.isfinite(values)])
        now = float(np.quantile(finite, 0.995)) if finite.size > 100 else float(finite.max(initial=0.0))
        self.largest[name] = max(self.largest.get(name, 0.0), now, 1e-6)
        return self.largest[name]

    # ---------------------------------------------------------------- charts

    def _charts(self, insight: Insight, action: np.ndarray) -> Image.Image:
        """Value, gates and actions, below each other."""
        panel = Image.new("RGB", (17 * self.text, self.height + self.line), PAPER)
        draw = ImageDraw.Draw(panel)
        rows = self._action_rows(insight, action)
        room = (self.height + self.line) // self.line - 2 - bool(insight.gates) - len(insight.gates)
        chart = max(2, min(6, room - len(rows)))
        rows = rows[: max(1, room - chart)]
        self._write(draw, 0, 0, f"value {insight.value:.3g}", width=panel.width)
        y = self.line
        self._line_of_values(draw, y, panel.width, chart * self.line - 4)
        y += chart * self.line
        if insight.gates:
            self._write(draw, 0, y, "gates")
            y += self.line
            for name, gate in insight.gates.items():
                label = name.replace("_", " ").removesuffix(" gate")
                row = Row(label, float(np.quantile(gate, 0.1)), float(np.quantile(gate, 0.9)), float(gate.mean()))
                self._row(draw, y, panel.width, row)
                y += self.line
        self._write(draw, 0, y, "actions")
        y += self.line
        for row in rows:
            self._row(draw, y, panel.width, row)
            y += self.line
        return panel

    def _line_of_values(self, draw: ImageDraw.ImageDraw, y: int, width: int, height: int) -> None:
        draw.rectangle((0, y, width - 1, y + height), outline=FAINT)
        values = np.array(self.values)
        self.least, self.most = min(self.least, values.min()), max(self.most, values.max())
        spread, bottom = max(self.most - self.least, 1e-3), y + height - 3
        if self.least < 0 < self.most:
            zero = bottom + self.least / spread * (height - 6)
            draw.line((0, zero, width - 1, zero), fill=FAINT)
        x = np.arange(len(values)) / (HISTORY - 1) * (width - 3) + 1
        heights = bottom - (values - self.least) / spread * (height - 6)
        if len(values) > 1:
            draw.line([*zip(x.tolist(), heights.tolist(), strict=True)], fill=WARM, width=max(1, self.text // 7))

    def _row(self, draw: ImageDraw.ImageDraw, y: int, width: int, row: Row) -> None:
        label = round(0.45 * width)
        self._write(draw, 0, y, row.name, width=label - 4)
        axis, low, high = width - label - 1, y + 2, y + self.line - 4
        draw.rectangle((label, low, width - 1, high), outline=FAINT)
        begin, end = (label + float(np.clip(share, 0, 1)) * axis for share in (row.begin, row.end))
        if end - begin >= 1:
            draw.rectangle((begin, low, end, high), fill=WARM if row.warm else COLD)
        if row.mark is not None:
            at = label + float(np.clip(row.mark, 0, 1)) * axis
            draw.line((at, low, at, high), fill=INK, width=max(2, self.text // 5))

    def _action_rows(self, insight: Insight, action: np.ndarray) -> list[Row]:
        """Of actions that are chosen their probabilities, the chosen one warm; of numbers the mean plus and minus a
        deviation, between the bounds of the action, with a mark at what is taken."""
        rows: list[Row] = []
        taken = np.ravel(action)
        several = len(insight.probabilities) > 1
        for i, probabilities in enumerate(insight.probabilities):
            for number, p in enumerate(probabilities):
                name = f"{i + 1}: {number}" if several else self.names[number] if self.names else str(number)
                rows.append(Row(name, 0.0, float(p), warm=number == int(taken[i])))
        if insight.mean is not None and insight.deviation is not None and isinstance(self.actions, spaces.Box):
            low, high = self.actions.low.ravel(), self.actions.high.ravel()
            numbers = insight.mean - insight.deviation, insight.mean + insight.deviation, taken
            places = zip(*((values - low) / np.maximum(high - low, 1e-9) for values in numbers), strict=True)
            rows += [Row(str(i), float(begin), float(end), float(at)) for i, (begin, end, at) in enumerate(places, 1)]
        return rows


# ---------------------------------------------------------------- arrays as pictures


def leaf_pictures(state: Mapping[str, np.ndarray], most: int = 6) -> dict[str, np.ndarray]:
    """The leaves of a memory as tables, the largest first if there are too many; single numbers are left out. Vectors
    are broken into rows, and several matrices stand beside each other."""
    names = sorted((name for name in state if state[name].size > 1), key=lambda name: -state[name].size)[:most]
    return {f"{name} {'×'.join(map(str, leaf.shape))}": as_table(leaf) for name, leaf in state.items() if name in names}


def as_table(values: np.ndarray) -> np.ndarray:
    """Numbers of any shape as a table, with NaN where it has no number.

    A vector is broken into rows; several vectors, or several matrices, stand side by side.
    """
    if values.ndim == 1:
        columns = math.ceil(math.sqrt(values.size))
        rows = math.ceil(values.size / columns)
        return np.append(values, np.full(rows * columns - values.size, np.nan)).reshape(rows, columns)
    if values.ndim == 2:
        few, many = sorted(values.shape)
        if many <= 8 * few:
            return values
        return as_table(np.stack([as_table(row) for row in (values if len(values) == few else values.T)]))
    tiles = values.reshape(-1, *values.shape[-2:])  # [n, R, C]
    n, height, width = tiles.shape
    columns = min(n, math.ceil(math.sqrt(n * height / width)))
    table = np.full((math.ceil(n / columns) * (height + 1) - 1, columns * (width + 1) - 1), np.nan)
    for i, tile in enumerate(tiles):
        y, x = i // columns * (height + 1), i % columns * (width + 1)
        table[y : y + height, x : x + width] = tile
    return table


def is_picture(values: np.ndarray) -> bool:
    """Whether a part of an observation [C, H, W] is an image."""
    return values.ndim == 3 and min(values.shape[1:]) >= 8


def as_rgb(image: np.ndarray) -> np.ndarray:
    """An image [C, H, W] as [H, W, 3], of stacked ones the last."""
    channels = image if len(image) == 3 else np.repeat(image[-1:], 3, axis=0)
    if channels.dtype != np.uint8:
        low, high = float(channels.min()), float(channels.max())
        channels = (255 * (channels - low) / max(high - low, 1e-9)).astype(np.uint8)
    return channels.transpose(1, 2, 0)


def fit(image: np.ndarray, width: int, height: int) -> Image.Image:
    """An image [H, W, 3] as large as fits. An enlarged pixel stays a sharp square, but for its edges where these do not
    fall between two pixels of the screen."""
    share = min(width / image.shape[1], height / image.shape[0])
    size = max(1, round(image.shape[1] * share)), max(1, round(image.shape[0] * share))
    whole = Image.fromarray(image)
    if share > 1:
        times = math.ceil(share)
        whole = whole.resize((image.shape[1] * times, image.shape[0] * times), Image.Resampling.NEAREST)
    return whole.resize(size, Image.Resampling.BOX)


@cache
def _font(size: int) -> Any:
    return ImageFont.truetype(font_manager.findfont("DejaVu Sans"), size)
