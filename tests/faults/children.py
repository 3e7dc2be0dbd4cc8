"""Work in processes of their own that begin within milliseconds: they are forked by one that has imported the package."""

import os
from multiprocessing import get_context

NOBODY = 65534
# The long profile, of `make test-long`.
LONG = int(os.environ.get("ROBUSTNB_EXAMPLES", "0")) >= 1000

CONTEXT = get_context("forkserver")
CONTEXT.set_forkserver_preload(["robustnb.sweep", "requests", "tqdm.auto", "filelock"])


def start(task, *arguments):
    process = CONTEXT.Process(target=task, args=arguments, daemon=True)
    process.start()
    return process


def begin(task, *arguments, as_nobody=False):
    """Begin a task; returned is what waits for ("returned", value), or the name of the error that it raised and its message."""
    here, there = CONTEXT.Pipe(duplex=False)
    process = start(_report, there, as_nobody, task, arguments)
    there.close()

    def wait():
        assert here.poll(60), "the process says nothing"
        outcome = here.recv()
        process.join()
        return outcome

    return wait


def outcome(task, *arguments, as_nobody=False):
    """What became of a task; `as_nobody` gives up what root may do: root reads and writes everything."""
    return begin(task, *arguments, as_nobody=as_nobody)()


def _report(connection, as_nobody, task, arguments):
    if as_nobody and os.geteuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    try:
        connection.send(("returned", task(*arguments)))
    except Exception as error:
        connection.send((type(error).__name__, str(error)))
