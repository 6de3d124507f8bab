"""`python -m lowdata_cpt` is the command line."""

import sys

from lowdata_cpt.cli import main

sys.exit(main())
