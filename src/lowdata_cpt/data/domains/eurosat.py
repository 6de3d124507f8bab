"""EuroSAT: Sentinel-2 land use, the RGB version."""

from __future__ import annotations

from typing import ClassVar, Literal

from lowdata_cpt.data.layouts.classification import ClassifiedFiles, Labelled
from lowdata_cpt.data.layouts.folders import DatasetCard

CLASSES = (
    "AnnualCrop", "Forest", "HerbaceousVegetation", "Highway", "Industrial", "Pasture", "PermanentCrop", "Residential",
    "River", "SeaLake",
)  # fmt: skip


class EuroSAT(ClassifiedFiles):
    """EuroSAT RGB, 10 classes."""

    label: ClassVar[str] = "EuroSAT"
    kind: Literal["eurosat"] = "eurosat"

    dataset: ClassVar[DatasetCard] = DatasetCard(
        title="EuroSAT, RGB",
        images=(27_000,),
        source='Helber et al., "EuroSAT: A Novel Dataset and Deep Learning Benchmark for Land Use and Land Cover '
        'Classification", IEEE JSTARS 2019; 27,000 JPEG patches of 64×64 pixels at 10 m.',
        licence="MIT by the authors' repository; Copernicus Sentinel data terms.",
        how_to_get="download EuroSAT.zip (RGB) from the authors' EuroSAT page and unpack it so that its ten class "
        "folders lie in that folder, or in 2750/ or EuroSAT_RGB/ inside it",
        split="None published: seeded, balanced over classes (`test_fraction`, `val_fraction`).",
        labels="10 classes.",
        limits="Patches are cut from few scenes, so neighbours of training patches are in the test set.",
    )

    def contents(self) -> Labelled:
        """Return the images of the ten class folders."""
        inside = [self.folder / name for name in ("2750", "EuroSAT_RGB") if (self.folder / name).is_dir()]
        return Labelled(CLASSES, {"": self.class_folders(inside[0] if inside else self.need(), CLASSES)})
