"""Every mapped aten operator, by torch's own samples: values and gradients equal torch's, or the case is refused by name.

A name that `op_db` does not have, or does not reach, has cases of its own here; a name without any fails.
"""

import pytest
import torch
from torch import nn

import mithril as ml
from mithril.interop.mapping import MAPPINGS
from tests.mithril.interop.upstream import Call, Case, compare, infos, samples

A = torch.ops.aten
F = nn.functional


def n(*shape):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(len(shape))).requires_grad_()


def i(high, *shape):
    return torch.randint(high, shape, generator=torch.Generator().manual_seed(high))


def layers(kind, **options):
    """A recurrent module's operator and its arguments."""
    module = getattr(nn, kind)(3, 4, **options).double()
    return (lambda x: module(x)[0], n(5, 2, 3))


def cell(kind, **options):
    module = getattr(nn, kind)(3, 4, **options).double()
    return (module, n(2, 3))


def bag(weight, index, mode):
    return F.embedding_bag(index, weight, torch.tensor([0, 2, 2, 5]), mode=mode, padding_idx=1)


OWN = {
    "__and__": [(A.__and__, i(9, 4), i(5, 4))], "__or__": [(A.__or__, i(9, 4), i(5, 4))],
    "__xor__": [(A.__xor__, i(9, 4), i(5, 4))],
    "_assert_tensor_metadata": [(lambda x: (A._assert_tensor_metadata(x, dtype=x.dtype), x * 2)[1], n(3))],
    "_cdist_forward": [(A._cdist_forward, n(3, 4).detach(), n(5, 4).detach(), 2.0, None)],
    "_log_softmax": [(A._log_softmax, n(3, 4), 1, False)], "_softmax": [(A._softmax, n(3, 4), 1, False)],
    "_native_batch_norm_legit_no_training": [
        (lambda x, w: A._native_batch_norm_legit_no_training(x, w, w, w.detach(), w.detach() ** 2 + 1, 0.1, 1e-5)[0],
         n(3, 4, 2), n(4))],
    "_to_copy": [(lambda x: A._to_copy(x, dtype=torch.float32), n(3))],
    "_unsafe_view": [(lambda x: A._unsafe_view(x, [2, 6]), n(3, 4))],
    "_unsafe_index_put": [(lambda x, v, k: A._unsafe_index_put(x, [k], v), n(5, 2), n(2, 2), torch.tensor([3, 1]))],
    "_index_put_impl": [(lambda x, v, k: A._index_put_impl(x, [k], v), n(5, 2), n(2, 2), torch.tensor([3, 1]))],
    "_upsample_nearest_exact1d": [(lambda x: F.interpolate(x, 7, mode="nearest-exact"), n(1, 2, 5))],
    "_upsample_nearest_exact3d": [(lambda x: F.interpolate(x, (3, 5, 2), mode="nearest-exact"), n(1, 2, 2, 3, 4))],
    "adjoint": [(lambda x: x.adjoint() * 2, n(2, 3))], "alias": [(lambda x: A.alias(x) * 2, n(2, 3))],
    "numpy_T": [(lambda x: x.T * 2, n(2, 3))], "mT": [(lambda x: x.mT * 2, n(2, 2, 3))],
    "clip": [(lambda x: torch.clip(x, -0.5, 0.5), n(3, 4))],
    "col2im": [(lambda x: F.fold(x, (4, 5), 2), n(2, 12, 12))], "im2col": [(lambda x: F.unfold(x, 2), n(2, 3, 4, 5))],
    "concat": [(lambda x, y: torch.concat((x, y), 1), n(2, 3), n(2, 1))],
    "concatenate": [(lambda x, y: torch.concatenate((x, y), 1), n(2, 3), n(2, 1))],
    "contiguous": [(lambda x: x.t().contiguous() * 2, n(2, 3))],
    "convolution": [(lambda x, w: A.convolution(x, w, None, [1], [1], [1], False, [0], 1), n(1, 2, 5), n(3, 2, 3)),
                    (lambda x, w: A.convolution(x, w, None, [2], [1], [1], True, [1], 1), n(1, 2, 5), n(2, 3, 3))],
    "copy": [(lambda x, y: A.copy(x, y) * 2, n(3, 4).detach(), n(4).detach())],
    "convert_element_type": [(lambda x: torch.ops.prims.convert_element_type(x, torch.float32), n(3).detach())],
    "divide": [(lambda x, y: torch.divide(x, y), n(3, 4), n(4))],
    "detach": [(lambda x: x * x.detach(), n(3))],
    "as_strided": [(lambda x: x.as_strided((2, 3), (1, 2), 1), n(3, 4)), (lambda x: torch.diag(x, 1), n(3, 4))],
    "pad": [(A.pad, n(2, 3, 4), [1, 2], mode) for mode in ("constant", "reflect", "replicate", "circular")],
    "avg_pool2d": [(lambda x: F.avg_pool2d(x, 3, 2, 1), n(2, 3, 7, 8)), (lambda x: F.avg_pool2d(x, 2), n(3, 4, 6))],
    "upsample_nearest2d": [(lambda x: F.interpolate(x, (7, 5)), n(1, 2, 3, 4))],
    "_upsample_nearest_exact2d": [(lambda x: F.interpolate(x, (7, 5), mode="nearest-exact"), n(1, 2, 3, 4))],
    "fill": [(lambda x: A.fill(x, 2.5) * x, n(3, 4)), (lambda x, y: A.fill(x, y) * x, n(3, 4), n().detach())],
    "dropout": [(lambda x: A.dropout(x, 0.5, False) * 2, n(3))],
    "alpha_dropout": [(lambda x: A.alpha_dropout(x, 0.5, False) * 2, n(3))],
    "feature_dropout": [(lambda x: A.feature_dropout(x, 0.5, False) * 2, n(3, 2))],
    "feature_alpha_dropout": [(lambda x: A.feature_alpha_dropout(x, 0.5, False) * 2, n(3, 2))],
    "grid_sampler_2d": [(lambda x, g: A.grid_sampler_2d(x, g, 0, 0, False), n(1, 2, 4, 5), n(1, 3, 3, 2))],
    "grid_sampler_3d": [
        (lambda x, g: A.grid_sampler_3d(x, g, 0, 0, False), n(2, 2, 4, 5, 3), n(2, 3, 1, 2, 3)),
        (lambda x, g: F.grid_sample(x, g, padding_mode="border", align_corners=True), n(1, 2, 4, 5, 3), n(1, 3, 2, 2, 3)),
        (lambda x, g: F.grid_sample(x, g, padding_mode="reflection"), n(1, 2, 4, 5, 3), n(1, 3, 2, 2, 3)),
        (lambda x, g: F.grid_sample(x, g, mode="nearest"), n(1, 2, 4, 5, 3), n(1, 3, 2, 2, 3)),
    ],
    **{f"_upsample_{mode}2d_aa": [
        (lambda x, mode=mode: F.interpolate(x, (5, 4), mode=mode, antialias=True), n(2, 2, 9, 8)),
        (lambda x, mode=mode: F.interpolate(x, (4, 15), mode=mode, antialias=True, align_corners=True), n(1, 2, 9, 8)),
        (lambda x, mode=mode: F.interpolate(x, scale_factor=(0.4, 1.3), mode=mode, antialias=True), n(1, 2, 9, 8)),
    ] for mode in ("bilinear", "bicubic")},
    "max.dim": [(lambda x: x.round().max(1)[0], n(4, 9)), (lambda x: x.round().max(0, keepdim=True)[0], n(4, 9))],
    "min.dim": [(lambda x: x.round().min(1)[0], n(4, 9)), (lambda x: (x > 0).double().mul(x * 0 + 1).min(1)[0], n(4, 9))],
    "gru.input": [layers("GRU")], "lstm.input": [layers("LSTM")], "rnn_tanh.input": [layers("RNN")],
    "rnn_relu.input": [layers("RNN", nonlinearity="relu")],
    "gru_cell": [cell("GRUCell")], "rnn_tanh_cell": [cell("RNNCell")],
    "lstm_cell": [cell("LSTMCell")],
    "rnn_relu_cell": [cell("RNNCell", nonlinearity="relu")],
    "inverse": [(lambda x: A.inverse(x @ x.mT + torch.eye(3, dtype=x.dtype)), n(3, 3))],
    "layer_norm": [(lambda x, w: F.layer_norm(x, (4,), w), n(3, 4), n(4))],
    "lift_fresh": [(lambda x: A.lift_fresh(x) * 2, n(3))],
    "lift_fresh_copy": [(lambda x: x * torch.tensor([2.0, 3.0, 4.0], dtype=x.dtype), n(3))],
    "linalg_inv": [(lambda x: torch.linalg.inv(x @ x.mT + torch.eye(3, dtype=x.dtype)), n(3, 3))],
    "linalg_cholesky": [(lambda x: torch.linalg.cholesky(x @ x.mT + torch.eye(3, dtype=x.dtype)), n(3, 3))],
    "cholesky": [(lambda x: A.cholesky(x @ x.mT + torch.eye(3, dtype=x.dtype)), n(3, 3))],
    "linalg_solve": [(lambda x, y: A.linalg_solve(x @ x.mT + torch.eye(3, dtype=x.dtype), y), n(3, 3), n(3, 2))],
    "linalg_matmul": [(A.linalg_matmul, n(2, 3), n(3, 4))],
    "linalg_diagonal": [(lambda x: A.linalg_diagonal(x, offset=1) * 2, n(2, 3, 4))],
    "max_pool1d": [(lambda x: F.max_pool1d(x, 3, 2, 1), n(2, 3, 9))],
    "max_pool3d": [(lambda x: F.max_pool3d(x, 2), n(1, 2, 4, 4, 5))],
    "max_pool2d_with_indices": [(lambda x: F.max_pool2d(x, 2, return_indices=True), n(2, 3, 6, 6))],
    "max_unpool2d": [(lambda x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2), n(2, 3, 6, 6))],
    "moveaxis": [(lambda x: torch.moveaxis(x, 0, -1) * 2, n(2, 3, 4))],
    "native_layer_norm": [(lambda x, w: A.native_layer_norm(x, [4], w, w, 1e-5), n(3, 4), n(4))],
    "norm.ScalarOpt_dim": [(lambda x: A.norm.ScalarOpt_dim(x, 2, [1], True), n(3, 4))],
    "one_hot": [(lambda x: F.one_hot(x, 6), i(6, 3, 2))],
    "positive": [(lambda x: torch.positive(x) * 2, n(3))],
    "reflection_pad1d": [(lambda x: A.reflection_pad1d(x, [1, 2]), n(2, 3, 4))],
    "reflection_pad2d": [(lambda x: A.reflection_pad2d(x, [1, 2, 0, 1]), n(2, 3, 4, 5))],
    "replication_pad1d": [(lambda x: A.replication_pad1d(x, [1, 2]), n(2, 3, 4))],
    "replication_pad2d": [(lambda x: A.replication_pad2d(x, [1, 2, 0, 1]), n(2, 3, 4, 5))],
    "scalar_tensor": [(lambda x: x * A.scalar_tensor(2.5, dtype=x.dtype), n(3))],
    "scatter.value": [(lambda x, k: torch.scatter(x, 0, k, 2.5), n(4, 3), i(4, 2, 3))],
    "searchsorted.Scalar": [(lambda s: torch.searchsorted(s, 0.5), n(6).detach().sort().values)],
    "bucketize.Scalar": [(lambda s: torch.bucketize(0.5, s, right=True), n(6).detach().sort().values)],
    "bucketize.Tensor": [(torch.bucketize, n(2, 3).detach(), n(6).detach().sort().values)],
    "sort.stable": [(lambda x: torch.sort(x, stable=True, dim=0), n(4, 3))],
    "argsort.stable": [(lambda x: torch.argsort(x, stable=True, dim=0), n(4, 3).detach())],
    "special_erf": [(torch.special.erf, n(3))], "special_expit": [(torch.special.expit, n(3))],
    "swapaxes": [(lambda x: torch.swapaxes(x, 0, 1) * 2, n(2, 3))],
    "swapdims": [(lambda x: torch.swapdims(x, 0, 1) * 2, n(2, 3))],
    "tensor_split.sections": [(lambda x: A.tensor_split.sections(x, 3, 0), n(7, 2))],
    "to.device": [(lambda x: A.to.device(x, torch.device("cpu"), torch.float32) * 2, n(3))],
    "to.dtype_layout": [(lambda x: A.to.dtype_layout(x, dtype=torch.float32) * 2, n(3))],
    "to.other": [(lambda x, y: A.to.other(x, y) * 2, n(3), n(2).detach().float())],
    "type_as": [(lambda x, y: x.type_as(y) * 2, n(3), n(2).detach().float())],
    "unflatten": [(lambda x: x.unflatten(1, (2, 3)) * 2, n(2, 6))],
    "upsample_nearest1d": [(lambda x: F.interpolate(x, 7), n(1, 2, 5))],
    "upsample_nearest3d": [(lambda x: F.interpolate(x, scale_factor=2.0), n(1, 2, 2, 3, 2))],
    "upsample_trilinear3d": [(lambda x: F.interpolate(x, (3, 4, 5), mode="trilinear"), n(1, 2, 2, 3, 4))],
    "_trilinear": [(lambda x, y, w: F.bilinear(x, y, w), n(3, 2), n(3, 4), n(5, 2, 4))],
    "embedding_bag": [(bag, n(7, 4), i(7, 8), mode) for mode in ("sum", "mean", "max")],
    "histc": [(lambda x: torch.histc(x, 5, -1, 1), n(20).detach()), (lambda x: torch.histc(x, 4), n(20).detach())],
    "std.default": [(lambda x: A.std.default(x, False), n(3, 4))],
    "var.default": [(lambda x: A.var.default(x, False), n(3, 4))],
    "std.dim": [(lambda x: A.std.dim(x, [1], True, True), n(3, 4))],
    "var.dim": [(lambda x: A.var.dim(x, [1], True, True), n(3, 4))],
    "argsort.default": [(lambda x: A.argsort.default(x, 0, True), n(4, 3).detach())],
    "sort": [(lambda x: A.sort.default(x, 0, True), n(4, 3))],
    "to.dtype": [(lambda x: x.to(torch.float32) * 2, n(3))],
    "rms_norm": [(lambda x, w: F.rms_norm(x, (4,), w), n(3, 4), n(4)), (lambda x, w: F.rms_norm(x, (3, 4), w), n(2, 3, 4), n(3, 4))],
    "batch_norm": [(lambda x, w: F.batch_norm(x, w.detach(), w.detach() ** 2 + 1, w, w), n(3, 4, 2), n(4))],
    "instance_norm": [(lambda x: F.instance_norm(x), n(2, 3, 4))],
    "adaptive_max_pool1d": [(lambda x: F.adaptive_max_pool1d(x, 3), n(2, 3, 7))],
    "adaptive_max_pool2d": [(lambda x: F.adaptive_max_pool2d(x, (2, 3)), n(2, 3, 5, 7))],
    "adaptive_max_pool3d": [(lambda x: F.adaptive_max_pool3d(x, 2), n(1, 2, 3, 4, 5))],
    "scaled_dot_product_attention": [(lambda q: F.scaled_dot_product_attention(q, q + 1, q * 2, is_causal=True), n(2, 3, 4))],
    "div": [(lambda x, y: torch.div(x, y, rounding_mode="trunc"), torch.tensor([7, -7, 6, -6]), torch.tensor([2, 2, -4, 3]))],
    "elu": [(lambda x: A.elu(x, 1.3, 0.7, 2.0), n(3, 4))],
    "softplus": [(lambda x: F.softplus(x, 2.0, 0.5), n(3, 4))],
    "index_put": [(lambda x: torch.where(x > 0, x, x * 2).index_put((x > 1,), torch.tensor(0.5, dtype=x.dtype)), n(3, 4))],
}  # fmt: skip
"""Cases besides the samples of `op_db`: a function and its arguments."""

NAMES = {
    "acos": "acos", "arange": "arange", "bitwise_and": "bitwise_and", "bmm": "bmm", "cat": "cat", "pow": "pow",
    "constant_pad_nd": "constant_pad_nd", "sgn": "sgn", "embedding": "nn.functional.embedding", "fill": "fill",
    "grid_sampler": "nn.functional.grid_sample", "hardtanh": "nn.functional.hardtanh", "index.Tensor": "__getitem__",
    "linalg_vector_norm": "linalg.vector_norm", "log_sigmoid": "nn.functional.logsigmoid", "max.default": "max.reduction_no_dim",
    "max.dim": "max.reduction_with_dim", "max.other": "max.binary", "min.default": "min.reduction_no_dim",
    "min.dim": "min.reduction_with_dim", "min.other": "min.binary", "meshgrid": "meshgrid.list_of_tensors",
    "repeat_interleave.self_int": "repeat_interleave", "rsub": "__rsub__", "scatter.src": "scatter",
    "sort.stable": "sort", "std.correction": "std", "upsample_bicubic2d": "nn.functional.interpolate.bicubic",
    "upsample_bilinear2d": "nn.functional.upsample_bilinear", "upsample_linear1d": "nn.functional.interpolate.linear",
    "upsample_nearest2d": "nn.functional.upsample_nearest", "var.correction": "var", "var_mean.correction": "var_mean",
    "view.default": "view", "argsort.stable": "argsort", "cosine_similarity": "nn.functional.cosine_similarity",
    "_upsample_nearest_exact2d": "nn.functional.interpolate.nearest-exact", "select.int": "select",
    "slice.Tensor": "slice", "median.dim": "median", "median.default": "median", "searchsorted.Tensor": "searchsorted",
    "round.decimals": "round.decimals_3", "as_strided": "diag", "div": "div.no_rounding_mode", "_index_put_impl": "index_put",
    "split_with_sizes": "split.list_args", "split": "split", "squeeze": "squeeze", "true_divide": "true_divide",
    "divide": "div.floor_rounding", "max_unpool2d": "nn.functional.max_unpool2d.grad", "log_softmax": "log_softmax", "norm": "norm",
}  # fmt: skip
"""What `op_db` calls them, where it is not the name, nor that in `torch.nn.functional`."""

REFUSED = {
    "rand", "randn", "randint", "randperm", "rand_like", "randn_like", "bernoulli", "normal", "uniform", "multinomial",
    "nonzero", "masked_select", "unique", "_unique2", "unique_consecutive",
}  # fmt: skip
"""Mapped to an error: random numbers, and shapes that depend on the data."""
EMPTY = {"empty", "empty_like", "new_empty"}
"""Whose values are not defined."""
SIZES = sorted(name for name in MAPPINGS if name.startswith("python.") or name == "sym_size.int")


def cases_of(name, most):
    """The cases of a mapped operator: its own, then samples of `op_db`, the operator called as itself too."""
    word = name.split(".")[0]
    for number, (function, *args) in enumerate(own for own in OWN.get(name, ()) if own):
        yield Case(f"{name} {number}", function, tuple(args))
    found = [k for k in (NAMES.get(name, word), word, f"nn.functional.{word}", f"linalg.{word[7:]}") if k in infos()]
    for case in samples(found[0], most) if found else ():
        yield case
        if hasattr(A, word) and name not in NAMES and name not in OWN:
            yield Case(f"aten {case.name}", getattr(A, word), case.args, case.kwargs)


def is_defined(case):
    """Whether both say the same: no complex numbers, no random numbers."""
    draws = case.kwargs.get("dropout_p") or (case.kwargs.get("training") and "dropout" in case.name)
    return not draws and not any(x.is_complex() or x.is_sparse for x in Call(case).tensors())


def check(name, monkeypatch, most, *backends):
    """All cases are equal or refused; one at least went through the mapping and was equal."""
    calls, function = [], MAPPINGS[name]
    monkeypatch.setitem(MAPPINGS, name, lambda *args, **options: (calls.append(name), function(*args, **options))[1])
    equal = 0
    for case in filter(is_defined, cases_of(name, most)):
        before = len(calls)
        try:
            compare(case, *backends)
        except (ml.MithrilError, NotImplementedError):
            continue  # refused by name
        except (RuntimeError, TypeError) as error:
            if not case.name.startswith("aten "):  # the Python function's arguments are not always aten's
                raise AssertionError(f"{case.name}: {type(error).__name__}: {error}") from error
        else:
            equal += len(calls) > before
    return calls, equal


UNREACHED = {"lift_fresh"} | ({"cholesky"} if tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 14) else set())
"""Which torch.export writes as something else (a copy; linalg_cholesky from 2.14 on), but for graphs from elsewhere."""
TESTED = [name for name in MAPPINGS if name not in {*SIZES, *EMPTY, *REFUSED, *UNREACHED}]


@pytest.mark.parametrize("name", TESTED)
def test_mapped(name, monkeypatch):
    calls, equal = check(name, monkeypatch, 2, ml.NumpyBackend(dtype=ml.float64))
    assert calls, f"no case reaches the mapping of {name}"
    assert equal, f"no case of {name} is taken"


@pytest.mark.slow
@pytest.mark.parametrize("name", TESTED)
def test_mapped_on_all_backends(name, monkeypatch):
    tools = [ml.NumpyBackend(dtype=ml.float64), ml.TorchBackend(dtype=ml.float64), ml.JaxBackend(dtype=ml.float64)]
    assert check(name, monkeypatch, 12, *tools)[1]


def test_sizes_are_computed(monkeypatch):
    """Every function on sizes that stay open."""
    calls, before = set(), {name: MAPPINGS[name] for name in SIZES}
    for name, function in before.items():
        monkeypatch.setitem(
            MAPPINGS, name, lambda *args, name=name, function=function: (calls.add(name), function(*args))[1]
        )
    model, params = ml.from_torch(
        Sizes(), (n(4, 3).detach(),), dynamic_shapes={"x": {0: torch.export.Dim("rows", min=3)}}
    )
    compiled = ml.compile(model, ml.NumpyBackend(dtype=ml.float64))
    for rows in (3, 4, 7):
        x = torch.arange(3.0 * rows, dtype=torch.float64).reshape(rows, 3)
        found = compiled.evaluate(params, {"x": x.numpy()})
        for got, want in zip(found.values(), Sizes()(x), strict=True):
            assert torch.equal(torch.tensor(got), want)
    assert calls >= {"python.add", "python.sub", "python.mul", "python.floordiv", "sym_size.int", "python.getitem"}


class Sizes(nn.Module):
    def forward(self, x):
        rows = x.shape[0]
        parts = x.split([1, 2], 1)
        return (
            x.new_zeros(rows * 2 + 1),
            x.new_ones((rows + 1) // 2),
            parts[1].reshape(rows * 2),
            x.new_zeros(rows * 3 - 1),
        )


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_refused(name):
    known = {
        "rand": "rand_like",
        "randperm": "randint",
        "uniform": "uniform",
        "normal": "normal",
        "_unique2": "unique",
        "multinomial": "multinomial",
    }
    case = next(samples(known.get(name, name), 1))
    with pytest.raises(ml.MithrilError, match=r"draws random numbers|depends on the values of the data|in place"):
        compare(case, ml.NumpyBackend())
