"""Put on the path of a server's processes by the tests: waiting for a step, they sleep instead of yielding.

Worker and engine core spin on os.sched_yield while they wait for each other. On two cores whoever else wants to
run (the server's front, the clients) was seen to wait for five seconds on end: the queue is then in front of the
server, where no scheduler of an engine can order it.
"""

import os
import time


def _sleep() -> None:
    time.sleep(0.0001)


os.sched_yield = _sleep
