# One rule per notebook; the same file runs on a laptop and, through an executor plugin, on a cluster.
# `make book` calls it as: snakemake --config preset=cpu task=earth seeds=1

import json
import shlex
import sys
from pathlib import Path

from i2i_book.make import shown
from i2i_book.pages.assemble import DEMOS
from i2i_book import presets, runs
from i2i_book.runner.notebook import imported_modules

PRESET = str(config.get("preset", "cpu"))
SETTINGS = presets.load_preset(PRESET)
RUN = Path(PRESET).stem
TASKS = presets.tasks(str(config.get("task", "earth")))
SEEDS = range(int(config.get("seeds", 1)))
# The folder of the task `folder`, or where a data set was put, and how its pictures are arranged.
DATA, LAYOUT = str(config.get("data", "")), str(config.get("layout", ""))
ARMS, GENERATORS = ({task: presets.variants(SETTINGS, task)[i] for task in TASKS} for i in range(2))
# `make ablations`: the book, with the students of chapter 10.
ABLATIONS = {task: presets.ablations(SETTINGS, task) for task in TASKS} if os.environ.get("ABLATIONS") == "yes" else {}
if ABLATIONS and not any(ABLATIONS.values()):
    raise WorkflowError(f"no ablations for {', '.join(TASKS)}: they are of {', '.join(presets.PAIRED_TASKS)}")

HOME = f"runs/{RUN}/{{task}}/seed{{seed}}"
# A cluster stops a training a little later than its runner does, which says why.
MINUTES = SETTINGS["minutes"] + 5
SHOWN = shown(RUN) and not ABLATIONS
# exec: the runner takes the shell's place, so that it sees at once when Snakemake is gone.
RUNNER = (
    f"exec {sys.executable} -m i2i_book.runner {{input.notebook}} --preset {shlex.quote(PRESET)} --run {shlex.quote(RUN)}"
    " {params.fixed} --log {log.notebook} --publish {output.notebook}"
)
SEEDED = "-p task {task} -p seed {seed}"


wildcard_constraints:
    task="[a-z0-9-]+",
    seed="[0-9]+",
    arm="[a-z]+",


def source(name):
    """The notebook and every library module that it imports."""
    notebook = Path("notebooks") / f"{name}.ipynb"
    return {"notebook": str(notebook), "modules": [str(p.relative_to(Path.cwd())) for p in imported_modules(notebook)]}


def parameters(name, variant=None):
    """What the preset sets for a notebook: a change reruns it."""

    def given(wildcards):
        chosen = wildcards.get("arm") or variant
        return json.dumps(presets.preset_parameters(SETTINGS, name, wildcards.task, chosen), sort_keys=True)

    return given


def each(pattern, **by_task):
    """`pattern` for every task and seed, and for what each keyword lists for that task."""
    return [
        path
        for task in TASKS
        for path in expand(pattern, task=task, seed=SEEDS, **{key: found[task] for key, found in by_task.items()})
    ]


def same(values):
    return {task: values for task in TASKS}


# Label maps go to another kind of generator, whose search space has a pruning chapter of its own.
GAUGAN = {task: presets.preset_parameters(SETTINGS, "01-data", task).get("family") == "gaugan" for task in TASKS}
FROM_LABELS = ["earth-labels", *(task for task, chosen in GAUGAN.items() if chosen)]
PRUNING = {task: "03-pruning-gaugan" if task in FROM_LABELS else "03-pruning" for task in TASKS}
PAGES = [
    *each(f"{HOME}/notebooks/{{name}}.ipynb", name={task: ["01-data", PRUNING[task], "05-evaluation"] for task in TASKS}),
    *each(
        f"{HOME}/notebooks/02-search-space{{suffix}}.ipynb",
        suffix={task: ["" if g == "inception" else f"-{g}" for g in made] for task, made in GENERATORS.items()},
    ),
    *each(f"{HOME}/notebooks/04-distillation-{{arm}}.ipynb", arm=ARMS),
    *(["runs/{}/earth/seed0/notebooks/07-deployment.ipynb".format(RUN)] if "earth" in TASKS else []),
    *[
        f"runs/{RUN}/notebooks/{name}.ipynb"
        for name in ("06-results", "08-paper-numbers", "09-search-cost", "10-ablations")
    ],
]

# Networks for the live demo. Its other task must have been asked for.
DEMO_FILES = [f"runs/{RUN}/{task}/seed0/demo/demo.json" for task in DEMOS if "gcka" in ARMS.get(task, [])]

# What lies between the pages. `all` asks for it, since Snakemake misses no file that only finished rules have read.
MODELS = {
    task: ["data", "teacher", "teacher-discriminator", *[f"student-{arm}" for arm in ARMS[task]]]
    + [name for name in ["original"] if "resnet" in GENERATORS[task]]
    for task in TASKS
}
ARTIFACTS = [
    *each(f"{HOME}/{{name}}{{suffix}}", name=MODELS, suffix=same([".safetensors", ".json"])),
    *each(f"{HOME}/{{name}}.json", name=same(["plan", "eval", "scales"])),
    *[f"runs/{RUN}/{name}" for name in ("results.jsonl", "headline.md")],
]


# What other tasks and seeds have left in this run stays in its table; asking for one task makes no other again.
ASKED = each(f"{HOME}/eval.json")
OTHERS = sorted(str(path) for path in Path("runs", RUN).glob("*/seed*/eval.json") if str(path) not in ASKED)
# So does what was ablated: the book shows it, and only `make ablations` makes it.
ABLATED = each(f"{HOME}/{{name}}.json", name={task: ["ablations"] if ABLATIONS.get(task) else [] for task in TASKS})
LEFT = sorted(str(path) for path in Path("runs", RUN).glob("*/seed*/ablations.json") if str(path) not in ABLATED)


rule all:
    input:
        "_build/html/index.html",
        [] if SHOWN else [*ARTIFACTS, *ABLATED],


rule book:
    input:
        pages=[] if SHOWN else PAGES,
        results=[] if SHOWN else f"runs/{RUN}/results.jsonl",
        demos=[] if SHOWN else DEMO_FILES,
        recorded=[str(p) for p in Path("book/recorded").rglob("*") if p.is_file()],
        prose=[str(p) for p in [*Path("book").glob("*.*"), *Path("book/static").glob("*.*"), *Path("book/static/demo").glob("*.*")] if p.name not in runs.ASSEMBLED],
        config=["_config.yml", "package.json", "package-lock.json", "i2i_book/api.py", *map(str, Path("i2i_book").glob("*/*.py"))],
        library=sorted(str(path) for path in Path("i2i_lib").rglob("*.py")),  # for its reference
    output:
        "_build/html/index.html",
    params:
        preset=PRESET,
    shell:
        f"{sys.executable} -m i2i_book.pages assemble --preset {RUN} && exec {sys.executable} -m i2i_book.pages build"


rule data:
    input:
        **source("01-data"),
        texts="notebooks/tasks.yml",
    output:
        notebook=f"{HOME}/notebooks/01-data.ipynb",
        data=multiext(f"{HOME}/data", ".safetensors", ".json"),
    log:
        notebook=f"{HOME}/logs/01-data.ipynb",
    params:
        preset=parameters("01-data"),
        fixed=SEEDED + (f" -p path {shlex.quote(DATA)}" if DATA else "") + (f" -p layout {LAYOUT}" if LAYOUT else ""),
    shell:
        RUNNER


rule search_space:
    input:
        **source("02-search-space"),
        data=rules.data.output.data,
    output:
        notebook=f"{HOME}/notebooks/02-search-space.ipynb",
        teacher=multiext(f"{HOME}/teacher", ".safetensors", ".json"),
        discriminator=multiext(f"{HOME}/teacher-discriminator", ".safetensors", ".json"),
        scales=f"{HOME}/scales.json",
    log:
        notebook=f"{HOME}/logs/02-search-space.ipynb",
    params:
        preset=parameters("02-search-space", "inception"),
        fixed=SEEDED,
    threads: SETTINGS["threads"]
    resources:
        gpu=SETTINGS["gpu"],
        runtime=MINUTES,
    shell:
        RUNNER


# The paper's "Original": the same notebook with the ResNet-9 generator, a baseline of 05 that nothing else needs.
use rule search_space as original with:
    output:
        notebook=f"{HOME}/notebooks/02-search-space-resnet.ipynb",
        teacher=multiext(f"{HOME}/original", ".safetensors", ".json"),
    log:
        notebook=f"{HOME}/logs/02-search-space-resnet.ipynb",
    params:
        preset=parameters("02-search-space", "resnet"),
        fixed=SEEDED + " -p generator resnet",


rule pruning:
    input:
        **source("03-pruning"),
        teacher=rules.search_space.output.teacher,
    output:
        notebook=f"{HOME}/notebooks/03-pruning.ipynb",
        plan=f"{HOME}/plan.json",
    wildcard_constraints:
        task=f"(?!({'|'.join(FROM_LABELS)})/)[a-z0-9-]+",
    log:
        notebook=f"{HOME}/logs/03-pruning.ipynb",
    params:
        preset=parameters("03-pruning"),
        fixed=SEEDED,
    shell:
        RUNNER


use rule pruning as pruning_gaugan with:
    input:
        **source("03-pruning-gaugan"),
        teacher=rules.search_space.output.teacher,
    output:
        notebook=f"{HOME}/notebooks/03-pruning-gaugan.ipynb",
        plan=f"{HOME}/plan.json",
    wildcard_constraints:
        task="|".join(FROM_LABELS),
    log:
        notebook=f"{HOME}/logs/03-pruning-gaugan.ipynb",
    params:
        preset=parameters("03-pruning-gaugan"),
        fixed=SEEDED,


rule distillation:
    input:
        **source("04-distillation"),
        data=rules.data.output.data,
        teacher=rules.search_space.output.teacher,
        discriminator=rules.search_space.output.discriminator,
        scales=rules.search_space.output.scales,
        plan=f"{HOME}/plan.json",
    output:
        notebook=f"{HOME}/notebooks/04-distillation-{{arm}}.ipynb",
        student=multiext(f"{HOME}/student-{{arm}}", ".safetensors", ".json"),
    log:
        notebook=f"{HOME}/logs/04-distillation-{{arm}}.ipynb",
    params:
        preset=parameters("04-distillation"),
        fixed=SEEDED + " -p arm {arm}",
    threads: SETTINGS["threads"]
    resources:
        gpu=SETTINGS["gpu"],
        runtime=MINUTES,
    shell:
        RUNNER


rule evaluation:
    input:
        **source("05-evaluation"),
        data=rules.data.output.data,
        teacher=rules.search_space.output.teacher,
        original=lambda w: expand(rules.original.output.teacher, **w) if "resnet" in GENERATORS[w.task] else [],
        students=lambda w: expand(rules.distillation.output.student, arm=ARMS[w.task], **w),
    output:
        notebook=f"{HOME}/notebooks/05-evaluation.ipynb",
        results=f"{HOME}/eval.json",
    log:
        notebook=f"{HOME}/logs/05-evaluation.ipynb",
    params:
        preset=parameters("05-evaluation"),
        fixed=lambda w: SEEDED.format(**w)
        + f" -p arms '{json.dumps(ARMS[w.task])}' -p original {'resnet' in GENERATORS[w.task]}",
    threads: SETTINGS["threads"]
    resources:
        gpu=SETTINGS["gpu"],
        runtime=MINUTES,
    shell:
        RUNNER


use rule evaluation as ablation with:
    input:
        **source("05-evaluation"),
        data=rules.data.output.data,
        teacher=rules.search_space.output.teacher,
        students=lambda w: expand(rules.distillation.output.student, arm=ABLATIONS[w.task], **w),
    output:
        notebook=f"{HOME}/notebooks/05-evaluation-ablations.ipynb",
        results=f"{HOME}/ablations.json",
    log:
        notebook=f"{HOME}/logs/05-evaluation-ablations.ipynb",
    params:
        preset=parameters("05-evaluation"),
        fixed=lambda w: SEEDED.format(**w)
        + f" -p arms '{json.dumps(ABLATIONS[w.task])}' -p original no -p into ablations",


rule deployment:
    input:
        **source("07-deployment"),
        data=rules.data.output.data,
        teacher=rules.search_space.output.teacher,
        student=f"{HOME}/student-gcka.safetensors",
    output:
        notebook=f"{HOME}/notebooks/07-deployment.ipynb",
    log:
        notebook=f"{HOME}/logs/07-deployment.ipynb",
    params:
        preset=parameters("07-deployment"),
        fixed=SEEDED,
    shell:
        RUNNER


rule demo:
    input:
        modules=["i2i_book/demo.py", "i2i_lib/export/onnx.py", "i2i_lib/export/fuse.py"],
        data=rules.data.output.data,
        teacher=rules.search_space.output.teacher,
        student=f"{HOME}/student-gcka.safetensors",
    output:
        f"{HOME}/demo/demo.json",
    shell:
        f"exec {sys.executable} -m i2i_book.demo runs/{RUN}/{{wildcards.task}}/seed{{wildcards.seed}}"


rule collect:
    input:
        results=ASKED,
        module="i2i_lib/results.py",
    output:
        f"runs/{RUN}/results.jsonl",
    params:
        others=OTHERS,
    shell:
        f"exec {sys.executable} -m i2i_lib.results collect {{output}} {{input.results}} {{params.others}}"


rule results:
    input:
        **source("06-results"),
        results=rules.collect.output,
        evaluations=ASKED,
    output:
        notebook=f"runs/{RUN}/notebooks/06-results.ipynb",
        headline=f"runs/{RUN}/headline.md",
    log:
        notebook=f"runs/{RUN}/logs/06-results.ipynb",
    params:
        preset=lambda wildcards: json.dumps(presets.preset_parameters(SETTINGS, "06-results", "")),
        fixed="",
    shell:
        RUNNER


# Chapters that quote or measure beside the runs, and read none of them.
rule paper_numbers:
    input:
        **source("08-paper-numbers"),
        published=sorted(str(path) for path in Path("book/published").glob("*.csv")),
    output:
        notebook=f"runs/{RUN}/notebooks/08-paper-numbers.ipynb",
    log:
        notebook=f"runs/{RUN}/logs/08-paper-numbers.ipynb",
    params:
        preset=lambda wildcards: json.dumps(presets.preset_parameters(SETTINGS, "08-paper-numbers", "")),
        fixed="",
    shell:
        RUNNER


use rule paper_numbers as search_cost with:
    input:
        **source("09-search-cost"),
        published=["book/published/search.csv"],
    output:
        notebook=f"runs/{RUN}/notebooks/09-search-cost.ipynb",
    log:
        notebook=f"runs/{RUN}/logs/09-search-cost.ipynb",
    params:
        preset=lambda wildcards: json.dumps(presets.preset_parameters(SETTINGS, "09-search-cost", "")),
        fixed="",


use rule results as ablations with:
    input:
        **source("10-ablations"),
        results=rules.collect.output,
        evaluations=ASKED,
        ablations=ABLATED,
        scales=each(f"{HOME}/scales.json"),
        arms="notebooks/arms.yml",
    output:
        notebook=f"runs/{RUN}/notebooks/10-ablations.ipynb",
    log:
        notebook=f"runs/{RUN}/logs/10-ablations.ipynb",
    params:
        preset=lambda wildcards: json.dumps(presets.preset_parameters(SETTINGS, "10-ablations", "")),
        left=LEFT,
        fixed="",
