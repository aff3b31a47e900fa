"""Imported once by the server from which the processes of calls are forked; they need not import again."""

import contextlib
import importlib
import os

from pneumo.base.messages import hold_messages

VARIABLE = "PNEUMO_PRELOAD"  # names of modules, divided by commas

for _name in filter(None, os.environ.get(VARIABLE, "").split(",")):
    # A module that cannot be imported is imported again by the calls that need it, which then say why.
    with contextlib.suppress(Exception), hold_messages():
        importlib.import_module(_name)
