"""Domains: unlabelled pools with labelled train, val and test images, decoded once into memory-mapped stores."""

from lowdata_cpt.data.ade20k import ADE20K
from lowdata_cpt.data.aircraft import Aircraft
from lowdata_cpt.data.camvid import CamVid
from lowdata_cpt.data.cifar10 import CIFAR10
from lowdata_cpt.data.cityscapes import Cityscapes
from lowdata_cpt.data.eurosat import EuroSAT
from lowdata_cpt.data.food101 import Food101
from lowdata_cpt.data.galaxy10 import Galaxy10
from lowdata_cpt.data.imagefolder import ImageFolder
from lowdata_cpt.data.loveda import LoveDA
from lowdata_cpt.data.medmnist import MedMNIST
from lowdata_cpt.data.neu_steel import NEUSteel
from lowdata_cpt.data.nuclei import Nuclei
from lowdata_cpt.data.nyuv2 import NYUv2
from lowdata_cpt.data.pascal_context import PascalContext
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
