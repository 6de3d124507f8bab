"""Table-top scenes of household objects: classification, segmentation and metric depth on the same pictures."""

from lowdata_cpt.data.tabletop.catalogue import PACKAGES
from lowdata_cpt.data.tabletop.render import render

__all__ = ["PACKAGES", "render"]
