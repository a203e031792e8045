"""Becomes a program as systemd starts one: sockets from descriptor 3 on, and whom to tell when ready.

    RELAIS_PASSED=7,9 as_systemd.py NOTIFY_SOCKET COUNT PROGRAM [ARGUMENT …]
"""

import os
import sys

notify, count, program, *arguments = sys.argv[1:]
# First out of the way: a source may stand where a target must.
high = [os.dup(int(descriptor)) for descriptor in os.environ.pop("RELAIS_PASSED").split(",")]
away = [os.dup2(descriptor, 100 + number) for number, descriptor in enumerate(high)]
for number, descriptor in enumerate(away):
    os.dup2(descriptor, 3 + number, inheritable=True)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": count, "NOTIFY_SOCKET": notify}
os.execv(program, [program, *arguments])
