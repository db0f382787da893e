"""The folder itself on the path, for `samples`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
