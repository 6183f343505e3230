"""Jupyter's kernels, forked from one process that has imported what notebooks import.

To import it takes a notebook of few images longer than all else. Each job has its own kernel still, whose
environment, folder and streams are those that it is started with.
"""

import gc
import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

IMPORTED = (
    *("ipykernel.ipkernel", "ipykernel.kernelapp", "papermill", "seaborn", "sklearn.datasets"),
    *("scipy.stats", "lightning_fabric", "pytorch_grad_cam", "captum.attr", "timm"),
    *("pyarrow.parquet", "numba", "ttame_core.training", "ttame_core.metrics.imputation_numba"),
    *("ttame_book.demo.digits", "ttame_book.report.tables", "ttame_book.report.explorer"),
    *("ttame_book.report.maps", "ttame_book.report.verdicts", "ttame_book.report.figures"),
    *("ttame_book.studies.comparison", "ttame_book.studies.ablations"),
)


@contextmanager
def forked_kernels(project, place):
    """The environment in which commands run in a project have kernels that are forked."""
    kernel, address = place / "kernels" / "python3" / "kernel.json", place / "socket"
    kernel.parent.mkdir(parents=True)
    argv = [sys.executable, "-S", __file__, "ask", str(address), "{connection_file}"]
    kernel.write_text(json.dumps({"argv": argv, "display_name": "forked", "language": "python"}))
    path = f"{project}:{Path(__file__).parents[2]}"
    inline = "module://matplotlib_inline.backend_inline"  # what a kernel sets before any import
    server = subprocess.Popen(
        [sys.executable, "-P", "-m", "tests.project.kernels", "serve", str(address)],
        cwd=project,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "MPLBACKEND": inline},
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert server.stdout.readline() == b"ready\n"
        yield {"JUPYTER_PATH": str(place)}
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def serve(address):
    """Import, then fork a kernel for each that asks."""
    for name in IMPORTED:
        import_module(name)
    gc.freeze()  # so that kernels share this memory, and search none of it for garbage
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(address)
    listener.listen()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # so that none that has ended is waited for
    print("ready", flush=True)
    while True:
        connection, _ = listener.accept()
        if not os.fork():
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            be_kernel(connection)
        connection.close()


def be_kernel(connection):
    """Be the kernel that was asked for, to its end."""
    message, streams, *_ = socket.recv_fds(connection, 2**20, 2)
    for number, stream in enumerate(streams, start=1):
        os.dup2(stream, number)
        os.close(stream)
    told = json.loads(message)
    os.chdir(told["folder"])
    os.environ.clear()
    os.environ.update(told["environment"])
    from ipykernel.kernelapp import IPKernelApp

    IPKernelApp.launch_instance([*told["words"], f"--IPKernelApp.parent_handle={os.getppid()}"])
    os._exit(0)


def ask(address, file, *options):
    """Ask for a kernel, and live as long as it does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # which comes before each end
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.connect(address)
        told = {
            "folder": os.getcwd(),
            "environment": {**os.environ},
            "words": ["-f", file, *options],
        }
        socket.send_fds(connection, [json.dumps(told).encode()], [1, 2])
        connection.recv(1)  # the end, which comes with that of the kernel


if __name__ == "__main__":
    {"serve": serve, "ask": ask}[sys.argv[1]](*sys.argv[2:])
