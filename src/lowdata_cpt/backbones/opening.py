"""What lets others open an exported model: timm's own config.json beside the weights, and a README with the call."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import timm

from lowdata_cpt.backbones.weights import ADAPTER
from lowdata_cpt.core.io import write_json, write_text

CONFIG, README = "config.json", "README.md"

CALL = """\
# {name}, its pretraining continued

timm's state dict. It takes images of {size}×{size} pixels normalised with mean {mean} and standard deviation
{std}: what a method changed in that is in the weights.

```python
import timm
from PIL import Image

model = timm.create_model("local-dir:{folder}", pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
features = model(transform(Image.open("image.jpg").convert("RGB"))[None])
```

Other sizes work where they are multiples of the patch; `features_only=True` gives maps of features.
"""
ADAPTED = """
The method's changes are in `adapter.safetensors`, which timm cannot add: the call above opens the backbone without
them, this one with them.

```python
from pathlib import Path

from lowdata_cpt.backbones.weights import open_export

model = open_export(Path("{folder}"), image_size={size}).model
```
"""


def configuration(name: str, image_size: int) -> dict[str, Any]:
    """Return timm's config.json of a model: architecture, its position grid as it was saved, size, mean and std.

    Args:
        name: timm model, with or without its tag.
        image_size: side in pixels of the images that it was trained on.
    """
    own: Any = timm.get_pretrained_cfg(name)
    arguments: dict[str, Any] = {"dynamic_img_size": True}
    if own.fixed_input_size:
        # The grid of the saved position embedding: each size of images is interpolated from it, as in training.
        arguments["img_size"] = own.input_size[-1]
    return {
        "architecture": name.partition(".")[0],
        "num_classes": 0,
        "model_args": arguments,
        "pretrained_cfg": {
            "input_size": [3, image_size, image_size],
            "fixed_input_size": False,
            "mean": list(own.mean),
            "std": list(own.std),
            "interpolation": "bilinear",
            "crop_pct": 1.0,
            "first_conv": own.first_conv,
            "classifier": own.classifier,
        },
    }


def describe(folder: Path, name: str, image_size: int) -> None:
    """Write config.json and README.md into a model folder, so that `timm.create_model("local-dir:…")` opens it."""
    facts = configuration(name, image_size)
    write_json(folder / CONFIG, facts)
    own = facts["pretrained_cfg"]
    text = CALL + (ADAPTED if (folder / ADAPTER).exists() else "")
    said = {"name": name, "size": image_size, "folder": folder.name, "mean": own["mean"], "std": own["std"]}
    write_text(folder / README, text.format(**said))
