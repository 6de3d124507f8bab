"""Each method's augmentation of a batch, against torchvision's v2 transforms image by image."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from tests.methods.harness import make_images
from torch import Tensor
from torchvision.transforms import v2

from benchmarks.harness import Case
from lowdata_cpt.methods.diet_cp.views import one_view
from lowdata_cpt.methods.dino.views import multi_crop
from lowdata_cpt.vision import augment
from lowdata_cpt.vision.images import to_float

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
Step = Callable[[Tensor], Tensor]


def colours(strength: tuple[float, float, float, float], p: float) -> list[Step]:
    """Return torchvision's jitter with probability `p`, and grayscale."""
    return [v2.RandomApply([v2.ColorJitter(*strength)], p), v2.RandomGrayscale(0.2)]


def crop(size: int, scale: tuple[float, float], mode: v2.InterpolationMode) -> list[Step]:
    """Return torchvision's crop and flip."""
    return [v2.RandomResizedCrop(size, scale, interpolation=mode, antialias=True), v2.RandomHorizontalFlip()]


def to_unit() -> list[Step]:
    """Return the conversion to float in [0, 1]."""
    return [v2.ToDtype(torch.float32, scale=True)]


def dino_step(size: int, scale: tuple[float, float], blur: float, solarize: float) -> v2.Compose:
    """Return one view of DINO's."""
    steps = crop(size, scale, v2.InterpolationMode.BICUBIC) + colours((0.4, 0.4, 0.2, 0.1), 0.8)
    steps.append(v2.RandomApply([v2.GaussianBlur(9, (0.1, 2.0))], blur))
    if solarize:
        steps.append(v2.RandomSolarize(128, solarize))
    return v2.Compose(steps + to_unit())


def per_image(images: Tensor, transforms: list[v2.Compose]) -> list[Tensor]:
    """Return every view of uint8 images [B, 3, H, W], image by image."""
    return [torch.stack([transform(image) for image in images]) for transform in transforms]


def statistics(views: list[Tensor]) -> Tensor:
    """Return moments and quantiles of the pixels of each kind of view, and of the images' own means and spreads."""
    found = []
    for view in views:
        flat = view.flatten(1)
        mean, std = flat.mean(1), flat.std(1)
        points = flat.flatten()[:: max(1, flat.numel() // 200_000)].quantile(torch.tensor(QUANTILES))
        found += [points, mean.mean()[None], mean.std()[None], std.mean()[None]]
    return torch.cat(found)


def same_distribution(draws: int, ours: Callable[[int], list[Tensor]], other: Callable[[], list[Tensor]]) -> str:
    """Compare both over `draws` batches."""
    a = torch.stack([statistics(ours(seed)) for seed in range(draws)])
    b = torch.stack([statistics(other()) for _ in range(draws)])
    apart = (a.mean(0) - b.mean(0)).abs()
    # Within the scatter of batches, and 2 % of the range for what antialiasing and rounding to uint8 change.
    allowed = 0.02 + 4 * ((a.var(0) + b.var(0)) / draws).sqrt()
    assert (apart <= allowed).all(), f"moments or quantiles differ by {float(apart.max()):.3f}"
    return f"moments and quantiles equal within {float(apart.max()):.3f} of the range, {draws} batches"


def cases(small: bool) -> Iterator[Case]:
    """Yield a row per method."""
    batch, size, local, draws = (16, 32, 16, 4) if small else (64, 224, 96, 2)
    raw = (make_images(batch, size) * 255).round().byte()
    resident = raw.permute(0, 2, 3, 1).contiguous()

    def dino(seed: int, local_crops: int) -> list[Tensor]:
        generator = torch.Generator().manual_seed(seed)
        crops = multi_crop(to_float(resident), generator, size, local, local_crops)
        return [*crops.globals, *crops.locals]

    def diet(seed: int) -> list[Tensor]:
        return [one_view(to_float(resident), size, torch.Generator().manual_seed(seed))]

    def masked(seed: int) -> list[Tensor]:
        generator = torch.Generator().manual_seed(seed)
        return [augment.random_resized_crop(to_float(resident), size, generator, (0.2, 1.0), mode="bicubic")]

    two = [dino_step(size, (0.25, 1.0), 1.0, 0.0), dino_step(size, (0.25, 1.0), 0.1, 0.2)]
    kinds: dict[str, tuple[Callable[[int], list[Tensor]], list[v2.Compose]]] = {
        "DIET-CP": (
            diet,
            [
                v2.Compose(
                    crop(size, (0.08, 1.0), v2.InterpolationMode.BILINEAR)
                    + colours((0.4, 0.4, 0.4, 0.2), 0.3)
                    + to_unit()
                )
            ],
        ),
        "TEC and MAE": (masked, [v2.Compose(crop(size, (0.2, 1.0), v2.InterpolationMode.BICUBIC) + to_unit())]),
        "GLARE (two views)": (lambda seed: dino(seed, 0), two),
        "DINO and V-pretraining (2 + 6 views)": (
            lambda seed: dino(seed, 6),
            two + [dino_step(local, (0.05, 0.25), 0.5, 0.0)] * 6,
        ),
    }
    for name, (ours, transforms) in kinds.items():

        def parity(
            a: list[Tensor], b: list[Tensor], ours: Callable[[int], list[Tensor]] = ours, t: list = transforms
        ) -> str:
            assert [v.shape for v in a] == [v.shape for v in b]
            return same_distribution(draws, ours, lambda: per_image(raw, t))

        yield Case(
            f"augmentation of {batch} images at {size} px: {name}",
            "torchvision v2, image by image, uint8",
            5.0,
            lambda ours=ours: ours(0),
            lambda t=transforms: per_image(raw, t),
            parity,
            reset=lambda: torch.manual_seed(0),
        )
