"""Find off-screen OpenGL. Nothing here imports MuJoCo, which chooses its OpenGL when it is imported."""

from __future__ import annotations

import os
import subprocess
import sys

from lowdata_cpt.core.errors import UserError

BACKENDS = ("osmesa", "egl")
PROBE = "import mujoco; context = mujoco.GLContext(8, 8); context.make_current(); context.free()"


def find_backend() -> str:
    """Return a value of MUJOCO_GL that works here, tried in a process of its own.

    MUJOCO_GL itself, where set, is the only one tried; otherwise OSMesa, which draws the same bytes
    whatever the graphics card, comes before EGL.

    Raises:
        UserError: there is no off-screen OpenGL.
    """
    chosen = os.environ.get("MUJOCO_GL")
    for backend in (chosen,) if chosen else BACKENDS:
        environment = {**os.environ, "MUJOCO_GL": backend}
        done = subprocess.run([sys.executable, "-c", PROBE], env=environment, capture_output=True, check=False)
        if done.returncode == 0:
            return backend
    tried = f"MUJOCO_GL={chosen}" if chosen else "OSMesa and EGL"
    raise UserError(f"no off-screen OpenGL ({tried} failed): install Debian's libosmesa6 (tools/install-gl) or EGL")
