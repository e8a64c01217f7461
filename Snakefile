# One rule per notebook; the same file runs on a laptop and, through an executor plugin, on a cluster.
# `make book` calls it as: snakemake --config preset=cpu task=fluent seeds=1
# Which files a run makes stands in i2i_book/plan.py, which chapters there are in notebooks/chapters.yml.

import json
import shlex
import sys
from pathlib import Path

from i2i_book.chapters import chapters
from i2i_book.make import shown
from i2i_book.plan import Plan, imported, listing, sources
from i2i_book.presets import MAIN_TASK, preset_parameters
from i2i_book.runs import ASSEMBLED

PRESET = str(config.get("preset", "cpu"))
try:
    PLAN = Plan(
        PRESET,
        task=str(config.get("task", MAIN_TASK)),
        seeds=str(config.get("seeds", 1)),
        ablate=os.environ.get("ABLATIONS") == "yes",
    )
    for task in PLAN.tasks:  # before anything runs
        PLAN.training_weights(task)
except ValueError as error:
    raise WorkflowError(str(error)) from None
RUN = PLAN.folder
# Recorded tasks are shown as they are, unless the ablations were asked for.
SHOWN = shown(Path(PRESET).stem, PLAN.tasks) and not PLAN.ablate

HOME = RUN + "/{task}/seed{seed}"
EVALUATIONS = PLAN.each("eval.json")
# The folder of the task `folder`, or where a data set was put, and how its pictures are arranged.
DATA, LAYOUT = str(config.get("data", "")), str(config.get("layout", ""))
# "train": neither a teacher nor a student is taken from a record, so that their trainings have no limit of time.
TEACHER = str(config.get("teacher", ""))
# Threads, GPUs and time of a training. A cluster stops it a little later than its runner does, which reports why.
THREADS, GPU = PLAN.settings["threads"], PLAN.settings["gpu"]
LIMIT = 10_000 if TEACHER else PLAN.settings["minutes"]
MINUTES = LIMIT + 5


def literal(text):
    """A word of a shell command, whatever it holds; braces would be places for Snakemake to fill."""
    return shlex.quote(str(text)).replace("{", "{{").replace("}", "}}")


# Through a variable: a path in the commands would change with the checkout's place, and run everything again.
os.environ["I2I_PYTHON"] = sys.executable
PYTHON = '"$I2I_PYTHON"'
# exec: the runner takes the shell's place, so that it sees at once when Snakemake is gone.
RUNNER = (
    f"exec {PYTHON} -m i2i_book.runner --preset {literal(PRESET)} --run {literal(Path(PRESET).stem)}"
    f"{f' --minutes {LIMIT}' if TEACHER else ''} {{input.notebook:q}} {{params.fixed}} --publish {{output.notebook:q}}"
)
# With the GPUs of the job, and for a chapter that computes next to nothing.
ON_GPU, ON_CPU = RUNNER + " --gpu {resources.gpu}", RUNNER + " --gpu 0"
TRAINED = f" -p weights {TEACHER}" if TEACHER else ""
SEEDED = "-p task {task} -p seed {seed}"


wildcard_constraints:
    task="[a-z0-9-]+",
    seed="[0-9]+",
    arm="[a-z-]+",


def glob(*patterns):
    return sorted(str(path) for pattern in patterns for path in Path().glob(pattern) if path.is_file())


def source(name, task=None):
    """A notebook and what it imports. A change of either runs it again; `fit` repeats a training only if it concerns it."""
    modules = lambda wildcards: sources(name, wildcards.get("task", task))
    return {"notebook": f"notebooks/{name}.ipynb", "modules": modules}


def parameters(name, variant=None, task=""):
    """Parameters that the preset sets for a notebook: a change reruns it."""

    def given(wildcards):
        found = preset_parameters(PLAN.settings, name, wildcards.get("task", task), wildcards.get("arm", variant))
        return json.dumps(found, sort_keys=True)

    return given


rule all:
    input:
        "_build/html/index.html",
        # Snakemake misses no file that only finished rules have read, unless it is asked for.
        [] if SHOWN else [*PLAN.artifacts(), *PLAN.ablated()],


# What a recording is packed from: the numbers without the pages, of which a part of the seeds has none.
rule record:
    input:
        EVALUATIONS,
        f"{RUN}/results.jsonl",


rule book:
    input:
        pages=[] if SHOWN else PLAN.pages(),
        results=[] if SHOWN else f"{RUN}/results.jsonl",
        demos=[] if SHOWN else PLAN.demos(),
        recorded=glob("book/recorded/**/*.*"),
        prose=[path for path in glob("book/*.*", "book/static/*.*", "book/static/search/*.*", "book/static/alike/*.*", "book/measured/*.*", "benchmarks/*.md", "i2i_lib/demo/static/*.*") if Path(path).name not in ASSEMBLED],
        config=["_config.yml", "package.json", "package-lock.json", "pyproject.toml", "CHANGELOG.md"],
        notebooks=glob("notebooks/*.*"),  # of those that did not run, too, it shows titles and status
        book=glob("i2i_book/**/*.py", "i2i_book/pages/autoapi/**/*.rst"),
        library=glob("i2i_lib/**/*.py"),  # for its reference
    output:
        "_build/html/index.html",
    params:
        preset=PRESET,
    shell:
        f"{PYTHON} -m i2i_book.pages assemble --preset {literal(Path(PRESET).stem)} && exec {PYTHON} -m i2i_book.pages build"


rule data:
    input:
        **source("01-data"),
        texts="notebooks/tasks.yml",
    output:
        notebook=HOME + "/notebooks/01-data.ipynb",
        data=multiext(HOME + "/data", ".safetensors", ".json"),
    params:
        preset=parameters("01-data"),
        # A function's result is not searched for wildcards.
        fixed=lambda w: SEEDED.format(task=w.task, seed=w.seed)
        + (f" -p path {shlex.quote(DATA)}" if DATA else "")
        + (f" -p layout {shlex.quote(LAYOUT)}" if LAYOUT else ""),
        pictures=listing(DATA) if DATA else "",
    shell:
        ON_CPU


def recorded(wildcards):
    """The files of a recorded training, of a task that starts from one."""
    if preset_parameters(PLAN.settings, "02-search-space", wildcards.task).get("weights") != "recorded" or TEACHER:
        return []
    return glob(f"book/recorded/{wildcards.task}/*", f"book/recorded/{wildcards.task}/snapshots/**/*.webp")


rule search_space:
    input:
        **source("02-search-space"),
        data=rules.data.output.data,
        recorded=recorded,
        weights=lambda w: PLAN.training_weights(w.task),
    output:
        notebook=HOME + "/notebooks/02-search-space.ipynb",
        teacher=multiext(HOME + "/teacher", ".safetensors", ".json"),
        discriminator=multiext(HOME + "/teacher-discriminator", ".safetensors", ".json"),
        scales=HOME + "/scales.json",
    params:
        preset=parameters("02-search-space", "inception"),
        fixed=SEEDED + TRAINED,
    threads: THREADS
    resources:
        gpu=GPU,
        runtime=MINUTES,
    shell:
        ON_GPU


# The paper's "Original": the same notebook with the ResNet-9 generator, a baseline of 05 that nothing else needs.
use rule search_space as original with:
    output:
        notebook=HOME + "/notebooks/02-search-space-resnet.ipynb",
        teacher=multiext(HOME + "/original", ".safetensors", ".json"),
    params:
        preset=parameters("02-search-space", "resnet"),
        fixed=f"{SEEDED}{TRAINED} -p generator resnet",


# A teacher for as many steps as teacher and student together, another baseline of 05.
use rule search_space as longer with:
    output:
        notebook=HOME + "/notebooks/02-search-space-longer.ipynb",
        teacher=multiext(HOME + "/teacher-longer", ".safetensors", ".json"),
    params:
        preset=parameters("02-search-space", "longer"),
        fixed=lambda w: SEEDED.format(task=w.task, seed=w.seed)
        + f" -p weights train -p generator longer -p steps {PLAN.steps_together(w.task)}",


# A family's search space may have a pruning chapter of its own.
for pruning in [name for name, chapter in chapters().items() if "plan" in chapter.makes]:

    rule:
        name:
            pruning[3:].replace("-", "_")
        input:
            **source(pruning),
            teacher=rules.search_space.output.teacher,
            published=glob("book/published/*.csv"),
        output:
            notebook=HOME + f"/notebooks/{pruning}.ipynb",
            plan=HOME + "/plan.json",
        wildcard_constraints:
            task="|".join(PLAN.tasks_of(pruning)) or "(?!)",  # the empty pattern would match every task
        params:
            preset=parameters(pruning),
            fixed=SEEDED,
        shell:
            ON_CPU


def is_recorded(wildcards):
    """Whether a student is taken from the record, as its teacher is."""
    return not TEACHER and PLAN.is_recorded(wildcards.task, int(wildcards.seed), wildcards.arm)


rule distillation:
    input:
        **source("04-distillation"),
        data=rules.data.output.data,
        teacher=rules.search_space.output.teacher,
        discriminator=rules.search_space.output.discriminator,
        scales=rules.search_space.output.scales,
        plan=HOME + "/plan.json",
        recorded=lambda w: glob(f"book/recorded/{w.task}/student-{w.arm}*") if is_recorded(w) else [],
        weights=lambda w: PLAN.training_weights(w.task),
    output:
        notebook=HOME + "/notebooks/04-distillation-{arm}.ipynb",
        student=multiext(HOME + "/student-{arm}", ".safetensors", ".json"),
    params:
        preset=parameters("04-distillation"),
        # A function's result is not searched for wildcards.
        fixed=lambda w: SEEDED.format(task=w.task, seed=w.seed)
        + f" -p arm {w.arm}"
        + (" -p weights recorded" if is_recorded(w) else ""),
    threads: THREADS
    resources:
        gpu=GPU,
        runtime=MINUTES,
    shell:
        ON_GPU


def evaluated(wildcards, arms, generators, into):
    """The parameters of an evaluation."""
    known = f"-p original {'resnet' in generators} -p longer {'longer' in generators}"
    return f"{SEEDED.format(task=wildcards.task, seed=wildcards.seed)} -p arms '{json.dumps(arms)}' {known} -p into {into}"


rule evaluation:
    input:
        **source("05-evaluation"),
        data=rules.data.output.data,
        teacher=rules.search_space.output.teacher,
        original=lambda w: expand(rules.original.output.teacher, **w) if "resnet" in PLAN.generators(w.task) else [],
        longer=lambda w: expand(rules.longer.output.teacher, **w) if "longer" in PLAN.generators(w.task) else [],
        students=lambda w: expand(rules.distillation.output.student, arm=PLAN.arms(w.task), **w),
        weights=lambda w: PLAN.measuring_weights(w.task),
    output:
        notebook=HOME + "/notebooks/05-evaluation.ipynb",
        results=HOME + "/eval.json",
    params:
        preset=parameters("05-evaluation"),
        fixed=lambda w: evaluated(w, PLAN.arms(w.task), PLAN.generators(w.task), into="eval"),
    threads: THREADS
    resources:
        gpu=min(GPU, 1),  # several share a training alone
        runtime=MINUTES,
    shell:
        ON_GPU


use rule evaluation as ablation with:
    input:
        **source("05-evaluation"),
        data=rules.data.output.data,
        teacher=rules.search_space.output.teacher,
        students=lambda w: expand(rules.distillation.output.student, arm=PLAN.ablations(w.task), **w),
        weights=lambda w: PLAN.measuring_weights(w.task),
    output:
        notebook=HOME + "/notebooks/05-evaluation-ablations.ipynb",
        results=HOME + "/ablations.json",
    params:
        preset=parameters("05-evaluation"),
        fixed=lambda w: evaluated(w, PLAN.ablations(w.task), [], into="ablations"),


# The last part of chapter 4's page.
rule students:
    input:
        **source("04-students"),
        data=rules.data.output.data,
        teacher=rules.search_space.output.teacher,
        students=lambda w: expand(rules.distillation.output.student, arm=PLAN.arms(w.task), **w),
        results=rules.evaluation.output.results,
    output:
        notebook=HOME + "/notebooks/04-students.ipynb",
    params:
        preset=parameters("04-students"),
        fixed=lambda w: f"{SEEDED.format(task=w.task, seed=w.seed)} -p arms '{json.dumps(PLAN.arms(w.task))}'",
    shell:
        ON_CPU


rule demo:
    input:
        modules=lambda w: imported("i2i_book.demo"),  # only if there is a demo to make
        data=rules.data.output.data,
        teacher=rules.search_space.output.teacher,
        compared=lambda w: expand(rules.distillation.output.student, arm=[a for a in PLAN.arms(w.task) if a in ("gcka", "none")], **w),
        students=lambda w: glob(f"book/recorded/{w.task}/students/*.*"),
    output:
        HOME + "/demo/demo.json",
    shell:
        f"exec {PYTHON} -m i2i_book.demo {literal(RUN)}/{{wildcards.task}}/seed{{wildcards.seed}}"


rule collect:
    input:
        results=EVALUATIONS,
        module="i2i_lib/results.py",
    output:
        RUN + "/results.jsonl",
    params:
        # What other tasks and seeds have left in this run stays in its table; asking for one task makes no other again.
        others=PLAN.left("eval.json", EVALUATIONS),
    shell:
        f"exec {PYTHON} -m i2i_lib.results collect {{output:q}} {{input.results:q}} {{params.others:q}}"


# The chapters that no other one builds on, each a page. What one reads is an artifact of its seed, a list of the whole
# run, or files of the checkout.
LISTS = {
    "results": [RUN + "/results.jsonl"],
    "evaluations": EVALUATIONS,
    "ablations": PLAN.ablated(),
    "scales": PLAN.each("scales.json"),
}
for name, chapter in chapters().items():
    if not chapter.reads:
        continue
    home, task, fixed = RUN, "", ""
    if chapter.of != "run":
        home = f"{RUN}/{chapter.of}"
        task, seed = chapter.of.split("/seed")
        fixed = f"-p task {task} -p seed {seed}"
    read = []
    for item in chapter.reads:
        if "/" in item:
            read += glob(item)
        else:
            own = [item] if item.endswith(".json") else [f"{item}.safetensors", f"{item}.json"]
            read += LISTS.get(item, [f"{home}/{file}" for file in own])

    rule:
        name:
            name[3:].replace("-", "_")
        input:
            **source(name, task or None),
            read=read,
        output:
            notebook=f"{home}/notebooks/{name}.ipynb",
            made=[f"{home}/{made}" for made in chapter.makes],
        params:
            preset=parameters(name, task=task),
            # What was ablated before is shown too, and only `make ablations` makes it.
            left=PLAN.left("ablations.json", PLAN.ablated()) if "ablations" in chapter.reads else [],
            fixed=fixed,
        shell:
            ON_CPU
