"""Runs the scripts beside this file in order: python main.py [05 06 ...] [NAME=VALUE ...]"""

import sys

from labutils.tools.script import main

sys.exit(main(__file__))
