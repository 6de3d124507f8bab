"""Domains: unlabelled pools with labelled train, val and test images, decoded once into memory-mapped stores."""

from lowdata_cpt.data.domains.ade20k import ADE20K
from lowdata_cpt.data.domains.aircraft import Aircraft
from lowdata_cpt.data.domains.camvid import CamVid
from lowdata_cpt.data.domains.cifar10 import CIFAR10
from lowdata_cpt.data.domains.cityscapes import Cityscapes
from lowdata_cpt.data.domains.eurosat import EuroSAT
from lowdata_cpt.data.domains.food101 import Food101
from lowdata_cpt.data.domains.galaxy10 import Galaxy10
from lowdata_cpt.data.domains.loveda import LoveDA
from lowdata_cpt.data.domains.medmnist import MedMNIST
from lowdata_cpt.data.domains.neu_steel import NEUSteel
from lowdata_cpt.data.domains.nuclei import Nuclei
from lowdata_cpt.data.domains.nyuv2 import NYUv2
from lowdata_cpt.data.domains.pascal_context import PascalContext
from lowdata_cpt.data.layouts.image_folder import ImageFolder
from lowdata_cpt.data.tabletop.domain import Tabletop

DOMAINS = (
    ADE20K,
    Aircraft,
    CamVid,
    CIFAR10,
    Cityscapes,
    EuroSAT,
    Food101,
    Galaxy10,
    ImageFolder,
    LoveDA,
    MedMNIST,
    NEUSteel,
    Nuclei,
    NYUv2,
    PascalContext,
    Tabletop,
)
"""Every kind of domain. A new one is a file and a name here."""
