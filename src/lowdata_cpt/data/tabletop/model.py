"""Compile every object and surface into one MuJoCo model, kept beside the assets in a compact form.

Compiling costs seconds, so scenes do not compile: each shows some of the model's bodies and moves them.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
from PIL import Image, UnidentifiedImageError

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.core.io import atomic_path, identity, sha256_file
from lowdata_cpt.data.tabletop import assets, catalogue, meshes
from lowdata_cpt.data.tabletop.assets import Part, read_object
from lowdata_cpt.data.tabletop.catalogue import (
    ASSETS,
    FAR,
    FLOORS,
    KINDS,
    LIGHTS,
    NEAR,
    TABLES,
    TILES_PER_METRE,
    WALLS,
    Y_UP,
)

OBJECT_TEXTURE = 256
SURFACE_TEXTURE = 512
EXTENTS = "extents"


def compact_model(root: Path) -> Path:
    """Return the compiled model of the assets installed in `root`, building it there when it is not yet.

    Raises:
        UserError: an asset is missing or unreadable, or `root` cannot be written.
    """
    sources = [sha256_file(Path(module.__file__)) for module in (assets, catalogue, meshes) if module.__file__]
    key = identity([mujoco.__version__, sha256_file(Path(__file__)), *sources])
    target = root / f".tabletop-{key[:16]}.mjb"
    if not target.is_file():
        model = build_model(root / ASSETS)
        try:
            with atomic_path(target) as temporary:
                mujoco.mj_saveModel(model, str(temporary))
        except OSError as error:
            raise UserError(f"{target}: cannot keep the compiled scene model here ({error.strerror})") from None
    return target


def build_model(folder: Path) -> Any:
    """Compile all objects of the catalogue and the room into one `mujoco.MjModel`."""
    paths = {name.rsplit("/", 1)[1]: name for kind in KINDS for name in (*kind.objects, *kind.held_out)}
    surfaces = {name: folder / "textures" / f"{name}.png" for name in sorted({*TABLES, *FLOORS, *WALLS})}
    objects: dict[str, list[Part]] = {}
    with ThreadPoolExecutor() as pool:
        # Textures are decoded while meshes are simplified: each is half of the work.
        decoded = {path: pool.submit(read_texture, path, SURFACE_TEXTURE) for path in surfaces.values()}
        for name, path in paths.items():
            objects[name] = read_object(_file(folder, path), up="y" if path in Y_UP else "z")
            for part in objects[name]:
                if part.texture is not None and part.texture not in decoded:
                    decoded[part.texture] = pool.submit(read_texture, part.texture, OBJECT_TEXTURE)
        images = {texture: job.result() for texture, job in decoded.items()}

    spec = mujoco.MjSpec()
    # MuJoCo multiplies the clipping distances by the model's extent: any other would cut off what is near.
    spec.stat.extent = 1.0
    spec.stat.center = np.zeros(3)
    spec.visual.map.znear, spec.visual.map.zfar = NEAR, FAR
    spec.visual.quality.offsamples = 0
    spec.visual.quality.shadowsize = 1024
    textures: dict[bytes, str] = {}
    _add_room(spec, {name: _add_texture(spec, textures, images[path]) for name, path in surfaces.items()})
    for name, parts in objects.items():
        body = spec.worldbody.add_body(name=name, mocap=True)
        for number, part in enumerate(parts):
            _add_part(spec, body, f"{name}/{number}", part, textures, images)
    spec.add_text(name=EXTENTS, data=json.dumps({name: _extent(parts) for name, parts in objects.items()}))
    return spec.compile()


def _file(folder: Path, path: str) -> Path:
    alone = folder / f"{path}.xml"
    return alone if alone.is_file() else folder / path / f"{path.rsplit('/', 1)[1]}.xml"


def read_texture(path: Path, size: int) -> np.ndarray:
    """Return a texture as uint8 [size, size, 3].

    Raises:
        UserError: the file is missing or is not an image.
    """
    try:
        with Image.open(path) as image:
            small = image.convert("RGB").resize((size, size), Image.Resampling.BOX, reducing_gap=2.0)
            return np.asarray(small)
    except (OSError, UnidentifiedImageError) as error:
        raise UserError(f"{path}: not a readable texture ({error})") from None


def _extent(parts: list[Part]) -> list[float]:
    points = np.concatenate([part.mesh.points for part in parts])
    return [round(float(length), 5) for length in points.max(0) - points.min(0)]


def _add_texture(spec: Any, known: dict[bytes, str], pixels: np.ndarray) -> str:
    data = pixels.tobytes()
    if data not in known:
        known[data] = f"texture{len(known)}"
        height, width = pixels.shape[:2]
        flat = mujoco.mjtTexture.mjTEXTURE_2D
        spec.add_texture(name=known[data], type=flat, width=width, height=height, nchannel=3).data = data
    return known[data]


def _add_material(spec: Any, name: str, texture: str | None, **settings: Any) -> None:
    material = spec.add_material(name=name, **settings)
    if texture is not None:
        material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = texture


def _add_part(
    spec: Any, body: Any, name: str, part: Part, textures: dict[bytes, str], images: dict[Path, np.ndarray]
) -> None:
    rgb = np.array(part.rgb)
    texture = None
    if part.texture is not None and part.mesh.uv is not None:
        texture = _add_texture(spec, textures, images[part.texture])
    elif part.texture is not None:
        # Without coordinates the texture cannot be laid on, so its mean colour stands for it.
        rgb = rgb * images[part.texture].reshape(-1, 3).mean(0) / 255
    arrays = {"usertexcoord": part.mesh.uv, "usernormal": part.mesh.normals}
    spec.add_mesh(
        name=name,
        uservert=part.mesh.points.ravel(),
        userface=part.mesh.faces.ravel(),
        inertia=mujoco.mjtMeshInertia.mjMESH_INERTIA_SHELL,
        **{key: value.ravel() for key, value in arrays.items() if value is not None},
    )
    _add_material(spec, name, texture, rgba=[*rgb, 1.0], specular=0.3, shininess=0.3)
    _add_geom(body, name, mujoco.mjtGeom.mjGEOM_MESH, [0, 0, 0], meshname=name, material=name)


def _add_geom(body: Any, name: str, kind: Any, size: list[float], **settings: Any) -> None:
    body.add_geom(name=name, type=kind, size=size, contype=0, conaffinity=0, mass=0.01, **settings)


def _add_surface(body: Any, name: str, kind: Any, size: list[float]) -> None:
    # A large surface speckles itself when it casts a shadow, for want of shadow-map resolution.
    _add_geom(body, name, kind, size, castshadow=0)


def _add_room(spec: Any, surfaces: dict[str, str]) -> None:
    kinds = mujoco.mjtGeom
    for name, texture in surfaces.items():
        for tiles in TILES_PER_METRE:
            _add_material(
                spec, f"{name}@{tiles}", texture, texrepeat=[tiles, tiles], texuniform=True, specular=0.1, shininess=0.1
            )
    world = spec.worldbody
    for name in ("floor", "wall0", "wall1", "wall2"):
        _add_surface(world, name, kinds.mjGEOM_PLANE, [4, 4, 0.1])
    _add_surface(world, "square_top", kinds.mjGEOM_BOX, [1, 1, 0.02])
    _add_surface(world, "round_top", kinds.mjGEOM_CYLINDER, [1, 0.02, 0])
    for leg in range(4):
        _add_surface(world, f"leg{leg}", kinds.mjGEOM_BOX, [0.03, 0.03, 0.4])
    spec.worldbody.add_camera(name="camera")
    for number in range(LIGHTS):
        world.add_light(name=f"light{number}", castshadow=number == 0, cutoff=55, exponent=2)
