import os

from hypothesis import settings

# A busy machine is no failure, and a failure is the same one tomorrow.
settings.register_profile("project", deadline=None, derandomize=True)
settings.load_profile("project")

# Data are where a test puts them, not where the caller's are.
os.environ.pop("LOWDATA_DATA", None)
