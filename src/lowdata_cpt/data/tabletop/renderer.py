"""Draw scenes off screen: colour, object and metric depth of every pixel."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from lowdata_cpt.data.tabletop.catalogue import FAR, NEAR
from lowdata_cpt.data.tabletop.scenes import Scene

# Pictures are drawn this many times larger each way and averaged; labels are sampled.
SUPERSAMPLE = 2
HIDDEN = 5


@dataclass(frozen=True)
class Frame:
    """One drawn scene at S = `SUPERSAMPLE` × resolution.

    Attributes:
        image: uint8 [S, S, 3].
        instances: uint8 [S, S]; 0 is the room, i the i-th item of the scene, counted from 1.
        depth: float32 [S, S], metres along the camera's axis.
    """

    image: NDArray[np.uint8]
    instances: NDArray[np.uint8]
    depth: NDArray[np.float32]


class Renderer:
    """Draws scenes from one compiled model, one at a time; nothing of a scene outlasts it."""

    def __init__(self, model_path: Path, resolution: int) -> None:
        """Load the model; `resolution` is the side in pixels of the final square pictures."""
        self.model = mujoco.MjModel.from_binary_path(str(model_path))
        self.data = mujoco.MjData(self.model)
        self.side = SUPERSAMPLE * resolution
        self.model.vis.global_.offwidth = self.model.vis.global_.offheight = self.side
        self._gl = mujoco.GLContext(self.side, self.side)
        self._gl.make_current()
        self._context = mujoco.MjrContext(self.model, mujoco.mjtFontScale.mjFONTSCALE_100)
        self._context.readDepthMap = mujoco.mjtDepthMap.mjDEPTH_ZEROFAR
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        self._visual = mujoco.MjvScene(self.model, maxgeom=self.model.ngeom + 100)
        self._option = mujoco.MjvOption()
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._camera.fixedcamid = 0
        self._rect = mujoco.MjrRect(0, 0, self.side, self.side)
        self.extents: dict[str, list[float]] = json.loads(read_text(self.model))

    def draw(self, scene: Scene) -> Frame:
        """Draw one scene."""
        owner = self._apply(scene)
        mujoco.mj_kinematics(self.model, self.data)
        mujoco.mj_camlight(self.model, self.data)
        everything = mujoco.mjtCatBit.mjCAT_ALL
        mujoco.mjv_updateScene(self.model, self.data, self._option, None, self._camera, everything, self._visual)
        flags = self._visual.flags
        flags[mujoco.mjtRndFlag.mjRND_SHADOW] = 1
        flags[mujoco.mjtRndFlag.mjRND_SEGMENT] = flags[mujoco.mjtRndFlag.mjRND_IDCOLOR] = 0
        image = np.empty((self.side, self.side, 3), np.uint8)
        mujoco.mjr_render(self._rect, self._visual, self._context)
        mujoco.mjr_readPixels(image, None, self._rect, self._context)
        flags[mujoco.mjtRndFlag.mjRND_SEGMENT] = flags[mujoco.mjtRndFlag.mjRND_IDCOLOR] = 1
        codes = np.empty_like(image)
        window_depth = np.empty((self.side, self.side), np.float32)
        mujoco.mjr_render(self._rect, self._visual, self._context)
        mujoco.mjr_readPixels(codes, window_depth, self._rect, self._context)
        return Frame(image[::-1], self._instances(codes, owner)[::-1], metric_depth(window_depth)[::-1])

    def close(self) -> None:
        """Free the OpenGL context."""
        self._context.free()
        self._gl.free()

    def _instances(self, codes: NDArray[np.uint8], owner: NDArray[np.uint8]) -> NDArray[np.uint8]:
        code = codes.astype(np.int64) @ np.array([1, 1 << 8, 1 << 16])
        instance = np.zeros(self._visual.ngeom + 1, np.uint8)
        for geom in self._visual.geoms[: self._visual.ngeom]:
            if geom.segid >= 0 and geom.objtype == mujoco.mjtObj.mjOBJ_GEOM:
                instance[geom.segid + 1] = owner[geom.objid]
        instances: NDArray[np.uint8] = instance[code]
        return instances

    def _apply(self, scene: Scene) -> NDArray[np.uint8]:
        """Put the scene into the model and return, for each geom, the instance it belongs to."""
        model, owner = self.model, np.zeros(self.model.ngeom, np.uint8)
        model.geom_group[:] = HIDDEN
        for surface in scene.surfaces:
            geom = model.geom(surface.name).id
            model.geom_group[geom] = 0
            model.geom_matid[geom] = model.material(surface.material).id
            model.geom_size[geom] = surface.size
            model.geom_pos[geom] = surface.position
            model.geom_quat[geom] = surface.quaternion
            model.geom_rgba[geom] = surface.tint
            model.geom_sameframe[geom] = 0
        for number, item in enumerate(scene.items, 1):
            body = model.body(item.name)
            mocap = body.mocapid[0]
            self.data.mocap_pos[mocap] = item.position
            self.data.mocap_quat[mocap] = item.quaternion
            for geom in range(body.geomadr[0], body.geomadr[0] + body.geomnum[0]):
                model.geom_group[geom] = 0
                model.geom_rgba[geom] = model.mat_rgba[model.geom_matid[geom]] * np.array(item.tint, np.float32)
                owner[geom] = number
        for number, light in enumerate(scene.lights):
            model.light_pos[number] = light.position
            model.light_dir[number] = light.direction
            model.light_diffuse[number] = light.diffuse
            model.light_ambient[number] = light.ambient
        model.vis.headlight.ambient[:] = 0.1
        model.vis.headlight.diffuse[:] = 0.2
        model.vis.headlight.specular[:] = 0.0
        model.cam_pos[0] = scene.camera.position
        model.cam_quat[0] = scene.camera.quaternion
        model.cam_fovy[0] = scene.camera.fovy
        return owner


def read_text(model: Any) -> str:
    """Return the only custom text of a MuJoCo model."""
    return bytes(model.text_data[: model.text_size[0]]).rstrip(b"\0").decode()


def metric_depth(window: NDArray[np.float32]) -> NDArray[np.float32]:
    """Turn MuJoCo's reversed window depth (1 at `NEAR`, 0 at `FAR`) into metres along the camera's axis."""
    inverse = window.astype(np.float64) * (1 / NEAR - 1 / FAR) + 1 / FAR
    return (1 / inverse).astype(np.float32)
