# The graph: every notebook for every backbone of an edition, then the book.
#   snakemake --profile profiles/local --cores 2 --config edition=demo [data_root=FOLDER] [results=FOLDER]
import os
import re
import shlex
import shutil
import signal
import sys
from contextlib import suppress
from pathlib import Path

import psutil

from ttame_book.editions.configuration import Configuration, project_root
from ttame_book.editions.graph import STEPS, needed, step_key
from ttame_book.editions.keys import result_key
from ttame_book.editions.schema import check
from ttame_book.editions.splits import lists_of
from ttame_core.errors import TTAMEError


def given_to_papermill(**values):
    """Parameters for a command line, quoted: no text of a user's is read by the shell."""
    return " ".join(f"-r {name} {shlex.quote(value)}" for name, value in values.items())


check(config, project_root(), "--config", "given")
if not os.path.isdir(config.get("data_root", ".")):
    raise TTAMEError(f"data_root {config['data_root']} is no folder; name one with train/ and val/")
SETTINGS = {k: config[k] for k in ("data_root",) if k in config}
EDITION = Configuration.read(
    config.get("edition", "demo"),
    SETTINGS,
    results=config.get("results"),
)
for name, file in EDITION.missing.items():
    print(f"{name} is left out: {file} is not there", file=sys.stderr)
if not EDITION.backbones:
    raise TTAMEError(f"edition {EDITION.name} has none of its files; put one there at least")
for name, spec in EDITION.config["data"].items():
    if "lists" in spec and not lists_of(spec, EDITION.root):
        print(f"images of {name} are drawn: {spec['lists']['test']} is not there", file=sys.stderr)
RESULTS = os.path.relpath(EDITION.results)
BACKBONE_OF = {EDITION.folder(name).name: name for name in EDITION.backbones}
OWN = ["00_explain", "01_own_model"] if EDITION.config.get("own") else []
RETRAINED = EDITION.demo_backbones if str(config.get("retrain")).lower() == "true" else []
# what runs beside it changes the times of a GPU; of a CPU, the time that one core is at work is taken
ALONE = workflow.cores if shutil.which("nvidia-smi") else 1
HELD = []  # the lock that keeps another run of the graph out, until this one ends
COMMITTED = [
    str(file)
    for kind in ("imagenette/summary/[!.]*", "imagenette/*/training.csv", "*/*/*.parquet")
    for file in sorted(Path("results").glob(kind))
    if file.parts[1]
    in ("imagenette", "other-classes", "more-photographs", "amortised-rise", "longer")
]
PLACE = given_to_papermill(edition=EDITION.name, results=config.get("results", "results"))
COMMON = f"{PLACE} {given_to_papermill(**SETTINGS)}"
RUN = (  # a notebook is written once, as it ends, not with all its pictures at each cell
    "OMP_NUM_THREADS={threads} MKL_NUM_THREADS={threads} papermill --no-progress-bar --log-level WARNING "
    "--no-request-save-on-cell-execute "
    "--cwd . {input.notebook} {output.notebook:q}.part.ipynb {params.given} "
    "2>&1 | tee {log:q} && mv {output.notebook:q}.part.ipynb {output.notebook:q}"
)


wildcard_constraints:
    folder="|".join(map(re.escape, BACKBONE_OF)),
    own="00_explain|01_own_model",


def notebook(name):
    """A notebook to run. Its text may change: what it computes is in the rule's key."""
    return ancient(f"notebooks/{name}.ipynb")


def outputs(step):
    """Patterns of a step's files, which stay until new ones are whole.

    The notebook does not: Snakemake takes what it restores after a failure for new, and by the
    notebook that is missing it knows better.
    """
    files = expand(f"{RESULTS}/{{{{folder}}}}/{{file}}", file=step.outputs)
    return list(map(update, files))


def written(step):
    """All files that a step writes, for all its backbones."""
    folders = [EDITION.folder(name).name for name in getattr(EDITION, step.among)]
    return expand(
        f"{RESULTS}/{{folder}}/{{file}}",
        folder=folders,
        file=[f"{step.notebook}.ipynb", *step.outputs],
    )


def retrained(w):
    """Weights that are trained anew first, where this is asked for."""
    name = BACKBONE_OF[w.folder]
    return [f"{RESULTS}/backbones/{name}.safetensors"] if name in RETRAINED else []


def needs_of(step):
    return lambda w: [
        f"{RESULTS}/{w.folder}/{file}" for file in needed(EDITION, step, BACKBONE_OF[w.folder])
    ]


def urgency(step):
    """What most others wait for comes first, then what takes long: it trains, or takes times.

    At the end short ones are left, for all cores.
    """
    waiting = sum(not {*step.outputs}.isdisjoint(other.needs) for other in STEPS)
    return 2 * waiting + ("train" in step.photographs or step.timed)


def key_of(step):
    return lambda w: step_key(EDITION, step, BACKBONE_OF[w.folder])


def stop(*_):
    """End all that runs for the graph; Snakemake would wait for it."""
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    raise KeyboardInterrupt


onstart:
    HELD.append(EDITION.hold("graph"))
    for sign in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sign, stop)


onsuccess:
    print(f"The book: {RESULTS}/book/_build/html/index.html")


rule all:
    """Everything, up to the book."""
    input:
        f"{RESULTS}/book/_build/html/index.html",


rule backbones:
    """Train the demo's classifiers anew."""
    input:
        notebook=notebook("02_backbones"),
    output:
        notebook=f"{RESULTS}/backbones/02_backbones.ipynb",
        weights=[
            update(f"{RESULTS}/backbones/{name}.safetensors") for name in EDITION.demo_backbones
        ],
    log:
        f"{RESULTS}/logs/02_backbones.log",
    threads: workflow.cores
    params:
        given=COMMON,
        key=result_key([EDITION.root / "notebooks/02_backbones.ipynb"], EDITION.seed),
    shell:
        RUN


for step in STEPS:

    rule:
        name:
            step.rule
        input:
            retrained,
            needs_of(step),
            notebook=notebook(step.notebook),
        output:
            outputs(step),
            notebook=f"{RESULTS}/{{folder}}/{step.notebook}.ipynb",
        log:
            f"{RESULTS}/logs/{{folder}}/{step.notebook}.log",
        priority: urgency(step)
        threads: ALONE if step.timed else 1
        params:
            given=lambda w: f"{given_to_papermill(backbone=BACKBONE_OF[w.folder])} {COMMON}",
            key=key_of(step),
        shell:
            RUN

    workflow.get_rule(step.rule).docstring = step.does


rule compare:
    """Bring all backbones together: tables, paired comparisons, verdicts on the paper's claims."""
    input:
        *map(written, STEPS),
        notebook=notebook("12_compare"),
    output:
        notebook=f"{RESULTS}/12_compare.ipynb",
        means=update(f"{RESULTS}/summary/means.csv"),
    log:
        f"{RESULTS}/logs/12_compare.log",
    threads: 1
    params:
        given=COMMON,
        key=result_key(
            [EDITION.root / "notebooks/12_compare.ipynb"],
            [
                EDITION.backbones,
                EDITION.scored,
                EDITION.studied,
                EDITION.converged,
                EDITION.config.get("claims"),
            ],
        ),
    shell:
        RUN


rule own:
    """Explain a photograph, and give a classifier of one's own an explainer."""
    input:
        notebook=lambda w: notebook(w.own),
    output:
        notebook=f"{RESULTS}/{{own}}.ipynb",
    log:
        f"{RESULTS}/logs/{{own}}.log",
    priority: -1  # what the overview waits for comes first, and these beside it
    threads: 1
    params:
        given=PLACE,
        key=lambda w: result_key(
            [EDITION.root / f"notebooks/{w.own}.ipynb"],
            EDITION.seed,
            [EDITION.root / "ttame_core" / "explainers"],
        ),
    shell:
        RUN


rule book:
    """Publish what the notebooks wrote."""
    input:
        expand(f"{RESULTS}/{{own}}.ipynb", own=OWN),
        [f"{RESULTS}/backbones/02_backbones.ipynb"] if RETRAINED else [],
        *map(written, STEPS),
        overview=rules.compare.output.notebook,
        texts=expand(
            "notebooks/{name}.ipynb", name=glob_wildcards("notebooks/{name,[^.].*}.ipynb").name
        ),
        prose=expand("book/{name}.md", name=sorted(glob_wildcards("book/{name,[^.].*}.md").name)),
        families="book/families.csv",
        costs=["config/imagenet.yaml", *sorted(map(str, Path("benchmarks/results").glob("*.json")))],
        committed=COMMITTED,
        looks=expand(
            "book/_static/{file}", file=sorted(glob_wildcards("book/_static/{file,[^.].*}").file)
        ),
        generator=[
            *expand("book/{name}.py", name=sorted(glob_wildcards("book/{name,[^.].*}.py").name)),
            *sorted(map(str, Path("book/_ext").glob("*.py"))),
        ],
        settings="book/_config.yml",
    output:
        f"{RESULTS}/book/_build/html/index.html",
    log:
        f"{RESULTS}/logs/book.log",
    threads: 2  # one draws, one writes
    params:
        title=EDITION.config["title"],
        results=shlex.quote(RESULTS),
        key=result_key(
            [f"ttame_book.report.{name}" for name in ("explorer", "figures", "answers", "drawing")]
        ),
    shell:
        "python book/pages.py {params.results} {params.title:q} > {log:q} 2>&1 "
        "&& jupyter-book build --warningiserror --nitpick --all {params.results}/book >> {log:q} 2>&1 "
        "|| (tail -n 30 {log:q}; exit 1)"
