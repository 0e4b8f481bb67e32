"""The page in a real browser: what it shows is what the files say, at any width, in light and dark, without network."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import pytest

from keras_qat import plan, trace
from keras_qat.calibration import Histogram, Ranges
from keras_qat.calibration.histogram import bars, summarize
from keras_qat.evaluation import Diagnosis, KernelDiagnosis, OutputDiagnosis, TensorDiagnosis, advise
from keras_qat.files import write_json
from keras_qat.placement import load_placement, save_placement
from keras_qat.report import write_page
from keras_qat.run import RunFolder
from keras_qat.types import Placement, TensorRange

playwright = pytest.importorskip("playwright.sync_api", reason="playwright isn't installed: pip install playwright")

layers = keras.layers
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
HOSTILE = "</script><img src=x onerror=\"document.body.dataset.hacked='yes'\">"
WIDTHS = (390, 1366, 2200)


def placed() -> Placement:
    """Of a small residual network, one layer of which is called twice."""
    x = image = keras.Input((8, 8, 3), name="image")
    x = layers.ZeroPadding2D(1, name="pad")(x)
    x = layers.Conv2D(4, 3, name="thestem")(x)
    x = relu = layers.ReLU(name="thestem_relu")(x)
    twice = layers.Conv2D(4, 1, name="twice")
    x = layers.Add(name="add")([relu, twice(twice(x))])
    x = layers.MaxPooling2D(2, name="pool")(x)
    x = layers.Flatten(name="flat")(x)
    return plan(trace(keras.Model(image, layers.Dense(5, name="head")(x))).graph, "onnxruntime")


def diagnosed(placement: Placement, ranges: Ranges, better: float) -> dict[str, Any]:
    tensors = tuple(
        TensorDiagnosis(
            it.tensor, it.tensor.partition(":")[0], it.spec, ranges[it.range_of].amax, db + better, db, 0, 0
        )
        for db, it in enumerate(placement.tensors, start=25)
    )
    kernels = tuple(KernelDiagnosis(it.layer, it.spec, 41.0, None) for it in placement.weights if it.spec is not None)
    found = Diagnosis(tensors, kernels, (OutputDiagnosis("head", 24.5),), images=64)
    return {**found.to_dict(), "advice": [one.to_dict() for one in advise(found)]}


def results(model: str) -> dict[str, Any]:
    rows = []
    for name, top1, ms, size in (
        ("Baseline", 0.95, 3.0, 94_000_000),
        ("PTQ", 0.94, 1.5, 23_500_000),
        ("QAT", 0.945, 1.5, 23_500_000),
    ):
        timed = {"median_ms": ms, "p90_ms": 1.25 * ms, "runs": 60, "device": "CPU"}
        shares = {f"{where}_top{k}": top1 + (k > 1) * 0.03 for where in ("keras", "deployed") for k in (1, 5)}
        errors = [] if name == "Baseline" else [{"tensor": "thestem", "differing": 0.001, "worst": 1.0}]
        alike = {"agreement": 0.98, "simulation_agreement": 0.99, "simulation_sqnr": 40.0, "keras_agreement": 0.98}
        latencies = {"keras_latency": timed, "deployed_latency": timed}
        rows.append({"name": name, **shares, **latencies, **alike, "tensor_errors": errors, "size_bytes": size})
    epochs = ((0, None, 0.3, 0.9), (1, 3e-6, 0.2, 0.94), (2, 1e-6, 0.25, 0.93))
    history = [
        {
            "epoch": epoch, "learning_rate": rate, "train_loss": rate, "train_accuracy": rate, "selection_loss": loss,
            "selection_accuracy": accuracy, "selection_agreement": accuracy, "seconds": 1.0,
        }
        for epoch, rate, loss, accuracy in epochs
    ]  # fmt: skip
    machine = {"cpu": "a CPU", "cores": 2, "vnni": True, "system": "Linux", "python": "3", "packages": {"keras": "3"}}
    return {
        "model": model, "data": "digits", "target": "onnxruntime", "images": 200, "engine": "ONNX Runtime",
        "rows": rows, "best_epoch": 1, "history": history, "settings": {"model": model}, "environment": machine,
        "seconds": {"load": 1.0},
    }  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run."""
    path = tmp_path_factory.mktemp("runs") / "small"
    rng = np.random.default_rng(0)
    placement = placed()
    histograms = {name: Histogram.of(rng.normal(0, 1, 4000)) for name in placement.observed}
    ranges = Ranges(
        {name: TensorRange(0.9 * it.amax, "mse", 8, summarize(it), bars(it)) for name, it in histograms.items()}
    )
    save_placement(placement, path / "placement.json")
    ranges.save(path / "ranges.json")
    write_json(path / "results.json", results("small"))
    for name, better in (("ptq", 0.0), ("qat", 3.0)):
        write_json(path / f"{name}_diagnosis.json", diagnosed(placement, ranges, better))
    RunFolder(path).write_page()
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if BROWSER is None:
        pytest.skip("no Chromium in PATH: the page can't be looked at (apt-get install chromium)")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=BROWSER, args=FLAGS)
        yield started
        started.close()


class Opened(NamedTuple):
    page: Any
    problems: list[str]

    def draw_graph(self, run: str = "run0") -> None:
        canvas = self.page.locator(f"#{run} .canvas")
        canvas.scroll_into_view_if_needed()
        self.page.wait_for_selector(f"#{run} .canvas[data-drawn]", timeout=20_000)


@pytest.fixture
def open_page(browser: Any) -> Iterator[Any]:
    """Open a file: the page, and a list that gathers all that goes wrong or wants to go out."""
    contexts = []

    def call(path: Path, width: int = 1366) -> Opened:
        context = browser.new_context(viewport={"width": width, "height": 800})
        contexts.append(context)
        page, problems = context.new_page(), []
        page.on("console", lambda message: problems.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: problems.append(f"error: {error}"))
        page.on("requestfailed", lambda request: problems.append(f"failed: {request.url}"))
        page.on("request", lambda it: problems.append(it.url) if it.url.startswith(("http", "ws", "//")) else None)
        page.goto(path.as_uri())
        page.wait_for_selector(".chart svg")
        return Opened(page, problems)

    yield call
    for context in contexts:
        context.close()


def graph_of(folder: Path) -> tuple[int, int, int]:
    """Boxes, arrows, quantized arrows as they must be: counted from the placement by hand."""
    placement = load_placement(folder / "placement.json")
    home = {node: i for i, kernel in enumerate(placement.kernels) for node in kernel.nodes}
    between = [edge for edge in placement.edges if home[edge.tensor] != home.get(edge.consumer)]
    pairs = {edge.tensor for edge in between if edge.quantized}
    quantized = sum(edge.quantized for edge in between) + len(pairs)
    return len(placement.kernels) + len(placement.tensors) + 1, len(between) + len(pairs), quantized


# --- any window -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", WIDTHS)
def test_no_error_no_request_no_sideways_scroll(folder: Path, open_page: Any, width: int) -> None:
    opened = open_page(folder / "report.html", width)
    opened.draw_graph()
    page = opened.page
    drawn = page.locator('.chart:not([data-chart="training"])')
    assert [it.locator("svg").count() for it in drawn.all()] == [1] * drawn.count()
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        ground, text = page.evaluate("(({backgroundColor: b, color: c}) => [b, c])(getComputedStyle(document.body))")
        light = [sum(map(int, it[4:-1].split(","))) for it in (ground, text)]
        assert (light[0] > light[1]) == (scheme == "light")
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 718, "height": 1000})  # A4 without its margins.
    assert page.evaluate("document.documentElement.scrollWidth") <= 718
    assert opened.problems == []


# --- what is shown is what the files say ------------------------------------------------------------------------------


def test_results_table(folder: Path, open_page: Any) -> None:
    page = open_page(folder / "report.html").page
    expected = [
        [
            row["name"],
            f"{100 * row['keras_top1']:.2f}%",
            f"{row['keras_latency']['median_ms']:.2f} ms (p90 {row['keras_latency']['p90_ms']:.2f})",
            f"{100 * row['deployed_top1']:.2f}%",
            f"{row['deployed_latency']['median_ms']:.2f} ms (p90 {row['deployed_latency']['p90_ms']:.2f})",
            f"{100 * row['agreement']:.2f}%",
            f"{row['size_bytes'] / 1e6:.1f} MB",
        ]
        for row in json.loads((folder / "results.json").read_text())["rows"]
    ]
    shown = [row.locator("th, td").all_inner_texts() for row in page.locator("table.results tbody tr").all()]
    assert shown == expected
    assert page.locator(".verdict").inner_text().startswith("INT8 (QAT) is 2.0× faster and 4.0× smaller than float")


def test_charts_say_in_words_what_they_show(folder: Path, open_page: Any) -> None:
    page = open_page(folder / "report.html").page
    said = page.locator(".chart svg[role=img]").evaluate_all("all => all.map((it) => it.getAttribute('aria-label'))")
    assert "Top-1 with 95% intervals of 200 images." in said[0]
    assert said[1] == (
        "Latency of one image, deployed. Baseline: median 3.00 ms, p90 3.75 ms; PTQ: median 1.50 ms, p90 1.88 ms; "
        "QAT: median 1.50 ms, p90 1.88 ms."
    )
    assert all(said)


def test_layers_of_each_variant(folder: Path, open_page: Any) -> None:
    page = open_page(folder / "report.html").page
    worst = page.locator(".variant:visible .pair table tbody tr").first
    assert worst.locator("th, td").all_inner_texts()[:3] == ["image", "25.0 dB", "25.0 dB"]
    page.get_by_role("radio", name="QAT").check()
    assert worst.locator("th, td").all_inner_texts()[:3] == ["image", "28.0 dB", "25.0 dB"]
    rows = page.locator(".variant:visible details tbody tr")
    placement = load_placement(folder / "placement.json")
    assert rows.count() == len(placement.tensors) + len({it.layer for it in placement.weights if it.spec})
    # In the order of the graph, a kernel before what it makes.
    names = [cell.strip() for cell in rows.locator("th").all_text_contents()]
    assert names.index("image") < names.index("kernel of thestem") < names.index("thestem_relu")
    assert names.index("thestem_relu") < names.index("kernel of twice") < names.index("kernel of head")


def test_a_chosen_tensor_shows_its_clip(folder: Path, open_page: Any) -> None:
    page = open_page(folder / "report.html").page
    ranges = Ranges.load(folder / "ranges.json")
    for name in ("thestem_relu", "image"):
        page.get_by_label("Tensor", exact=True).select_option(label=name)
        assert f"clip {ranges[name].amax:.4g}" in page.locator('[data-chart="tensor"] svg').text_content()
        assert f"{ranges[name].amax:.4g}, by mse on 8 images" in page.locator(".tensor-facts").inner_text()
    page.locator(".variant:visible .pair").get_by_role("button", name="thestem_relu").click()
    assert page.locator('[data-chart="tensor"]').get_attribute("data-tensor") == "thestem_relu"


def test_the_best_epoch_is_marked(folder: Path, open_page: Any) -> None:
    page = open_page(folder / "report.html").page
    titles = page.locator('[data-chart="training"] figcaption').all_inner_texts()
    assert titles == ["Loss", "Top-1, %", "Agreement with float, %", "Learning rate"]
    assert page.locator('[data-chart="training"] [stroke-dasharray]').count() == 4
    assert "best epoch by loss on the selection images: epoch 1." in page.locator("#run0-training").inner_text()


# --- the placement ----------------------------------------------------------------------------------------------------


def test_graph_is_the_placement_with_its_reasons(folder: Path, open_page: Any) -> None:
    opened = open_page(folder / "report.html")
    opened.draw_graph()
    canvas = opened.page.locator(".canvas")
    counted = [canvas.locator(it).count() for it in ("g.box", "g.arrow", "g.arrow.quantized")]
    boxes, arrows, quantized = graph_of(folder)
    # Behind a pair numbers stay on the grid through padding and reshape: more arrows than edges with a pair.
    assert counted[:2] == [boxes, arrows]
    assert counted[2] >= quantized
    titles = "\n".join(canvas.locator("title").all_text_contents())
    placement = load_placement(folder / "placement.json")
    home = {node: i for i, kernel in enumerate(placement.kernels) for node in kernel.nodes}
    for edge in placement.edges:
        inside = home[edge.tensor] == home.get(edge.consumer)
        assert inside or f"→ {edge.consumer}[{edge.index}]: {edge.reason}" in titles
    for weight in placement.weights:
        assert weight.reason in titles


def test_a_box_is_found_and_explained(folder: Path, open_page: Any) -> None:
    opened = open_page(folder / "report.html")
    opened.draw_graph()
    page, panel = opened.page, opened.page.locator(".panel")
    page.get_by_label("Find a layer").fill("ADD")
    placement = load_placement(folder / "placement.json")
    reasons = [edge.reason for edge in placement.edges if edge.consumer == "add"]
    assert panel.locator("h4").first.inner_text() == "add (add)"
    assert all(reason in panel.inner_text() for reason in reasons)
    assert page.locator("g.box.chosen").text_content().startswith("add (add)")
    page.get_by_role("button", name="Whole").click()
    page.locator("g.box", has_text="thestem (conv)").first.click()
    assert panel.locator("h4").first.inner_text() == "thestem (conv)"
    panel.get_by_role("button", name="zero-point").last.click()
    panel.get_by_role("button", name="Look at the tensor").click()
    assert page.locator('[data-chart="tensor"]').get_attribute("data-tensor") == "thestem_relu"
    page.get_by_label("Find a layer").fill("nowhere")
    assert page.get_by_label("Find a layer").get_attribute("aria-invalid") == "true"
    assert opened.problems == []


def test_graph_by_keyboard(folder: Path, open_page: Any) -> None:
    opened = open_page(folder / "report.html")
    opened.draw_graph()
    page = opened.page
    page.get_by_role("button", name="Whole").focus()
    page.keyboard.press("Tab")
    moved = [page.locator(".canvas svg > g").get_attribute("transform")]
    for key in ("n", "ArrowDown", "+", "0"):
        page.keyboard.press(key)
        moved.append(page.locator(".canvas svg > g").get_attribute("transform"))
    assert len(set(moved[:4])) == 4
    assert "uint8" in page.locator(".panel h4").first.inner_text()


# --- names, missing files, several runs -------------------------------------------------------------------------------


def test_a_hostile_name_does_nothing(folder: Path, open_page: Any, tmp_path: Path) -> None:
    for path in folder.glob("*.json"):
        text = path.read_text(encoding="utf-8").replace("thestem", json.dumps(HOSTILE)[1:-1])
        (tmp_path / path.name).write_text(text, encoding="utf-8")
    opened = open_page(RunFolder(tmp_path).write_page())
    opened.draw_graph()
    page = opened.page
    page.get_by_label("Find a layer").fill("onerror")
    assert page.locator(".panel h4").first.inner_text() == f"{HOSTILE} (conv)"
    page.get_by_label("Tensor", exact=True).select_option(label=f"{HOSTILE}_relu")
    assert page.locator("img").count() == 0
    assert page.evaluate("document.body.dataset.hacked") is None
    # Were it to slip through, the policy of the page would stop it.
    page.evaluate("html => { document.body.insertAdjacentHTML('beforeend', html); }", HOSTILE)
    page.wait_for_timeout(50)
    assert page.evaluate("document.body.dataset.hacked") is None
    assert any("Content Security Policy" in problem for problem in opened.problems)


def test_only_results(folder: Path, open_page: Any, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_bytes((folder / "results.json").read_bytes())
    opened = open_page(RunFolder(tmp_path).write_page())
    text = opened.page.locator("main").inner_text()
    for name in ("placement.json", "ranges.json", "ptq_diagnosis.json", "qat_diagnosis.json"):
        assert f"The run has no {name}." in text
    assert opened.problems == []


def test_several_runs(folder: Path, open_page: Any, tmp_path: Path) -> None:
    second = tmp_path / "second"
    shutil.copytree(folder, second)
    write_json(second / "results.json", results("second"))
    opened = open_page(write_page([RunFolder(folder).read(), RunFolder(second).read()], tmp_path / "all.html"))
    page = opened.page
    groups = page.locator("table.networks tbody").all()
    assert [group.locator("th[scope=rowgroup]").inner_text().split()[0] for group in groups] == ["small", "second"]
    assert [group.locator("th[scope=row]").all_inner_texts() for group in groups] == [["Baseline", "PTQ", "QAT"]] * 2
    assert [page.locator(f"#run{i}").is_visible() for i in range(2)] == [True, False]
    page.get_by_label("Details of").select_option(index=1)
    page.wait_for_selector("#run1 .chart svg")
    opened.draw_graph("run1")
    assert [page.locator(f"#run{i}").is_visible() for i in range(2)] == [False, True]
    page.locator("table.networks a").first.click()
    page.wait_for_selector("#run0", state="visible")
    assert [page.locator(f"#run{i}").is_visible() for i in range(2)] == [True, False]
    assert page.evaluate("document.documentElement.scrollWidth") <= 1366
    assert opened.problems == []
