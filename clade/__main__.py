"""``python -m clade``"""

import sys

from clade.cli import main

sys.exit(main())
