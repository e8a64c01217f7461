"""The alignment index: its values, its invariances, its gradients, its errors; on one process and on several."""

import math
import multiprocessing

import pytest
import torch
import torch.distributed as dist
from goldens import DATA
from safetensors.torch import load_file
from torch import nn
from torch.multiprocessing.spawn import start_processes
from torch.nn.parallel import DistributedDataParallel

from i2i_lib.losses import hinge_d, hinge_g, kernel_alignment, lsgan
from i2i_lib.train.distill import ALIGNMENTS

every_kind = pytest.mark.parametrize("kind", ALIGNMENTS.values(), ids=ALIGNMENTS)


def maps(*, n=5, x=4, y=7, grid=(3, 6), seed=0, dtype=torch.float64):
    """Two feature maps that have something in common."""
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(n, x, *grid, dtype=dtype, generator=generator)
    b = torch.randn(n, y, *grid, dtype=dtype, generator=generator) + torch.roll(a, 1, 1)[:, :1]
    return a + 0.5, b - 0.3


def by_definition(x, y, rows, centered):
    """Through row-by-row Gram matrices and a centring matrix: another path than the library's for pixels."""
    x, y = (m.movedim(1, -1).flatten(0, -2) if rows == "pixels" else m.flatten(1) for m in (x, y))
    k, l = x @ x.T, y @ y.T  # noqa: E741
    if centered:
        h = torch.eye(len(k), dtype=k.dtype) - 1 / len(k)
        k, l = h @ k @ h, h @ l @ h  # noqa: E741
    return ((k * l).sum() / (k.norm() * l.norm())).item()


@every_kind
def test_value_is_the_definition_s(kind):
    x, y = maps()
    value = kernel_alignment(x, y, **kind)
    assert value.dtype is torch.float64 and value.shape == ()
    assert 0 < value.item() < 1
    assert value.item() == pytest.approx(by_definition(x, y, **kind), rel=1e-10)
    assert kernel_alignment(x, x, **kind).item() == pytest.approx(1, rel=1e-12)


def test_the_official_index_is_one_of_the_four():
    values = load_file(DATA / "kernel_alignment.safetensors")
    for i in range(3):
        ours = kernel_alignment(values[f"x/{i}"], values[f"y/{i}"], rows="samples", centered=False)
        assert ours.item() == pytest.approx(values[f"ka/{i}"].item(), abs=1e-6)


@every_kind
def test_rotations_scales_and_shifts(kind):
    x, y = maps()
    wanted = kernel_alignment(x, y, **kind).item()
    rotation = torch.linalg.qr(torch.randn(y.shape[1], y.shape[1], dtype=y.dtype)).Q
    rotated = torch.einsum("nchw,cd->ndhw", y, rotation)
    assert kernel_alignment(100 * x, 1e-3 * rotated, **kind).item() == pytest.approx(wanted)
    assert kernel_alignment(y, x, **kind).item() == pytest.approx(wanted)
    # A shift common to all rows: of each channel for pixels, of every feature for samples.
    shift = torch.randn(1, y.shape[1], *((1, 1) if kind["rows"] == "pixels" else y.shape[2:]), dtype=y.dtype)
    shifted = kernel_alignment(x, y + shift, **kind).item()
    assert (shifted == pytest.approx(wanted)) is kind["centered"]


@every_kind
def test_gradients_are_finite_differences(kind):
    x, y = (m.requires_grad_() for m in maps(n=3, x=2, y=3, grid=(2, 2)))
    assert torch.autograd.gradcheck(lambda a, b: kernel_alignment(a, b, **kind), (x, y))


@every_kind
@pytest.mark.parametrize("change", ["bf16", "bf16, channels last", "a mean a hundred times the spread"])
def test_the_digits_of_the_input_are_kept(kind, change):
    x, y = maps(n=6, x=24, y=16, grid=(10, 10), dtype=torch.float32)
    if change.startswith("bf16"):
        layout = torch.channels_last if "last" in change else torch.contiguous_format
        x, y = (m.to(torch.bfloat16, memory_format=layout) for m in (x, y))
    else:
        x, y = ((m - m.mean()) / m.std() + 100 for m in (x, y))
    with torch.autocast("cpu", torch.bfloat16):
        value = kernel_alignment(x, y, **kind)
    assert value.dtype is torch.float32
    assert value.item() == pytest.approx(by_definition(x.double(), y.double(), **kind), abs=1e-4)


@every_kind
@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e10, 1e30])
def test_the_scale_of_the_features_costs_no_digits(kind, scale):
    """Whose squares, and theirs in turn, float32 does not hold."""
    x, y = maps(dtype=torch.float32)
    wanted = by_definition(x.double(), y.double(), **kind)
    tiny = (scale * x).requires_grad_()
    value = kernel_alignment(tiny, y, **kind)
    assert value.item() == pytest.approx(wanted, abs=1e-5)
    assert kernel_alignment(y, tiny, **kind).item() == pytest.approx(wanted, abs=1e-5)
    value.backward()
    assert tiny.grad is not None and 0 < (scale * tiny.grad).abs().max() < math.inf


def test_memory_is_linear_in_pixels():
    """Doubling the pixels doubles the largest tensor and no more: no matrix of pixels by pixels."""

    class Largest(torch.overrides.TorchFunctionMode):
        size = 0

        def __torch_function__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            self.size = max(self.size, result.numel() if isinstance(result, torch.Tensor) else 0)
            return result

    sizes = []
    for side in (32, 64):
        x, y = maps(n=2, grid=(side, side), dtype=torch.float32)
        with Largest() as largest:
            kernel_alignment(x, y)
        sizes.append(largest.size)
        assert largest.size <= 2 * y.numel()
    assert sizes[1] == 4 * sizes[0]


ONES = torch.ones(4, 3, 2, 2)
NOISE = torch.randn(4, 5, 2, 2, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("x", "y", "options", "message"),
    [
        (NOISE[:1], NOISE[:1], {"rows": "samples", "centered": False}, "fewer than 2 uncentred samples .* got 1"),
        (NOISE[:2], NOISE[:2], {"rows": "samples"}, "fewer than 3 centred samples .* got 2"),
        (NOISE[:1, :, :1, :1], NOISE[:1, :, :1, :1], {}, "fewer than 3 centred pixels .* got 1"),
        (NOISE, NOISE[:, :, :1], {}, "different grids, \\(2, 2\\) and \\(1, 2\\)"),
        (NOISE, NOISE[:3], {}, "different batches: 4 and 3"),
        (ONES * 7.7, NOISE, {}, "features x do not vary"),
        (NOISE, ONES * torch.tensor([1e4, -3.3, 0.1]).view(1, 3, 1, 1), {}, "features y do not vary"),
        (ONES * 7.7, NOISE, {"rows": "samples"}, "features x do not vary"),
        (NOISE, ONES * 0, {"centered": False}, "features y do not vary"),
        (ONES * 0, ONES * 0, {"rows": "samples", "centered": False}, "features x and y do not vary"),
        (NOISE, NOISE, {"rows": "batch"}, "got 'batch'"),
    ],
)
def test_what_has_no_meaning_is_an_error(x, y, options, message):
    with pytest.raises(ValueError, match=message):
        kernel_alignment(x, y, **options)


def test_samples_may_differ_in_grid_and_nan_passes_through():
    assert 0 < kernel_alignment(NOISE, NOISE[:, :, :1], rows="samples").item() < 1
    assert math.isnan(kernel_alignment(NOISE * float("nan"), NOISE).item())  # the training loop stops at it


# --- several processes -----------------------------------------------------------------------------------------

SHARDS = {1: [8], 2: [5, 3], 4: [2, 3, 1, 2]}  # samples of each process


def small_network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Conv2d(4, 5, 1)).double()


def batch():
    generator = torch.Generator().manual_seed(1)
    shapes = (8, 3, 6, 6), (8, 6, 4, 4)
    return [torch.randn(*shape, dtype=torch.float64, generator=generator) for shape in shapes]


def loss_and_gradients(net, parameters, images, wanted, kind, group):
    net.zero_grad(set_to_none=True)
    value = kernel_alignment(net(images), wanted, **kind, group=group)
    value.backward()
    return [value.detach(), *(p.grad.clone() for p in parameters)]


def worker(rank, path):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{path}/rendezvous", rank=rank, world_size=4)
    results = {}
    for size, shards in SHARDS.items():
        group = dist.new_group(list(range(size)))
        if rank < size:
            assert isinstance(group, dist.ProcessGroup)
            net = small_network()
            parallel = DistributedDataParallel(net, process_group=group)
            own = slice(sum(shards[:rank]), sum(shards[: rank + 1]))
            images, wanted = (m[own] for m in batch())
            for name, kind in ALIGNMENTS.items():
                results[size, name] = loss_and_gradients(parallel, list(net.parameters()), images, wanted, kind, group)
            try:  # all processes together hold one constant: each must say so, and none hang
                kernel_alignment(torch.ones_like(wanted), wanted, group=group)
            except ValueError as error:
                results[size, "constant"] = str(error)
        dist.barrier()
    torch.save(results, f"{path}/{rank}.pt")
    dist.destroy_process_group()


def test_one_two_and_four_processes_agree(tmp_path):
    net = small_network()
    images, wanted = batch()
    # Fresh processes, as by spawning, but forked from one that has torch loaded: seconds instead of half a minute.
    multiprocessing.set_forkserver_preload(["torch._dynamo", "torch.distributed", __name__])
    start_processes(worker, (tmp_path,), nprocs=4, start_method="forkserver")
    results = [torch.load(f"{tmp_path}/{rank}.pt", weights_only=True) for rank in range(4)]
    for name, kind in ALIGNMENTS.items():
        expected = loss_and_gradients(net, list(net.parameters()), images, wanted, kind, None)
        for size in SHARDS:
            for rank in range(size):
                torch.testing.assert_close(results[rank][size, name], expected, rtol=1e-9, atol=1e-12)
    for size in SHARDS:
        assert all("do not vary" in results[rank][size, "constant"] for rank in range(size))


# --- adversarial losses ----------------------------------------------------------------------------------------


def test_adversarial_losses_by_hand():
    logits, other = torch.tensor([[0.0, 2.0], [1.0, -3.0]]), torch.tensor([[-2.0, 0.5], [0.0, 1.0]])
    assert lsgan(logits, real=True).item() == pytest.approx((1 + 1 + 0 + 16) / 4)
    assert lsgan(logits, real=False).item() == pytest.approx((0 + 4 + 1 + 9) / 4)
    assert hinge_d(logits, other).item() == pytest.approx(0.5 * ((1 + 0 + 0 + 4) / 4 + (0 + 1.5 + 1 + 2) / 4))
    assert hinge_g(other).item() == pytest.approx(0.5 / 4)
    assert lsgan(logits.bfloat16(), real=True).dtype is torch.float32
