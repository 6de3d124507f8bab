"""Batched augmentation on tensors: one affine resample per view instead of one PIL call per image.

Every function takes images [B, 3, H, W] in [0, 1] and a CPU generator, draws its parameters per image on the CPU
(the same numbers on every device), and returns images on the images' device.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

_LUMA = (0.299, 0.587, 0.114)
CACHED = 8  # images changed at a time on the CPU


def uniform(generator: torch.Generator, count: int, low: float = 0.0, high: float = 1.0) -> Tensor:
    """Draw `count` numbers uniformly from [low, high) on the CPU."""
    return torch.rand(count, generator=generator) * (high - low) + low


def send(drawn: Tensor, device: torch.device) -> Tensor:
    """Copy numbers drawn on the CPU to `device` without waiting for what the device is doing."""
    return drawn.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else drawn.to(device)


def change(images: Tensor, chosen: Tensor, operation: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Apply `operation` to those images [B, 3, H, W] that are `chosen`, bool [B] on the CPU, and to no other.

    A few images at a time, which the processor's cache holds: each image comes out the same, several times as fast.

    Args:
        images: stay as they are.
        chosen: which.
        operation: (some images, their indices on the CPU) -> these images changed, each on its own.
    """
    index = chosen.nonzero()[:, 0]
    if not len(index):
        return images
    out = images.clone()
    size = CACHED if images.device.type == "cpu" else len(index)
    for part in torch.split(index, size):
        place = send(part, images.device)
        out.index_copy_(0, place, operation(images[place], part))
    return out


def random_boxes(
    count: int,
    height: int,
    width: int,
    generator: torch.Generator,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Tensor:
    """Draw crop boxes [count, 4] = top, left, height, width in pixels, as torchvision's RandomResizedCrop does.

    Area fraction uniform in `scale`, aspect ratio log-uniform in `ratio`, ten tries, then the largest centred crop
    of an allowed ratio.
    """
    tries = 10
    area = uniform(generator, count * tries, *scale).view(count, tries) * height * width
    log_ratio = uniform(generator, count * tries, math.log(ratio[0]), math.log(ratio[1])).view(count, tries)
    crop_width = torch.sqrt(area * log_ratio.exp()).round()
    crop_height = torch.sqrt(area / log_ratio.exp()).round()
    fits = (crop_width >= 1) & (crop_width <= width) & (crop_height >= 1) & (crop_height <= height)
    first = fits.float().argmax(1, keepdim=True)
    crop_width, crop_height = crop_width.gather(1, first)[:, 0], crop_height.gather(1, first)[:, 0]
    place = uniform(generator, 2 * count).view(2, count)
    none = ~fits.any(1)
    image_ratio = width / height
    fallback_w = float(width) if image_ratio < ratio[1] else float(round(height * ratio[1]))
    fallback_h = float(height) if image_ratio > ratio[0] else float(round(width / ratio[0]))
    crop_width, crop_height = torch.where(none, fallback_w, crop_width), torch.where(none, fallback_h, crop_height)
    top = torch.where(none, (height - crop_height) // 2, (place[0] * (height - crop_height + 1)).floor())
    left = torch.where(none, (width - crop_width) // 2, (place[1] * (width - crop_width + 1)).floor())
    return torch.stack([top, left, crop_height, crop_width], dim=1)


def random_flips(count: int, generator: torch.Generator, p: float = 0.5) -> Tensor:
    """Draw which images are mirrored: bool [count]."""
    return uniform(generator, count) < p


def crop_resize(
    images: Tensor, boxes: Tensor, size: int, flips: Tensor | None = None, mode: str = "bilinear"
) -> Tensor:
    """Cut boxes [B, 4] (top, left, height, width in pixels) out of images and resize them to [B, 3, size, size].

    Images are first averaged down by the largest whole factor that keeps every crop of the batch at or above the
    output size; what shrinking is left is not antialiased. `flips` mirrors the crops left to right afterwards.
    """
    boxes = boxes.float()
    factor = int(max(1.0, (boxes[:, 2:].min() / size).floor().item()))  # of boxes on the CPU: no wait for the device
    boxes = send(boxes, images.device)
    height, width = images.shape[-2:]
    if factor > 1:
        height, width = height // factor * factor, width // factor * factor
        images = F.avg_pool2d(images[..., :height, :width], factor)
    top, left, crop_height, crop_width = boxes.unbind(1)
    centre_x, centre_y = (2 * left + crop_width) / width - 1, (2 * top + crop_height) / height - 1
    scale_x, scale_y = crop_width / width, crop_height / height
    if flips is not None:
        scale_x = torch.where(send(flips, images.device), -scale_x, scale_x)
    zero = torch.zeros_like(scale_x)
    theta = torch.stack([scale_x, zero, centre_x, zero, scale_y, centre_y], dim=1).view(-1, 2, 3)
    grid = F.affine_grid(theta, [len(boxes), images.shape[1], size, size], align_corners=False)
    out = F.grid_sample(images.float(), grid, mode=mode, padding_mode="border", align_corners=False)
    return out.clamp(0, 1) if mode == "bicubic" else out


def random_resized_crop(
    images: Tensor,
    size: int,
    generator: torch.Generator,
    scale: tuple[float, float] = (0.08, 1.0),
    mode: str = "bilinear",
    flip: float = 0.5,
) -> Tensor:
    """RandomResizedCrop and horizontal flip of a batch: [B, 3, H, W] -> [B, 3, size, size]."""
    boxes = random_boxes(len(images), images.shape[-2], images.shape[-1], generator, scale)
    return crop_resize(images, boxes, size, random_flips(len(images), generator, flip), mode)


def _grey(images: Tensor) -> Tensor:
    weights = torch.tensor(_LUMA, device=images.device, dtype=images.dtype).view(1, 3, 1, 1)
    return (images * weights).sum(1, keepdim=True)


def _blend(images: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    return (factor * images + (1 - factor) * other).clamp(0, 1)


def _shift_hue(images: Tensor, shift: Tensor) -> Tensor:
    """Rotate the hue of each image by `shift` [B, 1, 1] turns, through HSV."""
    red, green, blue = images.unbind(1)
    value, least = images.amax(1), images.amin(1)
    chroma = value - least
    safe = torch.where(chroma > 0, chroma, torch.ones_like(chroma))
    sector = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    hue = torch.where(chroma > 0, sector / 6, torch.zeros_like(sector)) + shift
    channels = []
    for offset in (5.0, 3.0, 1.0):
        k = torch.remainder(offset + hue * 6, 6.0)
        channels.append(value - chroma * torch.minimum(k, 4 - k).clamp(0, 1))
    return torch.stack(channels, dim=1)


def color_jitter(
    images: Tensor,
    generator: torch.Generator,
    *,
    brightness: float,
    contrast: float,
    saturation: float,
    hue: float,
    p: float,
) -> Tensor:
    """ColorJitter with torchvision's factor ranges, applied to each image with probability `p`.

    The order of the four operations is drawn once a batch (torchvision: once an image).
    """
    count = len(images)

    def factors(strength: float) -> Tensor:
        return uniform(generator, count, max(0.0, 1 - strength), 1 + strength)

    drawn = torch.stack(
        [factors(brightness), factors(contrast), factors(saturation), uniform(generator, count, -hue, hue)]
    )
    chosen = uniform(generator, count) < p
    order = torch.randperm(4, generator=generator).tolist()

    def jitter(out: Tensor, index: Tensor) -> Tensor:
        by, co, sa, hu = send(drawn[:, index].view(4, -1, 1, 1, 1), images.device)
        for operation in order:
            if operation == 0 and brightness:
                out = (out * by).clamp(0, 1)
            elif operation == 1 and contrast:
                out = _blend(out, _grey(out).mean((-2, -1), keepdim=True), co)
            elif operation == 2 and saturation:
                out = _blend(out, _grey(out), sa)
            elif operation == 3 and hue:
                out = _shift_hue(out, hu[:, 0])
        return out

    return change(images, chosen, jitter)


def random_grayscale(images: Tensor, generator: torch.Generator, p: float) -> Tensor:
    """Replace each image by its luma with probability `p`."""
    chosen = uniform(generator, len(images)) < p
    return change(images, chosen, lambda some, _: _grey(some).expand_as(some))


def gaussian_kernel(sigma: Tensor, radius: int) -> Tensor:
    """Return normalised 1-d kernels [B, 2·radius + 1] for standard deviations `sigma` [B] in pixels."""
    offsets = torch.arange(-radius, radius + 1, device=sigma.device, dtype=sigma.dtype)
    kernel = torch.exp(-0.5 * (offsets / sigma.view(-1, 1)) ** 2)
    return kernel / kernel.sum(1, keepdim=True)


def gaussian_blur(images: Tensor, sigma: Tensor, radius: int) -> Tensor:
    """Blur each image with its own `sigma` [B] in pixels (separable, reflected border)."""
    batch, channels, height, width = images.shape
    kernel = gaussian_kernel(sigma.to(images.device, images.dtype), radius).repeat_interleave(channels, 0)
    flat = images.reshape(1, batch * channels, height, width)
    flat = F.pad(flat, (radius, radius, radius, radius), mode="reflect")
    flat = F.conv2d(flat, kernel.view(-1, 1, 2 * radius + 1, 1), groups=batch * channels)
    flat = F.conv2d(flat, kernel.view(-1, 1, 1, 2 * radius + 1), groups=batch * channels)
    return flat.view(batch, channels, height, width)


def random_blur(
    images: Tensor,
    generator: torch.Generator,
    p: float,
    sigma: tuple[float, float] = (0.1, 2.0),
    radius: int = 4,
) -> Tensor:
    """Gaussian blur with probability `p` per image, standard deviation uniform in `sigma` pixels."""
    drawn = uniform(generator, len(images), *sigma)
    chosen = uniform(generator, len(images)) < p
    return change(images, chosen, lambda some, index: gaussian_blur(some, drawn[index], radius))


def random_solarize(images: Tensor, generator: torch.Generator, p: float, threshold: float = 0.5) -> Tensor:
    """Invert the pixels above `threshold` with probability `p` per image."""
    chosen = uniform(generator, len(images)) < p
    return change(images, chosen, lambda some, _: torch.where(some >= threshold, 1 - some, some))
