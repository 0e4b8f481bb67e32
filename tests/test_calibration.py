"""Calibration: histograms, the choice of a range, and the pass over the images."""

from collections.abc import Sequence
from itertools import product

import keras
import numpy as np
import pytest
import scipy.stats

from keras_qat import Ranges, calibrate
from keras_qat.calibration import (
    METHODS,
    OBSERVERS,
    Histogram,
    calibrate_by_all,
    find_observer,
    merge,
    register_observer,
)
from keras_qat.calibration.histogram import EDGES
from keras_qat.calibration.measure import build_probe, largest_magnitude, sampled_columns
from keras_qat.calibration.methods import squared_errors
from keras_qat.errors import DataError, UnsupportedModelError, UserError
from keras_qat.graph import trace
from keras_qat.placement import plan
from keras_qat.types import Placement, QuantSpec, TensorRange

layers = keras.layers
INT8 = QuantSpec()
UINT8 = QuantSpec(signed=False, storage="uint8")

ORDERLESS = [method for method in OBSERVERS if method != "ema"]


def network() -> keras.Model:
    """Convolutions, batch norm, a residual Add, pooling, a classifier; weights drawn at random."""
    x = image = keras.Input((8, 8, 3), name="image")
    x = shortcut = layers.Conv2D(4, 3, padding="same", activation="relu", name="stem")(x)
    x = layers.BatchNormalization(name="bn")(layers.Conv2D(4, 3, padding="same", name="conv")(x))
    x = layers.ReLU(name="out")(layers.Add(name="add")([shortcut, x]))
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    model = keras.Model(image, layers.Dense(3, name="classes")(x), name="network")
    rng = np.random.default_rng(0)
    for weight in model.weights:
        positive = "variance" in weight.name or "gamma" in weight.name
        weight.assign(rng.uniform(0.5, 1.5, weight.shape) if positive else rng.normal(0, 0.4, weight.shape))
    return model


@pytest.fixture(scope="module")
def model() -> keras.Model:
    return network()


@pytest.fixture(scope="module")
def placement(model: keras.Model) -> Placement:
    return plan(trace(model).graph, "onnxruntime")


def images(count: int = 24) -> np.ndarray:
    """Images of different contrast, so that batches have ranges of different powers of two."""
    rng = np.random.default_rng(1)
    return (rng.normal(0, 1, (count, 8, 8, 3)) * rng.uniform(0.1, 6, (count, 1, 1, 1))).astype("float32")


def split(x: np.ndarray, size: int) -> list[np.ndarray]:
    return [x[i : i + size] for i in range(0, len(x), size)]


def activations(model: keras.Model, names: Sequence[str], x: np.ndarray) -> dict[str, np.ndarray]:
    """The outputs of layers as Keras computes them."""
    outputs = {name: model.get_layer(name).output for name in names}
    return {k: np.asarray(v) for k, v in keras.Model(model.input, outputs)(x).items()}


def assert_same_histogram(a: Histogram, b: Histogram) -> None:
    assert a.amax == b.amax
    np.testing.assert_array_equal(a.counts, b.counts)


# --- histograms -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1e-6, 0.3, 1.0, 77.0, 1e9])
def test_histogram_is_that_of_numpy(size: float) -> None:
    x = np.random.default_rng(2).normal(0, size, (40, 50)).astype("float32")
    histogram = Histogram.of(x)
    expected, _ = np.histogram(np.abs(x.astype("float64")), EDGES)
    np.testing.assert_array_equal(histogram.counts, expected)
    assert histogram.amax == np.abs(x).max()


def test_edges_split_every_power_of_two_evenly() -> None:
    assert (EDGES[0], EDGES[-1]) == (0, 2.0**128)
    first = int(np.searchsorted(EDGES, 1.0))
    np.testing.assert_array_equal(EDGES[first : first + 257], 1 + np.arange(257) / 256)


@pytest.mark.parametrize("sizes", [(1.0, 1.0), (1.0, 100.0), (100.0, 1.0), (1e-9, 1e9), (0.0, 3.0), (0.0, 0.0)])
def test_merged_is_the_histogram_of_all(sizes: tuple[float, float]) -> None:
    rng = np.random.default_rng(3)
    a, b = (rng.normal(0, 1, 3000) * size for size in sizes)
    assert_same_histogram(merge(Histogram.of(a), Histogram.of(b)), Histogram.of(np.concatenate([a, b])))
    assert_same_histogram(merge(Histogram.empty(), Histogram.of(b)), Histogram.of(b))


def test_histogram_of_nothing_and_of_zeros() -> None:
    assert Histogram.empty().counts.sum() == 0
    zeros = Histogram.of(np.zeros(10))
    assert (zeros.amax, zeros.counts[0], zeros.counts.sum()) == (0.0, 10, 10)


def test_rebinned_counts_are_those_of_numpy() -> None:
    x = np.abs(np.random.default_rng(4).normal(0, 1, 100_000)).astype("float32")
    edges = np.linspace(0, x.max(), 65)
    expected, _ = np.histogram(x, edges)
    counts = Histogram.of(x).rebinned(edges)
    assert counts.sum() == pytest.approx(len(x))
    # A bin that an edge cuts through is split by its width: of a thousand numbers there, some dozens on either side.
    np.testing.assert_allclose(counts, expected, atol=60)


# --- methods ----------------------------------------------------------------------------------------------------------


def best_amax(x: np.ndarray, q_max: int) -> tuple[float, float]:
    """Brute force in float64: (the amax with the least mean squared error over a fine grid, that error)."""
    x = np.abs(np.asarray(x, np.float64))
    grid = np.linspace(0.02, 1.0, 981) * x.max()
    errors = [squared_error(x, amax, q_max) for amax in grid]
    return float(grid[np.argmin(errors)]), min(errors)


def squared_error(x: np.ndarray, amax: float, q_max: int) -> float:
    s = amax / q_max
    return float(np.mean((x - s * np.minimum(np.rint(x / s), q_max)) ** 2))


def choose(method: str, x: np.ndarray, spec: QuantSpec = INT8) -> float:
    return METHODS[method](Histogram.of(x), spec)


@pytest.mark.parametrize("size", [1e-3, 1.0, 300.0])
def test_minmax_is_the_largest_magnitude_exactly(size: float) -> None:
    x = np.random.default_rng(5).normal(0, size, 1000).astype("float32")
    assert choose("minmax", x) == np.abs(x).max()
    assert choose("minmax", -np.abs(x)) == np.abs(x).max()


def test_percentile_of_uniform_is_in_closed_form() -> None:
    """Of numbers spread evenly over [0, 1], 99.99% lie below 0.9999, inside the last bin."""
    x = (np.arange(1_000_000) + 0.5) / 1_000_000
    assert choose("percentile", x) == pytest.approx(0.9999, abs=2e-6)
    assert choose("percentile", 64 * x) == pytest.approx(64 * 0.9999, abs=64 * 2e-6)


@pytest.mark.parametrize("relu", [False, True], ids=["gaussian", "relu-clipped"])
def test_percentile_of_gaussian_is_in_closed_form(*, relu: bool) -> None:
    """P(|x| > a) = 2 Q(a) = 1e-4 at a = 3.8906; behind a ReLU, P(x > a) = Q(a) = 1e-4 at a = 3.7190."""
    x = scipy.stats.norm.ppf((np.arange(2_000_000) + 0.5) / 2_000_000)
    x, expected = (np.maximum(x, 0), scipy.stats.norm.isf(1e-4)) if relu else (x, scipy.stats.norm.isf(0.5e-4))
    assert choose("percentile", x) == pytest.approx(expected, rel=1e-3)


def test_percentile_of_heavy_tails_is_in_closed_form() -> None:
    """Cauchy: P(|x| > a) = 1 - 2/π arctan(a) = 1e-4 at a = 6366.2; the largest of a million is far beyond."""
    x = scipy.stats.cauchy.ppf((np.arange(1_000_000) + 0.5) / 1_000_000)
    # Of a million the 100th largest is 1% from the 101st.
    assert choose("percentile", x) == pytest.approx(np.tan(np.pi / 2 * (1 - 1e-4)), rel=0.011)
    assert choose("minmax", x) > 5e5


def test_percentile_of_nearly_all_zeros_keeps_the_others() -> None:
    assert choose("percentile", np.append(np.zeros(100_000), 1.0)) == 1


def test_percentile_leaves_out_outliers() -> None:
    x = np.concatenate([np.random.default_rng(6).uniform(-1, 1, 100_000), [50.0, -60.0]])
    assert choose("percentile", x) == pytest.approx(1.0, abs=1 / 256)
    assert choose("minmax", x) == 60


@pytest.mark.parametrize("spec", [INT8, UINT8, QuantSpec(bits=4)], ids=["int8", "uint8", "int4"])
@pytest.mark.parametrize("size", [0.01, 1.0, 37.0])
def test_mse_of_gaussian_is_the_best_of_a_brute_force_search(spec: QuantSpec, size: float) -> None:
    """Within 2% of the error that the best range leaves, and within 5% of that range itself (the minimum is flat)."""
    x = np.random.default_rng(7).normal(0, size, 40_000)
    best, error = best_amax(x, spec.q_max)
    chosen = choose("mse", x, spec)
    assert squared_error(np.abs(x), chosen, spec.q_max) <= 1.02 * error
    assert chosen == pytest.approx(best, rel=0.05)


def test_mse_of_uniform_keeps_nearly_all() -> None:
    """Clipping costs more than the finer step gains where no number is rare."""
    x = np.random.default_rng(8).uniform(-3, 3, 50_000)
    assert 0.98 * 3 < choose("mse", x) <= np.abs(x).max()


def test_mse_of_laplace_clips_where_the_closed_form_says() -> None:
    """Banner et al. 2018 (https://arxiv.org/abs/1810.05723): for 4 bits the best range is 5.03 times the scale.

    Theirs has 16 steps between ±α; the symmetric grid has 15 between ±α and half a step beyond, hence the tolerance.
    """
    x = np.random.default_rng(9).laplace(0, 2.0, 200_000)
    chosen = choose("mse", x, QuantSpec(bits=4))
    assert chosen == pytest.approx(5.03 * 2.0, rel=0.1)
    assert chosen < 0.5 * np.abs(x).max()


def test_mse_clips_a_rare_outlier_well_below_the_largest_magnitude() -> None:
    """Clipping one number in a million from 30 to 5 costs 6e-4; a step fit for 30 would cost 5e-3."""
    x = np.concatenate([np.random.default_rng(10).normal(0, 1, 1_000_000), [30.0]])
    chosen = choose("mse", x)
    assert 3 < chosen < 15
    candidates = np.linspace(3, 30, 55)
    best = min(squared_error(np.abs(x), amax, 127) for amax in candidates)
    assert squared_error(np.abs(x), chosen, 127) <= 1.02 * best


def test_mse_keeps_an_outlier_that_would_cost_more_to_clip() -> None:
    """So far out that its error alone is more than that of all others rounded to zero."""
    x = np.concatenate([np.random.default_rng(10).normal(0, 1, 100_000), [1e4]])
    assert squared_error(np.abs(x), choose("mse", x), 127) <= squared_error(np.abs(x), 1e4, 127) * (1 + 1e-6)


def test_fewer_bits_clip_more() -> None:
    x = np.random.default_rng(11).normal(0, 1, 20_000)
    ranges = [choose("mse", x, QuantSpec(bits=bits)) for bits in (2, 4, 6, 8)]
    assert ranges == sorted(ranges)
    assert ranges[0] < 0.6 * ranges[-1]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", [0.37, -2.0, 1.0, 100.0])
def test_constant_tensor_is_represented(method: str, value: float) -> None:
    """Whatever range is chosen, the one number that occurs comes back to within half a step."""
    amax = choose(method, np.full(500, value))
    assert 0 < amax <= abs(np.float32(value))
    assert squared_error(np.full(1, value), amax, 127) ** 0.5 <= 0.5 * amax / 127 * (1 + 1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_all_zero_tensor_has_range_zero(method: str) -> None:
    assert choose(method, np.zeros(100)) == 0


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("factor", [2.0**-7, 4.0, 2.0**10])
def test_range_scales_with_the_numbers(method: str, factor: float) -> None:
    x = np.random.default_rng(12).normal(0, 1, 5000)
    assert choose(method, factor * x) == pytest.approx(factor * choose(method, x), rel=1e-12)


def test_squared_error_is_that_of_the_numbers_themselves() -> None:
    """The histogram's closed form against every number quantized in float64."""
    x = np.random.default_rng(14).gamma(2, 1, 200_000).astype("float32")
    amax = np.array([1.0, 3.0, 7.0, float(x.max())])
    for spec in (INT8, UINT8, QuantSpec(bits=4)):
        expected = [squared_error(x.astype("float64"), a, spec.q_max) * len(x) for a in amax]
        np.testing.assert_allclose(squared_errors(Histogram.of(x), amax, spec), expected, rtol=0.02)


def divergence_by_the_book(x: np.ndarray, i: int, bins: int, levels: int) -> float:
    """The slides' own steps, one number after another."""
    counts, _ = np.histogram(x, bins, (0, x.max()))
    counts[0] = counts[1]
    p = counts[:i].astype(float)
    p[-1] += counts[i:].sum()
    q = np.zeros(i)
    for level in range(levels):
        start, stop = level * i // levels, (level + 1) * i // levels
        occupied = [k for k in range(start, stop) if counts[k]]
        for k in occupied:
            q[k] = sum(counts[start:stop]) / len(occupied)
    return float(scipy.stats.entropy(p, q))


@pytest.mark.parametrize("draw", ["normal", "laplace", "exponential"])
def test_entropy_is_the_least_divergence_by_the_book(draw: str) -> None:
    """4 bits, so that the double loop ends; the histogram's bins are not exactly NumPy's, hence the tolerance."""
    x = np.abs(getattr(np.random.default_rng(15), draw)(size=100_000)).astype("float32")
    spec = QuantSpec(bits=4)
    levels, bins = 8, 128
    divergences = {i: divergence_by_the_book(x.astype("float64"), i, bins, levels) for i in range(levels, bins + 1)}
    chosen = round(choose("entropy", x, spec) / x.max() * bins)
    assert divergences[chosen] <= min(divergences.values()) * 1.1
    assert chosen < 0.9 * bins


def test_entropy_clips_outliers_and_keeps_uniform() -> None:
    rng = np.random.default_rng(16)
    assert choose("entropy", rng.uniform(-2, 2, 200_000)) == pytest.approx(2, rel=0.05)
    normal = rng.normal(0, 1, 200_000)
    for outlier in (40.0, 65.0, 1e3, 1e6):
        assert 2 < choose("entropy", np.append(normal, outlier)) < 10


def test_auto_has_the_least_squared_error_of_all_and_names_the_method() -> None:
    rng = np.random.default_rng(17)
    for x in (rng.normal(0, 1, 9000), rng.uniform(0, 1, 9000), rng.standard_t(2, 9000), np.full(50, 3.0)):
        histogram = Histogram.of(x)
        observer = find_observer("auto")
        choice = observer.finalize(observer.update(observer.init(), histogram), INT8)
        errors = {m: squared_errors(histogram, np.array([f(histogram, INT8)]), INT8)[0] for m, f in METHODS.items()}
        assert errors[choice.method] == min(errors.values())
        assert choice.amax == METHODS[choice.method](histogram, INT8)


def test_ema_is_in_closed_form() -> None:
    """Batches of largest magnitude 1, then n times 2: 2 - 0.9ⁿ."""
    observer = find_observer("ema")
    state = observer.update(observer.init(), Histogram.of(np.array([-1.0, 0.5])))
    assert observer.finalize(state, INT8) == (1.0, "ema")
    for n in range(1, 6):
        state = observer.update(state, Histogram.of(np.array([2.0])))
        assert observer.finalize(state, INT8).amax == pytest.approx(2 - 0.9**n)


def test_updating_leaves_the_old_state_alone() -> None:
    for observer in OBSERVERS.values():
        state = observer.update(observer.init(), Histogram.of(np.array([1.0, 2.0])))
        before = observer.finalize(state, INT8)
        observer.update(state, Histogram.of(np.array([100.0])))
        assert observer.finalize(state, INT8) == before


# --- the pass over the images -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def alone(model: keras.Model, placement: Placement) -> dict[str, Ranges]:
    """The ranges by each method in a pass of its own, over batches of 8."""
    return {method: calibrate(model, placement, split(images(), 8), method=method) for method in OBSERVERS}


def test_ranges_are_those_of_the_activations_in_numpy(
    model: keras.Model, placement: Placement, alone: dict[str, Ranges]
) -> None:
    """The probe counts inside the compiled forward pass; here Keras hands out the activations and NumPy counts."""
    x, specs = images(), placement.specs
    histograms = {name: Histogram.of(values) for name, values in activations(model, placement.observed, x).items()}
    for method in METHODS:
        ranges = alone[method]
        assert list(ranges) == list(placement.observed)
        for name, histogram in histograms.items():
            assert ranges[name].amax == pytest.approx(METHODS[method](histogram, specs[name]), rel=1e-5), (method, name)
            assert (ranges[name].method, ranges[name].images) == (method, len(x))


def test_minmax_is_exact(model: keras.Model, placement: Placement) -> None:
    x = images()
    ranges = calibrate(model, placement, split(x, 6), method="minmax")
    assert ranges["image"].amax == np.abs(x).max()
    for name, values in activations(model, placement.observed, x).items():
        assert ranges[name].amax == pytest.approx(np.abs(values).max(), rel=1e-6), name


def test_probe_counts_what_numpy_counts(model: keras.Model, placement: Placement) -> None:
    """The input tensor is the same number for number, so its histogram must be too."""
    x = images(4)
    counts, *largest = build_probe(trace(model), placement.observed, counts=True).predict_on_batch(x)["image"]
    amax = largest_magnitude(*largest)
    assert_same_histogram(Histogram(counts.astype(np.int64), float(amax)), Histogram.of(x))


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_of_a_large_tensor_some_columns_are_counted_and_the_largest_of_all_is_kept(data_format: str) -> None:
    """128 x 128 x 4 numbers: every third column of pixels."""
    shape = (128, 128, 4) if data_format == "channels_last" else (4, 128, 128)
    image = keras.Input(shape, name="image")
    model = keras.Model(image, layers.ReLU(name="relu")(image))
    x = np.random.default_rng(3).normal(0, 1, (2, *shape)).astype("float32")
    x[1, 0, 0, 0] = -77.0  # in a column that is not counted
    counts, *largest = build_probe(trace(model), ("image",), counts=True).predict_on_batch(x)["image"]
    assert largest_magnitude(*largest) == 77
    np.testing.assert_array_equal(counts, Histogram.of(x[:, :, 2::3]).counts)
    sampled = Histogram(counts.astype(np.int64), 77.0)
    shares = np.array([0.5, 0.9, 0.999])
    np.testing.assert_allclose(sampled.quantiles(shares), Histogram.of(x).quantiles(shares), rtol=0.03)


@pytest.mark.parametrize("size", range(8, 120, 7))
@pytest.mark.parametrize("channels", [8, 64, 2048])
def test_counted_columns_are_inside_even_and_odd(size: int, channels: int) -> None:
    columns = sampled_columns((None, size, size, channels))
    if columns is not None:
        assert 3 <= len(columns) < size
        assert 0 < columns[0] <= columns[-1] < size - 1
        assert len(set(np.diff(columns))) == 1
        assert set(columns % 2) == {0, 1}


def test_small_and_dynamic_tensors_are_counted_whole() -> None:
    assert sampled_columns((None, 14, 14, 64)) is None
    assert sampled_columns((None, None, 112, 64)) is None
    assert sampled_columns((None, 100_000)) is None


def test_placement_without_pairs_has_no_ranges() -> None:
    x = keras.Input((4,), name="x")
    model = keras.Model(x, layers.Softmax(name="softmax")(x))
    assert dict(calibrate(model, plan(trace(model).graph, "tensorrt"), [np.ones((2, 4), "float32")])) == {}


def test_the_global_policy_does_not_round_what_is_observed(model: keras.Model, placement: Placement) -> None:
    x = 1e5 * images(4)
    expected = calibrate(model, placement, [x], method="minmax")
    before = keras.mixed_precision.dtype_policy()
    keras.mixed_precision.set_dtype_policy("mixed_float16")
    try:
        ranges = calibrate(model, placement, [x], method="minmax")
    finally:
        keras.mixed_precision.set_dtype_policy(before)
    assert ranges == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [([1.0, -2.0], 2), ([3.0, -2.0], 3), ([-1.0, -4.0], 4), ([0.0, -0.0], 0), ([-0.0, 5.0], 5), ([0.0], 0)],
)
def test_largest_magnitude_of_bits(values: list[float], expected: float) -> None:
    bits = np.array(values, np.float32).view(np.int32)
    assert largest_magnitude(bits.max(), bits.view(np.uint32).max()) == expected


@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf])
def test_largest_magnitude_is_not_finite_where_a_number_is_not(value: float) -> None:
    bits = np.array([1.0, value, -3.0, np.copysign(value, -1)], np.float32).view(np.int32)
    assert not np.isfinite(largest_magnitude(bits.max(), bits.view(np.uint32).max()))


def test_all_methods_in_one_pass_are_each_alone(
    model: keras.Model, placement: Placement, alone: dict[str, Ranges]
) -> None:
    together = calibrate_by_all(model, placement, iter(split(images(), 8)), tuple(OBSERVERS))
    for method in OBSERVERS:
        assert {n: r.amax for n, r in together[method].items()} == {n: r.amax for n, r in alone[method].items()}


def test_order_of_the_images_makes_no_difference(model: keras.Model, placement: Placement) -> None:
    batches = split(images(), 4)
    expected = calibrate_by_all(model, placement, batches, ORDERLESS)
    assert calibrate_by_all(model, placement, batches[::-1], ORDERLESS) == expected
    shuffled = [batches[i] for i in np.random.default_rng(13).permutation(len(batches))]
    assert calibrate_by_all(model, placement, shuffled, ORDERLESS) == expected


def test_batch_size_makes_no_difference(model: keras.Model, placement: Placement) -> None:
    """Up to the last bits of float32: a convolution over another batch size may add in another order."""
    x = images()
    whole = calibrate_by_all(model, placement, [x], ORDERLESS)
    for size in (1, 7):
        parts = calibrate_by_all(model, placement, split(x, size), ORDERLESS)
        for method, name in product(ORDERLESS, placement.observed):
            chosen = parts[method][name]
            assert chosen.amax == pytest.approx(whole[method][name].amax, rel=1e-5), (method, name, size)
            assert chosen.images == len(x)


def test_input_on_powers_of_two_is_counted_alike_in_any_batch_size(model: keras.Model, placement: Placement) -> None:
    """Numbers exactly on the edges of bins."""
    values = 2.0 ** np.arange(-10, 14)
    x = np.ones((24, 8, 8, 3), "float32") * values[:, None, None, None].astype("float32")
    one_by_one, at_once = (calibrate_by_all(model, placement, batches, ORDERLESS) for batches in (split(x, 1), [x]))
    for method in ORDERLESS:
        assert one_by_one[method]["image"].amax == at_once[method]["image"].amax


def test_labels_beside_the_images_are_ignored(model: keras.Model, placement: Placement) -> None:
    x = images(8)
    expected = calibrate(model, placement, [x])
    assert calibrate(model, placement, [(x, np.zeros(8))]) == expected
    assert calibrate(model, placement, [[x, np.zeros(8)]]) == expected
    assert calibrate(model, placement, iter([x]), total=1) == expected


def test_dead_tensor_gets_range_zero() -> None:
    """A ReLU that never fires: its range is 0, and the other tensors have theirs."""
    image = keras.Input((8, 8, 3), name="image")
    dead = layers.Conv2D(2, 1, activation="relu", kernel_initializer="zeros", name="dead")(image)
    model = keras.Model(image, layers.Conv2D(2, 1, name="last")(dead))
    by_method = calibrate_by_all(model, plan(trace(model).graph, "tensorrt"), [images(4)], tuple(OBSERVERS))
    for ranges in by_method.values():
        assert ranges["dead"].amax == 0
        assert ranges["image"].amax > 1


def test_batch_norm_runs_as_in_inference(model: keras.Model, placement: Placement) -> None:
    """One bright batch must be judged by the moving statistics, and must not move them."""
    before = model.get_weights()
    x = 50 * images(4)
    ranges = calibrate(model, placement, [x], method="minmax")
    expected = np.abs(activations(model, ["bn"], x)["bn"]).max()
    assert ranges["bn"].amax == pytest.approx(expected, rel=1e-6)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("operation", [False, True], ids=["layers", "with keras.ops"])
def test_the_callers_model_is_untouched(*, operation: bool) -> None:
    model = network()
    if operation:
        model = keras.Model(model.input, layers.Dense(2, name="more")(keras.ops.tanh(model.output)))
    operations = [call.operation for call in trace(model).calls.values()]
    before = [len(op._inbound_nodes) for op in operations]
    weights = model.get_weights()
    calibrate(model, plan(trace(model).graph, "tensorrt"), [images(4)])
    assert [len(op._inbound_nodes) for op in operations] == before
    assert all(op.output is not None for op in operations)
    for old, new in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batches", [[], [np.zeros((0, 8, 8, 3), "float32")]], ids=["no batch", "empty batch"])
def test_no_images(model: keras.Model, placement: Placement, batches: list[np.ndarray]) -> None:
    with pytest.raises(DataError, match="0 images"):
        calibrate(model, placement, batches)


def test_empty_batch_among_others_is_nothing(model: keras.Model, placement: Placement) -> None:
    x = images(4)
    with_empty: dict[str, TensorRange] = dict(calibrate(model, placement, [x, x[:0]]))
    assert with_empty == calibrate(model, placement, [x])


@pytest.mark.parametrize("shape", [(2, 9, 8, 3), (2, 8, 8, 1), (8, 8, 3), (2, 3, 8, 8)])
def test_images_of_another_shape(model: keras.Model, placement: Placement, shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match=r"'network'.*Received: a batch of shape \("):
        calibrate(model, placement, [np.zeros(shape, "float32")])


@pytest.mark.parametrize("value", [3e38, -3e38])
@pytest.mark.parametrize("where", ["one", "all"])
def test_weights_that_overflow_name_the_tensor(value: float, where: str) -> None:
    """The first tensor behind them, even where a ReLU would swallow the NaN."""
    model = network()
    placement = plan(trace(model).graph, "onnxruntime")
    kernel, bias = model.get_layer("conv").get_weights()
    kernel[(0, 0, 0, 0) if where == "one" else ...] = value
    model.get_layer("conv").set_weights([kernel, bias])
    with pytest.raises(UnsupportedModelError, match=r"'bn' is not finite"):
        calibrate(model, placement, [images(4)])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_one_pixel_that_is_not_finite_names_the_image(model: keras.Model, placement: Placement, value: float) -> None:
    x = images(4)
    x[2, 3, 4, 1] = value
    with pytest.raises(DataError, match=r"'image' is not finite.*preprocessing"):
        calibrate(model, placement, [x])


def test_unknown_method_lists_the_known(model: keras.Model, placement: Placement) -> None:
    with pytest.raises(UserError, match=r"'entrophy'.*minmax, ema, percentile, entropy, mse, auto"):
        calibrate(model, placement, [images(4)], method="entrophy")


def test_the_name_of_an_observer_is_not_taken_twice() -> None:
    with pytest.raises(UserError, match="Received: 'mse'"):
        register_observer("mse", find_observer("minmax"))
    assert find_observer("mse") is not find_observer("minmax")
