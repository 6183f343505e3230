# The graph: every notebook for every backbone of an edition, then the book.
#   snakemake --profile profiles/local --cores 2 --config edition=demo [data_root=FOLDER] [results=FOLDER]
import json
import os
import re
import shlex
import sys

from ttame_core.configuration import TRAINED, Configuration

SETTINGS = {k: config[k] for k in ("data_root",) if k in config}
EDITION = Configuration.read(
    config.get("edition", "demo"),
    SETTINGS,
    results=config.get("results"),
)
for name, file in EDITION.missing.items():
    print(f"{name} is left out: its weights {file} are not there", file=sys.stderr)
RESULTS = os.path.relpath(EDITION.results)
FOLDERS = {EDITION.folder(name).name: name for name in EDITION.backbones}
SHIPPED = [f"ttame_core/weights/{name}.safetensors" for name in EDITION.demo_backbones]
COMMITTED = sorted(glob_wildcards("results/imagenette/summary/{file}").file)
STUDIED = [EDITION.folder(name).name for name in EDITION.studied]
CONVERGED = STUDIED if EDITION.config.get("converge") else []
OWN = ["10_explain", "11_own_model"] if EDITION.config.get("own") else []
RETRAINED = (
    [f"{RESULTS}/backbones/{name}.safetensors" for name in EDITION.demo_backbones]
    if config.get("retrain")
    else []
)


def core(*modules):
    """Sources that a rule's numbers depend on."""
    return [f"ttame_core/{m}.py" for m in modules]


METHOD = core(
    *"attention backbones configuration data demo editions explainer layers losses masking".split(),
    *"taps training trainings warm_start wheels zoo".split(),
)
MEASURES = core(
    *"compared remembered imputation imputation_compiled metrics perturbations statistics".split(),
    *(f"methods/{name}" for name in glob_wildcards("ttame_core/methods/{name}.py").name),
)
COMPARED = [f"evaluate.{part}" for part in ("methods", "options", "limits")]
COMMON = f"-p edition {EDITION.name} -p results {shlex.quote(config.get('results', 'results'))}"
COMMON += "".join(f" -p {k} {shlex.quote(str(v))}" for k, v in SETTINGS.items())
RUN = (
    "MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=8000000000 "  # glibc keeps freed memory: up to twice as fast on a CPU
    "OMP_NUM_THREADS={threads} MKL_NUM_THREADS={threads} papermill --no-progress-bar --log-level WARNING "
    "--cwd . {input.notebook} {output.notebook}.part.ipynb {params.given} "
    "2>&1 | tee {log} && mv {output.notebook}.part.ipynb {output.notebook}"
)


wildcard_constraints:
    folder="|".join(map(re.escape, FOLDERS)),


def of(folder, *keys):
    """What of the configuration a backbone's numbers depend on, as text."""
    entry = EDITION.entry(FOLDERS[folder])
    data = EDITION.config["data"][entry["data"]]
    rest = {}
    for key in ("seed", *keys):
        section, _, part = key.partition(".")
        found = EDITION.config.get(section)
        rest[key] = found.get(part) if part else found
    return json.dumps({"entry": entry, "data": data, **rest}, sort_keys=True)


onsuccess:
    print(f"The book: {RESULTS}/book/_build/html/index.html")


rule all:
    input:
        f"{RESULTS}/book/_build/html/index.html",


rule backbones:
    input:
        notebook="notebooks/00_backbones.ipynb",
        core=core("data", "demo"),
    output:
        notebook=f"{RESULTS}/backbones/00_backbones.ipynb",
        weights=[f"{RESULTS}/backbones/{name}.safetensors" for name in EDITION.demo_backbones],
    log:
        f"{RESULTS}/logs/00_backbones.log",
    threads: workflow.cores
    params:
        given=COMMON,
    shell:
        RUN


rule train:
    input:
        notebook="notebooks/01_train.ipynb",
        core=METHOD,
        weights=RETRAINED or SHIPPED,
    output:
        notebook=f"{RESULTS}/{{folder}}/01_train.ipynb",
        explainer=f"{RESULTS}/{{folder}}/explainer.safetensors",
        history=f"{RESULTS}/{{folder}}/training.csv",
    log:
        f"{RESULTS}/logs/{{folder}}/01_train.log",
    threads: 1
    params:
        given=lambda w: f"-p backbone {FOLDERS[w.folder]} {COMMON}",
        settings=lambda w: of(w.folder, "train", "trained"),
        rivals=[m for m in EDITION.config["evaluate"]["methods"] if m in TRAINED],
    shell:
        RUN


rule evaluate:
    input:
        notebook="notebooks/02_evaluate.ipynb",
        core=METHOD + MEASURES,
        explainer=rules.train.output.explainer,
    output:
        notebook=f"{RESULTS}/{{folder}}/02_evaluate.ipynb",
        scores=f"{RESULTS}/{{folder}}/scores.parquet",
        means=f"{RESULTS}/{{folder}}/means.csv",
    log:
        f"{RESULTS}/logs/{{folder}}/02_evaluate.log",
    threads: 1
    params:
        given=lambda w: f"-p backbone {FOLDERS[w.folder]} {COMMON}",
        settings=lambda w: of(w.folder, *COMPARED, "evaluate.percentages", "evaluate.images"),
    shell:
        RUN


rule road:
    input:
        notebook="notebooks/03_road.ipynb",
        core=METHOD + MEASURES,
        explainer=rules.train.output.explainer,
        scores=rules.evaluate.output.scores,  # by then maps of costly methods are there
    output:
        notebook=f"{RESULTS}/{{folder}}/03_road.ipynb",
        scores=f"{RESULTS}/{{folder}}/road.parquet",
        means=f"{RESULTS}/{{folder}}/road.csv",
    log:
        f"{RESULTS}/logs/{{folder}}/03_road.log",
    threads: 1
    params:
        given=lambda w: f"-p backbone {FOLDERS[w.folder]} {COMMON}",
        settings=lambda w: of(w.folder, *COMPARED, "evaluate.road_images"),
    shell:
        RUN


rule qualitative:
    input:
        notebook="notebooks/06_qualitative.ipynb",
        core=METHOD + MEASURES + core("costs", "figures"),
        explainer=rules.train.output.explainer,
        scores=rules.evaluate.output.scores,
    output:
        notebook=f"{RESULTS}/{{folder}}/06_qualitative.ipynb",
        costs=f"{RESULTS}/{{folder}}/costs.csv",
    log:
        f"{RESULTS}/logs/{{folder}}/06_qualitative.log",
    threads: workflow.cores  # alone, as it takes times
    params:
        given=lambda w: f"-p backbone {FOLDERS[w.folder]} {COMMON}",
        settings=lambda w: of(w.folder, *COMPARED),
    shell:
        RUN


rule ablate:
    input:
        notebook="notebooks/04_ablations.ipynb",
        core=METHOD + MEASURES + core("ablations"),
        weights=RETRAINED or SHIPPED,
    output:
        notebook=f"{RESULTS}/{{folder}}/04_ablations.ipynb",
        scores=f"{RESULTS}/{{folder}}/ablations.parquet",
    log:
        f"{RESULTS}/logs/{{folder}}/04_ablations.log",
    threads: 1
    params:
        given=lambda w: f"-p backbone {FOLDERS[w.folder]} {COMMON}",
        settings=lambda w: of(w.folder, "train", "ablate"),
    shell:
        RUN


rule tune:
    input:
        notebook="notebooks/05_hyperparameters.ipynb",
        core=METHOD + MEASURES + core("ablations", "study_figures"),
        explainer=rules.train.output.explainer,
    output:
        notebook=f"{RESULTS}/{{folder}}/05_hyperparameters.ipynb",
        grid=f"{RESULTS}/{{folder}}/grid.csv",
    log:
        f"{RESULTS}/logs/{{folder}}/05_hyperparameters.log",
    threads: 1
    params:
        given=lambda w: f"-p backbone {FOLDERS[w.folder]} {COMMON}",
        settings=lambda w: of(w.folder, "train", "tune"),
    shell:
        RUN


rule sanity:
    input:
        notebook="notebooks/07_sanity.ipynb",
        core=METHOD + MEASURES + core("sanity", "study_figures"),
        explainer=rules.train.output.explainer,
    output:
        notebook=f"{RESULTS}/{{folder}}/07_sanity.ipynb",
        scores=f"{RESULTS}/{{folder}}/sanity.parquet",
    log:
        f"{RESULTS}/logs/{{folder}}/07_sanity.log",
    threads: 1
    params:
        given=lambda w: f"-p backbone {FOLDERS[w.folder]} {COMMON}",
        settings=lambda w: of(w.folder, "sanity"),
    shell:
        RUN


rule counterfactual:
    input:
        notebook="notebooks/08_counterfactual.ipynb",
        core=METHOD + MEASURES + core("counterfactuals", "sanity"),
        explainer=rules.train.output.explainer,
    output:
        notebook=f"{RESULTS}/{{folder}}/08_counterfactual.ipynb",
        scores=f"{RESULTS}/{{folder}}/runner-up.parquet",
    log:
        f"{RESULTS}/logs/{{folder}}/08_counterfactual.log",
    threads: 1
    params:
        given=lambda w: f"-p backbone {FOLDERS[w.folder]} {COMMON}",
        settings=lambda w: of(w.folder, "counterfactual"),
    shell:
        RUN


rule converge:
    input:
        notebook="notebooks/12_convergence.ipynb",
        core=METHOD + MEASURES + core("ablations", "study_figures"),
        weights=RETRAINED or SHIPPED,
    output:
        notebook=f"{RESULTS}/{{folder}}/12_convergence.ipynb",
        scores=f"{RESULTS}/{{folder}}/convergence.parquet",
    log:
        f"{RESULTS}/logs/{{folder}}/12_convergence.log",
    threads: 1
    params:
        given=lambda w: f"-p backbone {FOLDERS[w.folder]} {COMMON}",
        settings=lambda w: of(w.folder, "train", "trained", "converge"),
    shell:
        RUN


rule compare:
    input:
        notebook="notebooks/09_compare.ipynb",
        core=core(
            *"ablations claims figures statistics study_figures tables verdicts".split(),
        ),
        tables=expand(
            [
                rules.evaluate.output.scores,
                rules.road.output.scores,
                rules.qualitative.output.costs,
                rules.sanity.output.scores,
                rules.counterfactual.output.scores,
            ],
            folder=FOLDERS,
        )
        + expand(rules.ablate.output.scores, folder=STUDIED)
        + expand(rules.tune.output.grid, folder=STUDIED)
        + expand(rules.converge.output.scores, folder=CONVERGED),
    output:
        notebook=f"{RESULTS}/09_compare.ipynb",
        means=f"{RESULTS}/summary/means.csv",
    log:
        f"{RESULTS}/logs/09_compare.log",
    threads: workflow.cores
    params:
        given=COMMON,
        settings=list(FOLDERS),
    shell:
        RUN


rule own:
    input:
        notebook="notebooks/{name}.ipynb",
        core=METHOD + MEASURES + core("figures", "ready"),
    output:
        notebook=f"{RESULTS}/{{name}}.ipynb",
    log:
        f"{RESULTS}/logs/{{name}}.log",
    wildcard_constraints:
        name="10_explain|11_own_model",
    threads: 1
    params:
        given=f"-p edition {EDITION.name} -p results {shlex.quote(config.get('results', 'results'))}",
    shell:
        RUN


rule book:
    input:
        overview=rules.compare.output.notebook,
        backbones=[f"{RESULTS}/backbones/00_backbones.ipynb"] if RETRAINED else [],
        chapters=expand(
            [
                rules.train.output.notebook,
                rules.evaluate.output.notebook,
                rules.road.output.notebook,
                rules.qualitative.output.notebook,
                rules.sanity.output.notebook,
                rules.counterfactual.output.notebook,
            ],
            folder=FOLDERS,
        )
        + expand([rules.ablate.output.notebook, rules.tune.output.notebook], folder=STUDIED)
        + expand(rules.converge.output.notebook, folder=CONVERGED)
        + expand(rules.own.output.notebook, name=OWN),
        prose=expand("book/{name}.md", name=sorted(glob_wildcards("book/{name}.md").name)),
        committed=expand("results/imagenette/summary/{file}", file=COMMITTED),
        generator="book/pages.py",
        settings="book/_config.yml",
    output:
        f"{RESULTS}/book/_build/html/index.html",
    log:
        f"{RESULTS}/logs/book.log",
    params:
        title=EDITION.config["title"],
    shell:
        "python book/pages.py {RESULTS} {params.title:q} > {log} 2>&1 "
        "&& jupyter-book build --warningiserror --nitpick --all {RESULTS}/book >> {log} 2>&1 "
        "|| (tail -n 30 {log}; exit 1)"
