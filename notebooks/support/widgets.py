"""Interactive controls of the notebooks. Each is built from arrays, redraws by itself, and leaves a still.

:func:`show` puts a control into a notebook together with a still picture: readers without a kernel, on a code
host or in the book, see the still in its place.
"""

import base64
import functools
import io
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import anywidget
import ipywidgets
import numpy as np
import torch
import traitlets
from matplotlib import pyplot as plt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image, ImageDraw
from skimage.segmentation import find_boundaries

from consensus_lib.data import FaceDataset, Splits
from consensus_lib.experiments.notebook import Lesson, Stopped
from consensus_lib.experiments.train import Config, Trained
from consensus_lib.losses import consensus_loss, label_blobs
from consensus_lib.models.parser import FaceParser, ParsedFace
from consensus_lib.models.photo import PhotoError, open_photo
from consensus_lib.viz import plots
from consensus_lib.viz.images import overlay, to_rgb
from support import diagrams

HEIGHT = 384
"""Height of a shown image in screen pixels, about: an image is enlarged by a whole number."""


def show(control: ipywidgets.VBox, alt: str, **more) -> None:
    """Display a control whose last part is a picture, and the picture as a still in the same output.

    ``more`` goes to IPython's ``display``, such as ``display_id``.
    """
    from IPython.display import display

    still = base64.b64encode(control.children[-1].value).decode()
    data = control._repr_mimebundle_() | {"image/png": still, "text/plain": alt}
    display(data, metadata={"image/png": {"alt": alt}}, raw=True, **more)


def consensus_toy(labels: np.ndarray, logits: np.ndarray, pixel: tuple[int, int]) -> ipywidgets.VBox:
    """Let a reader move α, β and one pixel's logit, and see probabilities, blob means and pulls.

    Args:
        labels: integer ``[H,W]``, classes 0 and 1; each class is one blob.
        logits: float ``[2,H,W]``.
        pixel: row and column of the pixel whose logit moves.

    Returns:
        Three sliders and the picture below them.
    """
    target = torch.as_tensor(labels).long()[None]
    start = torch.as_tensor(logits).double()[None]
    row, column = pixel
    margin = start[0, 1, row, column] - start[0, 0, row, column]
    alpha, beta = _slider("α, match", 1.0, 0.0, 10.0), _slider("β, deviation", 1.0, 0.0, 10.0)
    logit = _slider("logit of the framed pixel", round(float(margin), 1), -8.0, 8.0)

    def draw():
        said = start.clone()
        said[0, :, row, column] = torch.tensor([0.0, logit.value])
        said.requires_grad_()
        loss = consensus_loss(said, target, alpha=alpha.value, beta=beta.value)
        (gradient,) = torch.autograd.grad(loss, said)
        pull = (gradient[0, 0] - gradient[0, 1]).numpy()
        probability = said.detach().softmax(1)[0, 1].numpy()
        figure = diagrams.toy_panel(probability, pull, labels, pixel)
        figure.suptitle(f"loss {loss.item():.3f}", fontsize=8)
        return _png_of(figure)

    return _redrawn([alpha, beta, logit], draw)


def data_browser(data: FaceDataset) -> ipywidgets.VBox:
    """Let a reader walk through samples: filter them, and lay labels and blob outlines over the image.

    Args:
        data: the samples; the last class is the one whose share is filtered.
    """
    task = data.task
    labels = torch.stack([data[i]["labels"] for i in range(len(data))])
    blobs = label_blobs(labels, "component")
    pieces = torch.bincount(blobs.image[blobs.labels > 0], minlength=len(labels)).numpy()
    shares = np.stack([(labels == k).flatten(1).double().mean(1).numpy() for k in range(len(task.classes))])
    named = ipywidgets.Dropdown(options=[*task.classes], value=task.classes[-1], **_named("class"))
    share = _slider("its share at least, %", 0.0, 0.0, 40.0, 1.0)
    least = ipywidgets.IntSlider(1, 1, max(2, int(pieces.max())), **_named("components at least"), **_wide())
    number = ipywidgets.IntSlider(0, 0, max(1, len(labels) - 1), **_named("which of those left"), **_wide())
    opacity = _slider("opacity of the labels", 0.5, 0.0, 1.0)
    outlines = ipywidgets.Checkbox(True, description="outline the blobs", indent=False)
    words = ipywidgets.Label()

    def draw():
        enough = shares[task.classes.index(named.value)] * 100 >= share.value
        left = np.flatnonzero(enough & (pieces >= least.value))
        if not len(left):
            words.value = "no sample is left: lower the share or the number of components"
            return _png(np.full((HEIGHT, 2 * HEIGHT, 3), 0.9))
        index = int(left[min(number.value, len(left) - 1)])
        mask = labels[index].numpy()
        seen = to_rgb(data[index]["image"])
        marked = _enlarged(overlay(seen, mask, task.colours, opacity.value))
        if outlines.value:
            ids = _enlarged(blobs.ids[index].numpy())
            marked = np.where(find_boundaries(ids, mode="inner")[..., None], 1.0, marked)
        found = ", ".join(f"{name} {s:.0%}" for name, s in zip(task.classes, shares[:, index], strict=True))
        words.value = (
            f"{len(left)} of {len(labels)} left · sample {index} · {pieces[index]} components · {found}"
        )
        return _png(np.hstack([_enlarged(seen), marked]))

    return _redrawn([named, share, least, number, opacity, outlines], draw, words)


def mask_comparer(data: FaceDataset, index: int, masks: Mapping[str, torch.Tensor]) -> ipywidgets.VBox:
    """Let a reader compare two methods' masks of one image: a wipe between them, their errors, their pieces.

    Args:
        data: the samples.
        index: which of them.
        masks: method → predicted classes of all samples, ``[N,H,W]``; two or more methods.
    """
    colours, sample = data.task.colours, data[int(index)]
    image, truth = to_rgb(sample["image"]), sample["labels"].numpy()
    masks = {name: found[int(index)].numpy() for name, found in masks.items()}
    names = list(masks)
    left = ipywidgets.Dropdown(options=names, value=names[0], **_named("left"))
    right = ipywidgets.Dropdown(options=names, value=names[1], **_named("right"))
    view = ipywidgets.ToggleButtons(options=["mask", "error", "components"], **_named("show"))
    columns = truth.shape[1]
    wipe = ipywidgets.IntSlider(columns // 2, 0, columns, **_named("wipe, pixels"), **_wide())
    words = ipywidgets.Label()

    def picture(mask):
        if view.value == "error":
            return np.where((mask != truth)[..., None], (0.84, 0.37, 0.0), 0.25 + 0.5 * image)
        if view.value == "components":
            ids = label_blobs(torch.as_tensor(mask).long()[None], "component", connectivity=8).ids[0].numpy()
            return plt.get_cmap("tab20")(ids % 20)[..., :3] * (mask > 0)[..., None]
        return overlay(image, mask, colours, 0.6)

    def draw():
        cut = wipe.value
        one, two = masks[left.value], masks[right.value]
        both = _enlarged(np.hstack([picture(one)[:, :cut], picture(two)[:, cut:]]))
        line = cut * len(both) // len(truth)
        both[:, max(0, line - 1) : line + 1] = 1
        counts = [
            f"{name}: {_pieces(mask)} components, {(mask != truth).mean():.1%} of the pixels wrong"
            for name, mask in ((left.value, one), (right.value, two))
        ]
        words.value = f"{' · '.join(counts)} · truth: {_pieces(truth)} components"
        truth_panel = overlay(image, truth, colours, 0.6)
        return _png(np.hstack([_enlarged(image), _enlarged(truth_panel), both]))

    return _redrawn([left, right, view, wipe], draw, words)


class _Canvas(anywidget.AnyWidget):
    """A square picture to paint on. JavaScript sends ``{"places": [[x, y], …]}``, shares of its side, and
    waits for a message before it sends the next."""

    _esm = Path(__file__).with_name("canvas.js")
    picture = traitlets.Bytes().tag(sync=True)
    radius = traitlets.Float(0.1).tag(sync=True)
    label = traitlets.Unicode().tag(sync=True)


def cover_the_face(
    image: np.ndarray,
    predict: Callable[[np.ndarray], Mapping[str, np.ndarray]],
    colours: Mapping[str, Sequence],
    hand: np.ndarray,
) -> ipywidgets.VBox:
    """Let a reader paint over a face, or drop a hand on it, and see what networks make of it.

    Args:
        image: float ``[H,H,3]`` in [0, 1].
        predict: from such an image to method → integer mask ``[H,H]``.
        colours: method → one for each of its classes.
        hand: float ``[h,w,4]`` in [0, 1], with opacity last.
    """
    side = len(image)
    words = "paint on the face: drag, or arrow keys and Enter"
    canvas = _Canvas(picture=_png(image), label=f"The face. To {words}")
    tool = ipywidgets.ToggleButtons(options=["paint", "drop a hand", "uncover"], **_named("tool"))
    radius = _slider("brush: radius, %", 6.0, 1.0, 25.0, 1.0)
    shade = _slider("brush: brightness", 0.3, 0.0, 1.0)
    clear = ipywidgets.Button(description="uncover all")
    counts, picture = ipywidgets.Label(), ipywidgets.Image(format="png")
    picture.layout.max_width = "100%"
    covered = image.copy()
    truth = {name: _pieces(mask) for name, mask in predict(image).items()}

    def draw():
        masks = predict(covered)
        counts.value = " · ".join(
            f"{name}: {_pieces(mask)} components, {truth[name]} before" for name, mask in masks.items()
        )
        shown = [covered, *(overlay(covered, mask, colours[name], 0.6) for name, mask in masks.items())]
        picture.value = _png(np.hstack([_enlarged(one) for one in shown]))
        canvas.picture = _png(covered)

    def paint(_, message, __):
        places = side * np.array(message["places"], float)  # [n, (x, y)] in pixels
        if tool.value == "drop a hand":
            _paste(covered, hand, places[-1])
        else:
            near = _near_the_line(places, side, radius.value / 100 * side)
            covered[near] = image[near] if tool.value == "uncover" else shade.value
        try:
            draw()
        finally:
            canvas.send({})  # the next places, please

    def uncover(_):
        covered[:] = image
        draw()

    canvas.on_msg(paint)
    clear.on_click(uncover)
    radius.observe(lambda change: setattr(canvas, "radius", change["new"] / 100), "value")
    canvas.radius = radius.value / 100
    draw()
    return ipywidgets.VBox([tool, radius, shade, clear, ipywidgets.Label(words), canvas, counts, picture])


def _near_the_line(places: np.ndarray, side: int, radius: float) -> np.ndarray:
    """Return which pixels, bool ``[side,side]``, lie within ``radius`` of a line through places (x, y)."""
    y, x = np.mgrid[:side, :side] + 0.5
    pixels = np.stack([x, y], -1)  # [side, side, 2]
    near = np.hypot(*np.moveaxis(pixels - places[0], -1, 0)) <= radius
    for start, way in zip(places[:-1], np.diff(places, axis=0), strict=True):
        along = ((pixels - start) @ way / max(way @ way, 1e-9)).clip(0, 1)  # of the way, 0 to 1
        near |= np.hypot(*np.moveaxis(pixels - start - along[..., None] * way, -1, 0)) <= radius
    return near


def _paste(image: np.ndarray, patch: np.ndarray, middle: np.ndarray) -> None:
    """Lay ``patch`` ``[h,w,4]`` into ``image`` ``[H,W,3]``, its middle at (x, y); what is outside is lost."""
    top, left = (round(m - n / 2) for m, n in zip(middle[::-1], patch.shape[:2], strict=True))
    rows, columns = (
        np.arange(max(0, start), min(n, start + size))
        for start, n, size in zip((top, left), image.shape[:2], patch.shape[:2], strict=True)
    )
    part = patch[np.ix_(rows - top, columns - left)]
    at = np.ix_(rows, columns)
    image[at] += part[..., 3:] * (part[..., :3] - image[at])


def your_photograph(parsers: Mapping[str, FaceParser], example: np.ndarray) -> ipywidgets.VBox:
    """Let a reader upload a photograph and see the masks of each parser.

    The photograph stays in the memory of the kernel; nothing is written or sent.

    Args:
        parsers: name → parser.
        example: uint8 ``[H,W,3]``, shown until there is an upload.
    """
    upload = ipywidgets.FileUpload(accept="image/*", multiple=False, description="a photograph")
    words = ipywidgets.Label()

    def draw():
        try:
            photo = example
            if upload.value:
                photo = Image.open(io.BytesIO(upload.value[0]["content"].tobytes()))
            photo = open_photo(photo)
            parsed = {name: parser(photo) for name, parser in parsers.items()}
        except (PhotoError, OSError) as error:
            words.value = f"this cannot be parsed: {error}"
            return _png(np.full((120, 360, 3), 0.9))
        words.value = " · ".join(
            f"{name}: {len(faces)} face(s); {', '.join(faces[0].classes[1:])}"
            for name, faces in parsed.items()
        )
        return _parsed_png(photo, parsed)

    return _redrawn([upload], draw, words)


class Training:
    """A training with buttons to start, pause, resume and stop it, and curves of its epochs so far.

    It runs in a thread, so that the buttons and other cells work meanwhile; a button acts when the epoch that
    is running ends. A paused training keeps its network in memory. A stopped or interrupted one resumes from
    its checkpoint, also after the kernel was restarted, and ends with the same bits as one that was neither.

    Args:
        lesson: whose folder and device are used.
        config, data, about: as for :meth:`Lesson.train`, which finds the same training.
    """

    def __init__(self, lesson: Lesson, config: Config, data: Splits, **about):
        self.title, self.epochs = f"{config.title or config.loss}, seed {config.seed}", config.epochs
        how = {"progress": False, "on_epoch": self._after_epoch}
        self._train = functools.partial(lesson.run, config, data, **how, **about)
        self._thread = self._trained = self._error = None
        self._history, self._alt = [], ""
        self._going, self._halted = threading.Event(), threading.Event()
        self._main, self._stop = ipywidgets.Button(), ipywidgets.Button(description="Stop")
        self._main.on_click(lambda _: self._press())
        self._stop.on_click(lambda _: self._halt())
        self._words, self._picture = ipywidgets.Label(), ipywidgets.Image(format="png")
        self._picture.layout.max_width = "100%"
        buttons = ipywidgets.HBox([self._main, self._stop])
        self.control = ipywidgets.VBox([buttons, self._words, self._picture])
        self._tell("not started", "Start")
        self._draw()

    def show(self, alt: str) -> None:
        """Display the buttons and the curves; the still below them becomes that of the last epoch."""
        self._alt = alt
        show(self.control, alt, display_id=str(id(self)))

    def result(self) -> Trained:
        """Return the training once it is finished; start or resume one that does not run.

        Raises:
            Stopped: the cell was interrupted. Called again, the training is resumed after its last epoch.
        """
        try:
            if self._halted.is_set():
                self._thread.join()
            self._go()
            self._thread.join()
        except KeyboardInterrupt:
            self._halt()
            self._thread.join()  # until the epoch that is running ends
        if self._error:
            raise self._error
        if not self._trained:
            raise Stopped(self.title)
        return self._trained

    def _press(self) -> None:
        if self._going.is_set() and self._thread.is_alive():
            self._going.clear()
            self._tell("pausing after this epoch", "Resume", "Stop")
        else:
            self._go()

    def _go(self) -> None:
        if self._trained:
            return
        self._tell("running", "Pause", "Stop")
        self._going.set()
        if self._thread is None or not self._thread.is_alive():
            self._halted.clear()
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()

    def _halt(self) -> None:
        self._halted.set()
        self._going.set()
        self._tell("stopping after this epoch")

    def _after_epoch(self, history: list[dict]) -> None:
        self._history = list(history)
        self._draw()
        if not self._going.is_set():
            self._tell("paused", "Resume", "Stop")
            self._going.wait()
        if self._halted.is_set():
            raise _Halted
        self._tell("running", "Pause", "Stop")

    def _run(self) -> None:
        try:
            self._error, self._trained = None, self._train()
            self._history = self._trained.history
            self._draw()
            self._tell("finished")
        except _Halted:
            self._tell("stopped", "Resume")
        except Exception as error:
            self._error = error
            self._tell(f"failed: {error}", "Start")
        if self._alt:  # the still in the notebook becomes that of the last epoch
            show(self.control, self._alt, display_id=str(id(self)), update=True)

    def _tell(self, state: str, main: str = "", stop: str = "") -> None:
        """Say what the training does, and what the buttons do; a button without a word is not to be pressed."""
        scores = ""
        if self._history:
            last = self._history[-1]
            found = [f"{label} {last[key]:.3f}" for key, label in plots.LIVE.items() if key in last]
            scores = f" · epoch {last['epoch']} of {self.epochs} · {', '.join(found)}"
        self._words.value = f"{self.title}: {state}{scores}"
        self._main.description, self._main.disabled = main or self._main.description, not main
        self._stop.disabled = not stop

    def _draw(self) -> None:
        # Not by pyplot, which is not for threads.
        figure = Figure(figsize=(plots.DOUBLE, 2.1), dpi=150, layout="constrained")
        axes = figure.subplots(1, len(plots.LIVE))
        for axis, (key, label) in zip(axes, plots.LIVE.items(), strict=True):
            scored = [row for row in self._history if key in row]
            axis.plot([row["epoch"] for row in scored], [row[key] for row in scored], ".-")
            axis.set(xlim=(0.5, self.epochs + 0.5), xlabel="epoch", ylabel=label)
        file = io.BytesIO()
        FigureCanvasAgg(figure).print_png(file)
        self._picture.value = file.getvalue()


class _Halted(Exception):
    """Ends a training's thread after an epoch."""


def _parsed_png(photo: Image.Image, parsed: Mapping[str, Sequence[ParsedFace]]) -> bytes:
    """Return the photograph and beside it each parser's faces laid over it, 360 pixels high."""
    plain = np.asarray(photo) / 255
    views = [plain]
    for faces in parsed.values():
        view = plain
        for face in faces:
            view = overlay(view, face.labels, face.colours, 0.55)
        views.append(view)
    height = 280
    width = round(height * photo.width / photo.height)
    pictures = [Image.fromarray((255 * view).round().astype(np.uint8)) for view in views]
    pictures = [picture.resize((width, height)) for picture in pictures]
    for picture, name in zip(pictures, ("photograph", *parsed), strict=True):
        ImageDraw.Draw(picture).text((6, 6), name, fill="white", stroke_width=2, stroke_fill="black")
    return _png(np.hstack([np.asarray(picture) / 255 for picture in pictures]))


def _redrawn(controls: Sequence, draw: Callable[[], bytes], *between) -> ipywidgets.VBox:
    picture = ipywidgets.Image(format="png", value=draw())
    picture.layout.max_width = "100%"

    def redraw(_):
        picture.value = draw()

    for control in controls:
        control.observe(redraw, "value")
    return ipywidgets.VBox([*controls, *between, picture])


def _named(name: str) -> dict:
    return {"description": name, "style": {"description_width": "13em"}}


def _wide() -> dict:
    return {"layout": {"width": "44em", "max_width": "100%"}}


def _slider(name: str, value: float, low: float, high: float, step: float = 0.1):
    return ipywidgets.FloatSlider(value=value, min=low, max=high, step=step, **_named(name), **_wide())


def _pieces(mask: np.ndarray) -> int:
    blobs = label_blobs(torch.as_tensor(mask).long()[None], "component", connectivity=8)
    return int((blobs.labels > 0).sum())


def _enlarged(image: np.ndarray) -> np.ndarray:
    factor = max(1, HEIGHT // len(image))
    return image.repeat(factor, 0).repeat(factor, 1)


def _png(image: np.ndarray) -> bytes:
    """Return float ``[H,W,3]`` in [0, 1] as the bytes of a PNG file."""
    file = io.BytesIO()
    Image.fromarray((255 * np.clip(image, 0, 1)).round().astype(np.uint8)).save(file, "PNG", compress_level=1)
    return file.getvalue()


def _png_of(figure) -> bytes:
    file = io.BytesIO()
    with plt.rc_context({"figure.constrained_layout.use": False, "savefig.bbox": None}):
        figure.savefig(file, format="png", dpi=130)
    plt.close(figure)
    return file.getvalue()
